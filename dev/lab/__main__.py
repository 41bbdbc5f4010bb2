"""`python -m dev.lab`."""

import sys

from dev.lab.cli import main

sys.exit(main())

"""``python3 -m mount_guard``."""

import sys

from mount_guard.cli import main

sys.exit(main())

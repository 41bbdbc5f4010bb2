"""`python3 -m host_agent.mount`."""

import sys

from host_agent.mount.cli import main

sys.exit(main())

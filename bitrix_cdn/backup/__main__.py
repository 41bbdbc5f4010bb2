"""`python -m bitrix_cdn.backup`."""

import sys

from bitrix_cdn.backup.cli import main

sys.exit(main())

"""``python -m bitrix_cdn.adopt``."""

import sys

from bitrix_cdn.adopt.cli import main

sys.exit(main())

"""``python -m bitrix_cdn.drift``."""

import sys

from bitrix_cdn.drift.cli import main

sys.exit(main())

"""``python -m bitrix_cdn.rollout``."""

import sys

from bitrix_cdn.rollout.cli import main

sys.exit(main())

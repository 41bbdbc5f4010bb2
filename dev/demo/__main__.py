"""`python -m dev.demo`: `bitrix-cdn demo`."""

import sys

from bitrix_cdn.cli import main

sys.exit(main(["demo", *sys.argv[1:]]))

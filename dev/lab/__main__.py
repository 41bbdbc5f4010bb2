"""`python -m dev.lab`: `bitrix-cdn lab`."""

import sys

from bitrix_cdn.cli import main

sys.exit(main(["lab", *sys.argv[1:]]))

"""`python -m bitrix_cdn` is the command `bitrix-cdn`."""

import sys

from bitrix_cdn.cli import main

if __name__ == "__main__":
    sys.exit(main())

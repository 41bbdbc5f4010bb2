"""How pyinfra runs this project's deploys; it reads this file from the working directory."""

import sys
from pathlib import Path

# This tree's own modules, also where the command of another copy is installed.
sys.path.insert(0, str(Path.cwd()))

from pyinfra import config

import bitrix_cdn.fleet.reading
import bitrix_cdn.fleet.ssh  # noqa: F401 -- before any connection is made

# pyinfra turns this off, and with it all that is imported here would be compiled again in every run.
sys.dont_write_bytecode = False

# The hosts need each other: when one fails or can't be reached, stop rather than finish the other half.
config.FAIL_PERCENT = 0
config.CONNECT_TIMEOUT = 5

# Hardened hosts give root a umask of 077: what a command makes there is as open as on any other.
config.SHELL = """sh -c 'umask 022; exec sh "$@"' sh"""

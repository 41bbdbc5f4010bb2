"""How pyinfra runs this project's deploys; it reads this file from the working directory."""

import sys
from itertools import takewhile
from pathlib import Path

from pyinfra import config

import bitrix_cdn.fleet.ssh  # noqa: F401 -- before any connection is made

# Without its inventory pyinfra would have no hosts, do nothing, and call that a success.
if Path(sys.argv[0]).name == "pyinfra":
    # What follows these are the words of a command for the hosts.
    _words = takewhile(lambda word: word not in {"--", "exec", "fact"}, sys.argv[1:])
    _missing = [
        word
        for word in _words
        if word.endswith(".py") and not word.startswith("-") and "=" not in word and not Path(word).is_file()
    ]
    for _file in _missing:
        _there = ", ".join(sorted(map(str, Path(_file).parent.glob("*.py")))) or "none"
        print(f"{_file}: no such file; files of that kind there: {_there}", file=sys.stderr)
    if _missing:
        sys.exit(2)

# pyinfra turns this off, and with it all that is imported here would be compiled anew in every run.
sys.dont_write_bytecode = False

# The hosts need each other: when one fails or can't be reached, stop rather than finish the other half.
config.FAIL_PERCENT = 0
config.CONNECT_TIMEOUT = 5

# Hardened hosts give root a umask of 077: what a command makes there is as open as on any other.
config.SHELL = """sh -c 'umask 022; exec sh "$@"' sh"""

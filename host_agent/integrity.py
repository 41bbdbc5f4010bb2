"""Whether the programs of this host are as their packages brought them, by dpkg's own checksums.

Configuration is judged by the drift check, from outside. Whoever is root can change the checksums as well:
this finds what was changed or broken by chance, by hand, or by somebody who didn't think of them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence

# What images and containers are made smaller by.
_DISPENSABLE = re.compile(r"/usr/share/(doc|info|lintian|locale|man)(/|$)")
# Nine characters, of which the third is the checksum's; `c` before configuration.
_LINE = re.compile(r"(?P<found>missing|[?5.]{9}) +(?P<configuration>c )? *(?P<path>/.*)")


def main(arguments: Sequence[str]) -> int:
    """Prints a line for each file that differs; returns 1 if any does, or if dpkg can't tell."""
    argparse.ArgumentParser(prog="cdn-host integrity", description=__doc__).parse_args(arguments)
    asked = subprocess.run(
        ["dpkg", "--verify"], stdout=subprocess.PIPE, text=True, errors="replace", check=False
    )
    wrong = list(differing(asked.stdout.splitlines()))
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    # dpkg ends with 1 also for what is allowed to differ.
    return 1 if wrong or asked.returncode not in (0, 1) else 0


def differing(lines: Iterable[str]) -> Iterator[str]:
    """What is wrong, in words, of what `dpkg --verify` prints."""
    for line in lines:
        read = _LINE.fullmatch(line)
        if read is None:
            yield f"dpkg says: {line}"
        elif read["configuration"] or _DISPENSABLE.match(read["path"]):
            continue
        elif read["found"] == "missing":
            yield f"{read['path']} is missing; install its package again"
        else:
            yield f"{read['path']} is not as its package brought it; install that again"

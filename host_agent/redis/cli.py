"""Asks a Redis of this host as its operator, as `redis-cli` does: `cdn-host redis INSTANCE COMMAND...`"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from host_agent.redis import INSTANCES, OPERATOR, asking, password_file, socket_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Becomes `redis-cli`; returns only when that can't be."""
    instance, *command = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if instance in ("-h", "--help"):
        print(f"usage: cdn-host redis {{{','.join(INSTANCES)}}} [COMMAND...]\n\n{__doc__}")
        return 0
    if instance not in INSTANCES:
        print(f"cdn-host redis: {instance!r}: {', '.join(INSTANCES)} or --help is allowed", file=sys.stderr)
        return 2
    try:
        words, environment = asking(socket_of(instance), password_file(instance, OPERATOR), *command[:-1])
        os.execvpe(words[0], words, environment)  # noqa: S606 -- there is none to give it to
    except OSError as error:
        print(f"{error.filename or words[0]}: {error.strerror}", file=sys.stderr)
    return 1

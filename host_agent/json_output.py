"""The output of the agent's commands: JSON when they succeed, otherwise one line and an exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import IntEnum


class Status(IntEnum):
    """Exit statuses, those of `bitrix-cdn`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    HELD = 4
    """Somebody else is at work on the host; the answer says who."""


class AgentError(Exception):
    """One line for the operator.

    :param more: lines that explain it, such as the last ones of a service.
    """

    def __init__(self, text: str, more: str = "") -> None:
        super().__init__(text)
        self.more = more


def print_result(run: Callable[[], object]) -> int:
    """Prints what `run` returns as one line of JSON; returns the exit status.

    What went wrong is the last line of the errors, as that is the one which the operator's side shows.
    """
    try:
        result = run()
    except AgentError as error:
        print(*filter(None, (error.more, error)), sep="\n", file=sys.stderr)
        return Status.FAILED
    except OSError as error:
        print(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), file=sys.stderr)
        return Status.FAILED
    print(json.dumps(result), flush=True)
    return Status.DONE

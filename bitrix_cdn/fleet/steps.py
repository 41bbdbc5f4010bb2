"""What a deploy is at, told to whoever started it and passed a descriptor in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyinfra.api import State
from pyinfra.api.state import BaseStateCallback

ENVIRONMENT = "BITRIX_CDN_STEPS"


@dataclass(frozen=True)
class Step:
    """An operation that begins, or has ended."""

    number: int
    """From 1."""
    total: int
    name: str
    changed: tuple[str, ...] | None = None
    """The hosts that it changed; None: it begins."""


def read(lines: Iterable[str]) -> Iterator[Step]:
    """The steps that a run tells, as they come."""
    for line in lines:
        number, total, name, changed = json.loads(line)
        yield Step(number, total, name, None if changed is None else tuple(changed))


class _Teller(BaseStateCallback):
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._number = 0

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        self._number += 1
        self._tell(state, op_hash, None)

    def operation_end(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        done = [
            host.name
            for host in state.inventory.get_active_hosts()
            if op_hash in state.ops[host] and state.ops[host][op_hash].operation_meta.did_change()
        ]
        self._tell(state, op_hash, done)

    def _tell(self, state: State, op_hash: str, changed: list[str] | None) -> None:
        name = ", ".join(state.get_op_meta(op_hash).names)
        total = len(state.get_op_order())  # type: ignore[no-untyped-call]
        line = json.dumps([self._number, total, name, changed])
        os.write(self._descriptor, f"{line}\n".encode())


def tell_steps(state: State) -> None:
    """Has this run tell each of its operations, if somebody wants to know."""
    told = any(isinstance(handler, _Teller) for handler in state.callback_handlers)
    if ENVIRONMENT in os.environ and not told:
        state.add_callback_handler(_Teller(int(os.environ[ENVIRONMENT])))  # type: ignore[no-untyped-call]

"""Kernel settings."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation


class SysctlPending(FactBase[list[str]]):
    """The lines of a sysctl.d file that the kernel doesn't have yet and that can be written here, as
    `key=value`.

    In a container some settings belong to the machine below and are read-only; those are left out.
    """

    default = list

    def command(self, path: str, least: bool = False) -> str:
        differs = '[ "$(cat $f)" -lt "$value" ]' if least else '[ "$(cat $f)" != "$value" ]'
        return (
            f"sed -nE 's/^([a-z][^ =]*) *= *(.*)$/\\1 \\2/p' {shlex.quote(path)} 2>/dev/null | "
            "while read -r key value; do f=/proc/sys/$(echo $key | tr . /); "
            f'[ -w "$f" ] && {differs} && echo "$key=$value"; done; true'
        )

    def process(self, output: Iterable[str]) -> list[str]:
        return list(output)


@operation()
def sysctl_applied(path: str, *, least: bool = False) -> Generator[StringCommand, None, None]:
    """Loads a sysctl.d file as far as this kernel lets it.

    + path: the file
    + least: whether a higher value than the file's is fine, too
    """
    pending = host.get_fact(SysctlPending, path=path, least=least)
    if not pending:
        host.noop(f"the kernel has what {path} says")
        return
    yield StringCommand(f"sysctl -q -w {shlex.join(pending)}")

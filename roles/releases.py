"""The converter's releases on a host, as a deploy changes them; see :mod:`host_agent.release`."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Literal

from pyinfra import host, logger
from pyinfra.api import FactBase, FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.agent import call
from bitrix_cdn.engine.findings import WrongUnit
from bitrix_cdn.engine.services import STAMPS, Applied, action_for, faults, start_script
from host_agent.health.converter import UNIT
from host_agent.release import HOME, TRIAL

CONFIG = "/etc/webp-converter/config.toml"
START = (
    "/etc/systemd/system/webp-converter.service",
    CONFIG,
    "/etc/systemd/system/webp-converter-misses.socket",
    f"{HOME}/current/release",
)
"""What a restart is needed for."""

_IF_THERE = f"[ -d {HOME}/releases ] || exit 0"


@dataclass(frozen=True)
class Releases:
    """The releases of a host."""

    current: str
    """Empty: none."""

    history: tuple[str, ...]
    """Those that were current and are complete, the last one last."""

    complete: tuple[str, ...]
    """All that could be made current."""

    surplus: tuple[str, ...] = ()
    """Those that are more than are kept, and that nothing needs."""

    def target(self, wanted: str = "") -> str:
        """The release to go back to.

        :param wanted: the release that is asked for, or how its id begins; empty: the one before.
        :raises ValueError: there is none such; says what there is.
        """
        others = [id for id in self.complete if id != self.current]
        there_is = f"there is {', '.join(others) or 'no other'}"
        if wanted:
            found = [id for id in self.complete if id.startswith(wanted)]
            if found == [self.current]:
                raise ValueError(f"release {self.current} is current already; {there_is}")
            if len(found) != 1:
                raise ValueError(f"{'several releases' if found else 'no release'} {wanted}; {there_is}")
            return found[0]
        before = [id for id in self.history if id != self.current]
        if not before:
            raise ValueError(f"no release was current before {self.current or 'this'}; {there_is}")
        return before[-1]


class Unreadable(FactBase[bool]):
    """Whether something of the releases is closed to the account that runs them."""

    default = bool

    def command(self) -> str:
        closed = r"\( ! -type l ! -perm -o=r -o -type d ! -perm -o=x \)"
        # What root's Python compiled under its own umask is of use to root alone, and disturbs no one.
        return f"find {HOME} -xdev -name __pycache__ -prune -o {closed} -print -quit 2>/dev/null; true"

    def process(self, output: Iterable[str]) -> bool:
        return bool(list(output))


@operation()
def readable() -> Generator[StringCommand, None, None]:
    """Opens releases that were installed under a stricter umask to the account that runs them."""
    if not host.get_fact(Unreadable):
        host.noop("all of the releases can be read")
        return
    yield StringCommand(f"chmod -R go+rX {HOME}")


class Installed(FactBase[Releases]):
    """The releases on the host; where it is said how many are kept, also which are surplus."""

    @staticmethod
    def default() -> Releases:
        return Releases("", (), ())

    def command(self, keep: int | None = None) -> str:
        return f"{_IF_THERE}\n{call('release', 'list', *([] if keep is None else ['--keep', str(keep)]))}"

    def process(self, output: Iterable[str]) -> Releases:
        text = "".join(output)
        if not text:
            return self.default()
        found = json.loads(text)
        return Releases(found.pop("current"), **{name: tuple(ids) for name, ids in found.items()})


@operation()
def running_release(release: str, healthy_within_s: int) -> Generator[StringCommand, None, None]:
    """Makes a release the current one and has the daemon run it with its files as they are, or takes it back.

    A daemon that doesn't get healthy is replaced by what ran before: the release, and the files that the
    same deploy (or the ones since that failed halfway) changed. Then the operation fails.

    + release: id of the release, which is installed
    + healthy_within_s: seconds until it must be healthy, once systemd has started it
    """
    ready = f'[ "$(cat {HOME}/current/release)" = {release} ] && [ ! -d {TRIAL} ]'
    now = host.get_fact(Applied, unit=UNIT, start=START, reload=(), ready=ready)
    differences.manage(units=[UNIT])
    right = action_for(now) is None
    if right and now.get("enabled") == "enabled":
        host.noop(f"{UNIT} runs release {release} with its files as they are")
        return
    if differences.wanted():
        differences.report(WrongUnit(UNIT, tuple(faults(now))))
    yield StringCommand(switch_script(release, healthy_within_s=healthy_within_s, restart=not right))


@operation()
def rolled_back(
    before: str, release: str, healthy_within_s: int
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Goes back to a release that is on the host; its own checker must accept the configuration first.

    + before: id of the release that is current
    + release: id of the one to go back to
    + healthy_within_s: as the deploy's
    """
    yield StringCommand(switch_script(release, healthy_within_s=healthy_within_s, restart=True, back=True))
    yield FunctionCommand(_tell, (before, release), {})


def _tell(state: State, host: Host, before: str, release: str) -> None:
    logger.warning(
        f"{host.print_prefix}release {release} runs in place of {before}; "
        "the next deploy installs the release of its own sources again"
    )


def target_of(releases: Releases, wanted: str, name: str) -> str:
    """As :meth:`Releases.target`.

    :raises PyinfraError: there is none such.
    """
    try:
        return releases.target(wanted)
    except ValueError as error:
        raise PyinfraError(f"{name}: {error}") from None


def switch_script(release: str, *, healthy_within_s: int, restart: bool, back: bool = False) -> str:
    """The shell script that makes a release current, starts it, looks at its health, and undoes it all if
    that is bad.

    :param restart: whether the daemon must be restarted even if the release is current already.
    :param back: whether this is an operator's way back, so that what is newer leaves the history.
    """
    action: Literal["restart"] | None = "restart" if restart else None
    wanted = {
        "release": release,
        "healthy_within_s": healthy_within_s,
        # Its explanation is given with what became of it.
        "start": start_script(UNIT, start=START, explain="true", action=action, record=False),
        "stamp": f"{STAMPS}/{UNIT}",
        "action": action or "",
        "back": back,
    }
    return call("release", "switch", json.dumps(wanted))


@operation()
def pruned(keep: int) -> Generator[StringCommand, None, None]:
    """Removes all but the last releases. The current one, the one before it, one that still runs and one that
    a journal could need are never removed.

    + keep: how many to keep
    """
    if not host.get_fact(Installed, keep=keep).surplus:
        host.noop(f"there are no more than the last {keep} releases")
        return
    yield StringCommand(call("release", "prune", str(keep)))

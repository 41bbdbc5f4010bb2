"""The converter's releases on a host: which is current, which were before, and the way from one to another.

`/opt/webp-converter/releases/<id>` are complete and never change. `current` leads to one of them. `history`
names those that were current, one a line, the last one last: the way back. What was taken back is no longer
in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from pyinfra import host, logger
from pyinfra.api import FactBase, FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.findings import WrongUnit
from bitrix_cdn.engine.journal import JOURNAL, record_script, recorded, undo_script
from bitrix_cdn.engine.services import STAMPS, Applied, action_for, faults, start_script
from roles import agent

HOME = "/opt/webp-converter"
CONFIG = "/etc/webp-converter/config.toml"
UNIT = "webp-converter.service"
START = (
    "/etc/systemd/system/webp-converter.service",
    CONFIG,
    "/etc/systemd/system/webp-converter-misses.socket",
    f"{HOME}/current/release",
)
"""What a restart is needed for."""

TRIAL = "/var/lib/bitrix-cdn/converter-trial"
"""Journal of what the converter ran with when it was last healthy; there while that is being changed."""

_BACK_WITHIN_S = 60
"""Seconds for what was healthy before: nothing is won by giving it up."""


@dataclass(frozen=True)
class Releases:
    """The releases of a host."""

    current: str
    """Empty: none."""

    history: tuple[str, ...]
    """Those that were current and are complete, the last one last."""

    complete: tuple[str, ...]
    """All that could be made current."""

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
        return f"find {HOME} -xdev {closed} -print -quit 2>/dev/null; true"

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
    """The releases on the host."""

    @staticmethod
    def default() -> Releases:
        return Releases("", (), ())

    def command(self) -> str:
        return (
            f"cd {HOME}/releases 2>/dev/null || exit 0; "
            f"echo current $(readlink {HOME}/current | sed 's,.*/,,'); "
            f"for id in $(cat {HOME}/history 2>/dev/null); do [ -e $id/release ] && echo history $id; done; "
            "for id in *; do [ -e $id/release ] && echo complete $id; done; true"
        )

    def process(self, output: Iterable[str]) -> Releases:
        found: dict[str, list[str]] = {"current": [], "history": [], "complete": []}
        for line in output:
            key, _, id = line.partition(" ")
            found[key] += [id] if id else []
        return Releases(next(iter(found["current"]), ""), tuple(found["history"]), tuple(found["complete"]))


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
        differences.tell(WrongUnit(UNIT, tuple(faults(now))))
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


def switch_script(
    release: str,
    *,
    healthy_within_s: int,
    restart: bool,
    back: bool = False,
) -> str:
    """The shell script that makes a release current, starts it, looks at its health, and undoes it all if
    that is bad.

    :param restart: whether the daemon must be started anew even if the release is current already.
    :param back: whether this is an operator's way back, so that what is newer leaves the history.
    """
    q = shlex.quote
    health = f"{agent.COMMAND} health {CONFIG}"
    record = record_script(
        [f"{HOME}/current", f"{HOME}/history"],
        late=[f"{STAMPS}/{UNIT}"],
        unit=UNIT,
        action="restart" if restart else "",
        trial=TRIAL,
    )
    # Its explanation is given below, with what became of it.
    begin = start_script(UNIT, start=START, explain="true", action="restart" if restart else None)
    if back:
        # What was current before it, so that going back again goes further back.
        kept_in_history = f"sed '/^{release}$/,$d' {HOME}/history"
    else:
        # What was healthy before it is the one to go back to, also where nobody has noted it.
        others = f"awk 'NF && $0 != \"{release}\" && !seen[$0]++'"
        kept_in_history = f'{{ cat {HOME}/history; echo "$was"; }} | tac | {others} | tac'
    return f"""
set -eu
exec 9> {HOME}/lock
flock -w 600 9 || {{ echo 'another deploy or rollback is at work here' >&2; exit 1; }}
{_before_going_back(release) if back else ""}
{record}
was=$(readlink {recorded(f"{HOME}/current", TRIAL)} | sed 's,.*/,,') || :
old=$(readlink {HOME}/current | sed 's,.*/,,') || :
before=$({health})
moment=$(date +%s)
if [ "$old" != {release} ]; then
    ln -sfn releases/{release} {HOME}/current.new
    mv -fT {HOME}/current.new {HOME}/current
fi
if ! sh -c {q(begin)} >/dev/null 2>&1; then
    why="it does not start ($(systemctl show -p Result --value {UNIT}))"
elif why=$({health} {release} {healthy_within_s} "$before"); then
    touch {HOME}/history
    {{
        for id in $({kept_in_history}); do
            [ ! -e "{HOME}/releases/$id/release" ] || echo "$id"
        done
        echo {release}
    }} > {HOME}/history.new
    mv -f {HOME}/history.new {HOME}/history
    rm -rf {TRIAL}.gone
    mv -T {TRIAL} {TRIAL}.gone
    rm -rf {TRIAL}.gone
    exit 0
fi
words=$(journalctl -u {UNIT} --since "@$moment" -o cat --no-pager | tail -n 8)
configured=$(cat {TRIAL}/files/*/path | grep -v -e ^{HOME} -e ^{STAMPS}/) || :
if [ -z "$was" ]; then
    then='it stays, as there is no earlier one to go back to'
elif [ "$was" = {release} ] && [ -z "$configured" ]; then
    then='there is nothing that could be taken back'
elif said=$(sh -c {q(undo_script(TRIAL))} 2>&1) && said=$(systemctl start {UNIT} 2>&1) &&
    said=$({health} "$was" {max(healthy_within_s, _BACK_WITHIN_S)} "$before"); then
    then="release $was runs again${{configured:+, with its configuration}}"
else
    then="release $was does not come back either: $(printf %s "$said" | head -n 1)"
fi
{{ echo "release {release} does not get healthy: $why; $then. Its last lines:"; echo "$words"; }} >&2
exit 1
"""


def _before_going_back(release: str) -> str:
    return f"""
# What a deploy that was cut short has left half changed.
if [ -d {TRIAL} ]; then sh -c {shlex.quote(undo_script(TRIAL))} >/dev/null; fi
if ! said=$({HOME}/releases/{release}/bin/webp-converter config check --config {CONFIG} 2>&1); then
    said=$(printf %s "$said" | tail -n 1)
    echo "release {release} refuses the configuration that is deployed: $said; deploy from its sources" >&2
    exit 1
fi
"""


class Surplus(FactBase[list[str]]):
    """The releases that are more than the last N."""

    default = list

    def command(self, keep: int) -> str:
        return surplus_script(keep)

    def process(self, output: Iterable[str]) -> list[str]:
        return list(output)


@operation()
def pruned(keep: int) -> Generator[StringCommand, None, None]:
    """Removes all but the last releases. The current one, the one before it, one that still runs and one that
    a journal could need are never removed.

    + keep: how many to keep
    """
    if not host.get_fact(Surplus, keep=keep):
        host.noop(f"there are no more than the last {keep} releases")
        return
    yield StringCommand(prune_script(keep))


def prune_script(keep: int) -> str:
    """The shell script of :func:`pruned`."""
    # A release without its id is incomplete: nobody goes back to one that is half removed.
    return (
        f"set -e; exec 9> {HOME}/lock; flock -w 600 9; for id in $({surplus_script(keep)}); do "
        f'rm -f "{HOME}/releases/$id/release"; rm -rf "{HOME}/releases/$id"; done'
    )


def surplus_script(keep: int) -> str:
    """A shell command that lists the releases to remove."""
    kept = " ".join(recorded(f"{HOME}/current", journal) for journal in (TRIAL, JOURNAL))
    return rf"""
cd {HOME}/releases 2>/dev/null || exit 0
now=$(readlink ../current | sed 's,.*/,,')
before=$(grep -vx "$now" ../history 2>/dev/null | tail -n 1)
needed="$now $before $(for was in {kept}; do readlink $was; done | sed 's,.*/,,')"
n=0
for id in $( {{ echo "$now"; tac ../history || :; ls -t; }} 2>/dev/null | awk 'NF && !seen[$0]++'); do
    [ -d "$id" ] || continue
    if [ -e "$id/release" ]; then n=$((n + 1)); [ $n -gt {keep} ] || continue; fi
    case " $(echo $needed) " in *" $id "*) continue ;; esac
    if grep -qs "{HOME}/releases/$id/" /proc/[0-9]*/maps; then continue; fi
    echo "$id"
done
true"""

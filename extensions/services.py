"""Services that run what their files say, also after a run that was cut short."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

from pyinfra import host
from pyinfra.api import StringCommand, operation

from extensions import differences
from extensions.ahead import Joint
from extensions.journal import record_script

STAMPS = "/var/lib/bitrix-cdn/applied"

_ENABLED = {"enabled", "static", "generated", "indirect"}


class Applied(Joint[dict[str, str]]):
    """What a service is, and what it was last started and reloaded with.

    Returns ``active``, ``enabled``, ``ready`` (``yes`` or ``no``), ``start`` and ``reload`` (checksums of
    the files as they are) and ``started`` and ``reloaded`` (checksums when the service last took them;
    empty: never).
    """

    default = dict

    def command(self, unit: str, start: Sequence[str], reload: Sequence[str], ready: str) -> str:
        return self.together([{"unit": unit, "start": start, "reload": reload, "ready": ready}])

    def process(self, output: Iterable[str]) -> dict[str, str]:
        return {key: value for key, _, value in (line.partition(" ") for line in output)}

    def together(self, several: Sequence[Mapping[str, Any]]) -> str:
        units = " ".join(shlex.quote(given["unit"]) for given in several)
        script = [
            f"export LC_ALL=C; set -- {units}",
            'systemctl is-active "$@" | sed "s/^/active /"',
            'enabled() { systemctl is-enabled "$@" 2>/dev/null; }',
            'e=$(enabled "$@"); [ $(echo "$e" | wc -l) = $# ] || e=$(for u; do echo $(enabled "$u"); done)',
            'echo "$e" | sed "s/^/enabled /"',
        ]
        for given in several:
            ready, start, reload = given["ready"], _checksum(given["start"]), _checksum(given["reload"])
            script += [
                f"echo ready $({{ {ready} ; }} >/dev/null 2>&1 && echo yes || echo no)",
                f"echo start $({start})",
                f"echo reload $({reload})",
                f"cat {STAMPS}/{shlex.quote(given['unit'])} 2>/dev/null",
            ]
        return "\n".join([*script, "true"])

    def parts(self, output: Sequence[str], several: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
        count = len(several)
        states, rest = output[: 2 * count], output[2 * count :]
        parts = [list(both) for both in zip(states[:count], states[count:], strict=True)]
        place = -1
        for line in rest:
            place += line.split(" ")[0] == "ready"
            parts[place].append(line)
        if place != count - 1:
            raise ValueError(f"{place + 1} units of {count}")
        return parts


def _checksum(paths: Sequence[str]) -> str:
    """A command that prints one checksum of all files; a missing one counts as empty."""
    if not paths:
        return "echo none"
    quoted = " ".join(map(shlex.quote, paths))
    return f'for f in {quoted}; do echo "$f"; cat "$f" 2>/dev/null; done | sha256sum | cut -c1-64'


@operation()
def running(
    unit: str,
    start: Sequence[str] = (),
    reload: Sequence[str] = (),
    ready: str = "true",
    explain: str = "",
    trial: str = "",
) -> Generator[StringCommand, None, None]:
    """Makes sure that a unit is enabled, runs with its files as they are now, and is ready.

    A checksum of those files is stamped when the unit has taken them. So a change is applied even if
    the run that made it failed before it came to this operation, and nothing restarts without a reason.
    A unit that runs and isn't ready is reloaded and waited for: its cause may have been put right since.
    A masked one is unmasked, as a disabled one is enabled: what the deploy says, the host does.

    + unit: name of the systemd unit, with its suffix
    + start: files that need a restart when they change, such as the unit's own
    + reload: files that need only a reload
    + ready: a command that must succeed, within 20 s after a start or reload; it never waits for long
    + explain: a command that says why it is not ready; by default the last lines of the unit's journal
    + trial: directory of a journal that records this change as well; see :mod:`extensions.journal`
    """
    action: Literal["restart", "reload"] | None
    now = host.get_fact(Applied, unit=unit, start=start, reload=reload, ready=ready)
    differences.manage(units=[unit])
    if now.get("active") == "active" and now.get("started") == now.get("start"):
        settled = now.get("reloaded") == now.get("reload") and now.get("ready") == "yes"
        action = None if settled else "reload"
    else:
        action = "restart"
    if action is None and now.get("enabled") in _ENABLED:
        host.noop(f"{unit} runs with its files as they are")
        return
    if differences.wanted():
        differences.tell(unit=unit, faults=faults(now))
    yield StringCommand(
        start_script(
            unit, start=start, reload=reload, ready=ready, explain=explain, action=action, trial=trial
        )
    )


def faults(now: dict[str, str]) -> list[str]:
    """What is wrong with a unit, in words; see :class:`Applied`."""
    found = []
    enabled = now.get("enabled", "")
    if enabled.startswith("masked"):
        found.append("is masked")
    elif enabled not in _ENABLED:
        found.append(f"is {enabled or 'unknown to systemd'}, must be enabled")
    if now.get("active") != "active":
        found.append(f"is {now.get('active') or 'unknown'}, must be active")
        return found
    if now.get("started") != now.get("start"):
        found.append("runs with other files than it was started with")
    elif now.get("reloaded") != now.get("reload"):
        found.append("has not taken its files as they are now")
    if now.get("ready") != "yes":
        found.append("is not ready")
    return found


def start_script(
    unit: str,
    *,
    start: Sequence[str] = (),
    reload: Sequence[str] = (),
    ready: str = "true",
    explain: str = "",
    action: Literal["restart", "reload"] | None = "restart",
    trial: str = "",
) -> str:
    """A shell script that enables a unit, starts it and stamps with which files, as :func:`running` does.

    :param action: `restart`, `reload`, or None: it runs already.
    """
    u = shlex.quote(unit)
    # Each of the two takes back only its own kind of masking.
    unmasked = f"systemctl unmask -q {u}; systemctl unmask -q --runtime {u}"
    script = [
        "set -e",
        record_script(late=[f"{STAMPS}/{unit}"], unit=unit, action=action or "", trial=trial),
        "systemctl daemon-reload",
        unmasked,
        f"systemctl enable -q {u}",
    ]
    if action:
        # `reload-or-restart`: a unit without ExecReload takes its files by a restart.
        verb = "restart" if action == "restart" else "reload-or-restart"
        script += [
            f"fail() {{ {{ {explain or f'journalctl -u {u} -n 15 --no-pager -o cat'} ; }} >&2; exit 1; }}",
            f"systemctl reset-failed {u} 2>/dev/null || :",
            f"systemctl {verb} {u} || fail",
            f"for i in $(seq 100); do if {{ {ready} ; }} >/dev/null 2>&1; then break; fi; sleep 0.2; done",
            f"{{ {ready} ; }} >/dev/null 2>&1 || {{ echo {u} does not get ready: >&2; fail; }}",
        ]
    script += [
        f"mkdir -p {STAMPS}",
        f"{{ echo started $({_checksum(start)}); echo reloaded $({_checksum(reload)}); }} > {STAMPS}/{u}.new",
        f"mv -f {STAMPS}/{u}.new {STAMPS}/{u}",
    ]
    return "\n".join(script)

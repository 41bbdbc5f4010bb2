"""Keeps services running with their current files, even after an interrupted run."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

from pyinfra import host
from pyinfra.api import StringCommand, operation

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.findings import WrongUnit
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.prefetch import BatchedFact

STAMPS = "/var/lib/bitrix-cdn/applied"

_ENABLED = {"enabled", "static", "generated", "indirect"}

Which = Literal["start", "reload"]
_STAMPED: dict[Which, str] = {"start": "started", "reload": "reloaded"}

# Two lines for each unit. Its life is another whenever systemd or a signal has had it take its files: what
# executes itself again has another stack then. nginx and HAProxy have new children, of which those of the
# first seconds are systemd's doing: they may be forked after the unit has become active.
# Taken: its start and its last start or reload, as microseconds of uptime; 0: it can't be told.
_LIVES = r"""
lives() {
    systemctl show -p MainPID,InvocationID,StateChangeTimestampMonotonic,ActiveEnterTimestampMonotonic \
        -p InactiveExitTimestampMonotonic,ReloadResult,NeedDaemonReload -- "$@" 2>/dev/null | awk '
        BEGIN { RS = ""; FS = "\n" }
        {
            split("", p)
            for (i = 1; i <= NF; i++) { at = index($i, "="); p[substr($i, 1, at - 1)] = substr($i, at + 1) }
            start = p["InactiveExitTimestampMonotonic"] + 0
            # That of a timer or a socket changes whenever it has something started.
            change = p["ReloadResult"] == "" ? start : p["StateChangeTimestampMonotonic"] + 0
            reload = change > p["ActiveEnterTimestampMonotonic"] + 0 ? change : start
            if (p["ReloadResult"] != "" && p["ReloadResult"] != "success") reload = 0
            if (p["NeedDaemonReload"] == "yes") start = 0
            printf "%d %.0f %.0f %.0f %s\n", p["MainPID"], change, start, reload, p["InvocationID"]
        }' |
    while read -r pid change start reload life; do
        echo life $life/$change $(
            [ "$pid" != 0 ] && cd /proc/$pid/task/$pid && {
                cat stat
                ! grep -qx -e nginx -e haproxy comm || for p in $(cat children); do cat /proc/$p/stat; done
            } 2>/dev/null | awk -v change=$change '
                { sub(/^.*[)] /, "") }
                NR == 1 { print $20 "/" $26; next }
                $20 * 10000 > change + 5000000 && $20 > forked { forked = $20 }
                END { if (forked) print forked }')
        echo taken $start $reload
    done 2>/dev/null
}
"""


class Applied(BatchedFact[dict[str, str]]):
    """What a service is, and what it was last started and reloaded with.

    Returns `active`, `enabled`, `ready` (`yes` or `no`), and of its files as they are:

    - `start` and `reload`: checksums of those that it takes at its start, and at a reload,
    - `start_files` and `reload_files`: of each the inode and when it was last changed, as Unix time.

    Of the unit as it runs `life` and `taken`, as told above, `told` and `runs` (checksums of what
    those commands print), and `clock`: Unix time and uptime of the host.

    Of the stamp `started` and `reloaded`, the checksums when a deploy last had the unit take them
    (missing: never); of that moment also `then_life` and so on.
    """

    default = dict

    def command(
        self,
        unit: str,
        start: Sequence[str],
        reload: Sequence[str],
        ready: str,
        told: str = "",
        runs: str = "",
    ) -> str:
        given = {"unit": unit, "start": start, "reload": reload, "ready": ready}
        return self.together([{**given, "told": told, "runs": runs}])

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
            _LIVES,
            'lives=$(lives "$@")',
            "clock=\"$(date +%s.%N) $(cut -d' ' -f1 /proc/uptime)\"",
        ]
        for place, given in enumerate(several):
            start, reload = given["start"], given["reload"]
            of_files = {"start": _checksum(start), "reload": _checksum(reload)}
            of_files |= {"start_files": _touched(start), "reload_files": _touched(reload)}
            script += [
                f"echo ready $({{ {given['ready']} ; }} >/dev/null 2>&1 && echo yes || echo no)",
                *(f"echo {key} $({command})" for key, command in of_files.items()),
                f'echo "$lives" | sed -n {2 * place + 1},{2 * place + 2}p',
                "echo clock $clock",
                *(f"echo {key} $({_digest(given[key])})" for key in ("told", "runs") if given.get(key)),
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


def _touched(paths: Sequence[str]) -> str:
    """A command that prints something else once any of the files was replaced or changed in any way."""
    return f"stat -L -c %i/%.Z -- {' '.join(map(shlex.quote, paths))} 2>/dev/null" if paths else "true"


def _digest(command: str) -> str:
    return f"{{ {command} ; }} 2>/dev/null | sha256sum | cut -c1-64"


@operation()
def running(
    unit: str,
    start: Sequence[str] = (),
    reload: Sequence[str] = (),
    ready: str = "true",
    explain: str = "",
    trial: str = "",
    told: str = "",
    runs: str = "",
    hold: Sequence[int] = (),
) -> Generator[StringCommand, None, None]:
    """Makes sure that a unit is enabled, runs with its files as they are now, and is ready.

    A checksum of those files is stamped when the unit has taken them. So a change is applied even if
    the run that made it failed before it came to this operation, and nothing restarts without a reason.
    A unit that somebody restarted or reloaded meanwhile, with other files than these, takes them again.
    A unit that runs and isn't ready is reloaded and waited for: its cause may have been put right since.
    A masked one is unmasked, as a disabled one is enabled: what the deploy says, the host does.

    + unit: name of the systemd unit, with its suffix
    + start: files that need a restart when they change, such as the unit's own
    + reload: files that need only a reload
    + ready: a command that must succeed, within 20 s after a start or reload; it never waits for long
    + explain: a command that says why it is not ready; by default the last lines of the unit's journal
    + trial: directory of a journal that records this change as well; see :mod:`bitrix_cdn.engine.journal`
    + told: a command that prints something else once the unit has read its files again, where neither
      systemd nor the unit's processes show that
    + runs: a command that prints what the unit runs with, the same whenever its files are the same
    + hold: ports whose new visitors wait while the unit restarts, instead of being refused
    """
    now = host.get_fact(Applied, unit=unit, start=start, reload=reload, ready=ready, told=told, runs=runs)
    differences.manage(units=[unit])
    action = action_for(now)
    if action is None and now.get("enabled") in _ENABLED:
        host.noop(f"{unit} runs with its files as they are")
        return
    if differences.wanted():
        differences.report(WrongUnit(unit, tuple(faults(now))))
    yield StringCommand(
        start_script(
            unit,
            start=start,
            reload=reload,
            ready=ready,
            explain=explain,
            action=action,
            trial=trial,
            told=told,
            runs=runs,
            hold=hold,
        )
    )


def action_for(now: Mapping[str, str]) -> Literal["restart", "reload"] | None:
    """What has a unit run with its files as they are; see :class:`Applied`."""
    if now.get("active") != "active" or not settled(now, "start"):
        return "restart"
    # What was changed while it runs may outlive a reload: Varnish's takes the file that is in use.
    if not _runs_as_then(now):
        return "restart"
    if not settled(now, "reload") or now.get("ready") != "yes":
        return "reload"
    return None


def settled(now: Mapping[str, str], which: Which) -> bool:
    """Whether a unit runs with its files of one kind as they are.

    They have the stamped checksum, and that isn't all: somebody may have had the unit take others since,
    which a deploy then put right. So either the files were not touched since the stamp, or the unit has taken
    nothing since, or what it has taken since is younger than all of them.
    """
    if now.get(_STAMPED[which]) != now.get(which):
        return False
    files = f"{which}_files"
    return now.get(f"then_{files}", "") == now.get(files, "") or _same_life(now) or not _newer(now, which)


def _same_life(now: Mapping[str, str]) -> bool:
    return all(now.get(f"then_{key}") == now.get(key) for key in ("life", "told"))


def _newer(now: Mapping[str, str], which: Which) -> bool:
    """Whether a file was changed after the unit last took it."""
    changed = [float(one.partition("/")[2]) for one in now.get(f"{which}_files", "").split()]
    start, reload = (int(one) / 1e6 for one in now.get("taken", "0 0").split())
    clock, uptime = map(float, now.get("clock", "0 0").split())
    # By the clock as it is now: it may have been set since.
    return max(changed, default=0.0) > clock - uptime + {"start": start, "reload": reload}[which]


def _runs_as_then(now: Mapping[str, str]) -> bool:
    """Whether what a unit runs with is what it was; earlier releases didn't stamp it."""
    return now.get("then_runs", now.get("runs")) == now.get("runs")


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
    other = next((which for which in _STAMPED if not settled(now, which)), None)
    if other and now.get(_STAMPED[other]) == now.get(other):
        found.append(
            "runs with other settings than its files: they were others when somebody restarted or reloaded it"
        )
    elif other and not _same_life(now) and not _newer(now, other):
        found.append("runs with its files as somebody changed them: it was restarted or reloaded since")
    elif other == "start":
        found.append("runs with other files than it was started with")
    elif other == "reload":
        found.append("has not taken its files as they are now")
    elif not _runs_as_then(now):
        found.append("runs with other settings than its files: somebody changed them while it runs")
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
    told: str = "",
    runs: str = "",
    record: bool = True,
    hold: Sequence[int] = (),
) -> str:
    """A shell script that enables a unit, starts it and stamps with which files, as :func:`running` does.

    :param action: `restart`, `reload`, or None: it runs already.
    :param record: whether a journal must be told; else whoever runs the script has done so.
    """
    u = shlex.quote(unit)
    # Each of the two takes back only its own kind of masking.
    unmasked = f"systemctl unmask -q --no-reload {u}; systemctl unmask -q --no-reload --runtime {u}"
    late = [f"{STAMPS}/{unit}"]
    recorded = [record_script(late=late, unit=unit, action=action or "", trial=trial)] if record else []
    script = [
        "set -e",
        *recorded,
        unmasked,
        f"systemctl enable -q --no-reload {u}",
        # Once for all three: it takes a busy host half a second.
        "systemctl daemon-reload",
        # Before the unit takes them: who changes one just then is noticed the next time.
        f"taking=$({_stamp_of_files(start, reload)})",
    ]
    if action:
        # `reload-or-restart`: a unit without ExecReload takes its files by a restart.
        verb = "restart" if action == "restart" else "reload-or-restart"
        script += held(hold) if hold and action == "restart" else []
        script += [
            # Until it is ready, it isn't known which settings it runs with.
            f"rm -f {STAMPS}/{u}",
            f"fail() {{ {{ {explain or f'journalctl -u {u} -n 15 --no-pager -o cat'} ; }} >&2; exit 1; }}",
            f"systemctl reset-failed {u} 2>/dev/null || :",
            f"systemctl {verb} {u} || fail",
            f"for i in $(seq 100); do if {{ {ready} ; }} >/dev/null 2>&1; then break; fi; sleep 0.2; done",
            f"{{ {ready} ; }} >/dev/null 2>&1 || {{ echo {u} does not get ready: >&2; fail; }}",
        ]
        script += ["release"] if hold and action == "restart" else []
    script.append(_stamp(unit, told=told, runs=runs))
    return "\n".join(script)


def held(ports: Sequence[int]) -> list[str]:
    """The part of a script that has new connections wait: what is dropped is sent again a second later.

    `release` ends that. Should the script be killed before, it ends by itself.
    """
    elements = ", ".join(f"{port} timeout 15s" for port in ports)
    return [
        "release() { nft delete table inet bitrix_cdn_hold 2>/dev/null || :; }",
        "release",
        f"""echo 'table inet bitrix_cdn_hold {{
            set ports {{ type inet_service; flags timeout; elements = {{ {elements} }}; }}
            chain input {{
                type filter hook input priority -10;
                tcp dport @ports tcp flags & (syn | ack) == syn drop
            }}
        }}' | nft -f - 2>/dev/null || :""",
        "trap release EXIT",
    ]


def stamp_script(unit: str, *, start: Sequence[str] = (), reload: Sequence[str] = ()) -> str:
    """A shell script that stamps a unit that has taken its files by other means than :func:`running`."""
    return f"taking=$({_stamp_of_files(start, reload)})\n{_stamp(unit)}"


def _stamp_of_files(start: Sequence[str], reload: Sequence[str]) -> str:
    commands = {
        "started": _checksum(start),
        "reloaded": _checksum(reload),
        "then_start_files": _touched(start),
        "then_reload_files": _touched(reload),
    }
    return "; ".join(f"echo {key} $({command})" for key, command in commands.items())


def _stamp(unit: str, *, told: str = "", runs: str = "") -> str:
    """The part of a script that writes the stamp; `taking` is what it says of the files."""
    u = shlex.quote(unit)
    said = [f"echo then_{key} $({_digest(of)})" for key, of in (("told", told), ("runs", runs)) if of]
    written = "; ".join(['echo "$taking"', f"lives {u} | sed -n 's/^life /then_&/p'", *said])
    return "\n".join(
        [
            _LIVES,
            f"mkdir -p {STAMPS}",
            f"{{ {written}; }} > {STAMPS}/{u}.new",
            f"mv -f {STAMPS}/{u}.new {STAMPS}/{u}",
        ]
    )

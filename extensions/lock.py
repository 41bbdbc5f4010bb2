"""The lock on the hosts that keeps two operators from changing them at once.

A file on each host says who holds it. What reads or writes it there holds the directory's `flock` meanwhile,
so that of two who come at the same moment one is second.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass

LOCK = "/var/lib/bitrix-cdn/lock"

VARIABLE = "BITRIX_CDN_LOCK"
"""Environment of a deploy that the holder started: the token, which lets it through."""

# The exit status by which `take_script` tells that somebody else has it.
HELD = 73


@dataclass(frozen=True)
class Holder:
    """Who holds a host."""

    operator: str
    machine: str
    since: str
    """Date and time, UTC."""
    what: str
    token: str

    def __str__(self) -> str:
        return f"{self.operator} on {self.machine} since {self.since} ({self.what})"

    def written(self) -> str:
        """One line, as it stands in the file."""
        return json.dumps(asdict(self), ensure_ascii=False)


def parse(text: str) -> Holder | None:
    """Who a lock file says holds the host; None: nobody, as there is no text.

    A file that can't be read holds the host as well: somebody wrote it.
    """
    if not text.strip():
        return None
    try:
        values = json.loads(text)
        return Holder(**{key: str(values[key]) for key in ("operator", "machine", "since", "what", "token")})
    except (ValueError, TypeError, KeyError):
        return Holder("somebody", "an unknown machine", "an unknown time", f"{LOCK} can't be read", "")


def look_script() -> str:
    """A command that prints the lock file in one line, or nothing."""
    return f"tr -d '\\n' < {LOCK} 2>/dev/null"


def take_script(holder: Holder, *, instead_of: Holder | None = None) -> str:
    """A shell script that takes the lock; with what is there already, it prints that and exits with `HELD`.

    A lock with the same token is one's own.

    :param instead_of: the holder whose lock is broken; if it is somebody else's by now, it stays.
    """
    allowed = [holder.token] + ([instead_of.token] if instead_of else [])
    # A lock that can't be read has no token to compare with.
    broken = "true" if instead_of and not instead_of.token else "false"
    patterns = " ".join(f"-e {shlex.quote(json.dumps(token))}" for token in allowed if token)
    return f"""
        set -eu
        d=$(dirname {LOCK})
        mkdir -p -m 755 "$d"
        exec 9<"$d"
        flock -w 10 9 || {{ echo "{LOCK} is being changed by somebody" >&2; exit 1; }}
        if [ -s {LOCK} ] && ! grep -qF {patterns} {LOCK} && ! {broken}; then cat {LOCK}; exit {HELD}; fi
        printf '%s\\n' {shlex.quote(holder.written())} > {LOCK}.new
        mv -f {LOCK}.new {LOCK}
    """


def release_script(token: str) -> str:
    """A shell script that gives the lock back, if it is one's own."""
    return f"""
        d=$(dirname {LOCK})
        [ -d "$d" ] || exit 0
        exec 9<"$d"
        flock -w 10 9 || exit 1
        if grep -qF {shlex.quote(json.dumps(token))} {LOCK} 2>/dev/null; then rm -f {LOCK}; fi
    """


def refusal(host: str, lock: str, token: str) -> str | None:
    """Why a deploy may not go on, in one line; None: it may.

    :param lock: the text of the host's lock file.
    :param token: the deploy's own, from the environment.
    """
    holder = parse(lock)
    if holder is None or (holder.token and holder.token == token):
        return None
    return (
        f"{host}: held by {holder}; wait for its end, or take it over with "
        "`python -m rollout INVENTORY --break-lock` if nobody works there any more"
    )

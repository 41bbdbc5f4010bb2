"""The lock on the hosts that keeps two operators from changing them at once.

A rollout takes it for as long as it needs, over interruptions: a file on each host says who holds it. What
reads or writes it there holds the directory's `flock` meanwhile, so that of two who come at the same moment
one is second. Everything else takes it for one run: a process on the host holds the `flock` of a second file,
and ends with the SSH connection, so that a run that crashes leaves nothing behind.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shlex
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

LOCK = "/var/lib/bitrix-cdn/lock"

# Seconds without a word from the operator's machine after which a run's lock is free.
LEASE = 20

_token = ""

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
    """A command that prints in one line who holds the host, or nothing."""
    return (
        f"if [ -s {LOCK} ]; then tr -d '\\n' < {LOCK}; "
        f"elif [ -e {LOCK}.run ] && ! flock -s -n {LOCK}.run true; then head -n 1 {LOCK}.run; fi 2>/dev/null"
    )


def hold_script(holder: Holder) -> str:
    """A script for bash that takes the lock for one run, says so, and holds it until its input ends or is
    silent for longer than `LEASE`.

    Its line is `lock: taken`, `lock: ours` where a run with the same token holds it already, and else
    `lock: held by` with what is written there.
    """
    token = shlex.quote(json.dumps(holder.token))
    return f"""
        set -eu
        umask 022
        d=$(dirname {LOCK})
        mkdir -p "$d"
        exec 9<"$d"
        flock -w 10 9
        if [ -s {LOCK} ] && ! grep -qF {token} {LOCK}; then
            echo "lock: held by $(tr -d '\\n' < {LOCK})"; exit
        fi
        exec 7>>{LOCK}.run
        if ! flock -w 1 7; then
            if grep -qF {token} {LOCK}.run; then echo "lock: ours"
            else echo "lock: held by $(head -n 1 {LOCK}.run)"; fi
            exit
        fi
        printf '%s\\n%s\\n' {shlex.quote(holder.written())} $$ > {LOCK}.run
        exec 9<&-
        echo "lock: taken"
        while read -r -t {LEASE} _; do :; done
        : > {LOCK}.run
    """


def break_script() -> str:
    """A shell script that takes the lock from whoever has it; a run that holds it loses its connection."""
    return f"""
        exec 9<$(dirname {LOCK}) || exit 0
        flock -w 10 9 || exit 1
        rm -f {LOCK}
        if [ -e {LOCK}.run ] && ! flock -s -n {LOCK}.run true; then
            kill $(sed -n 2p {LOCK}.run)
            flock -s -w 10 {LOCK}.run true
        fi
    """


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
        if [ -e {LOCK}.run ] && ! flock -s -w 1 {LOCK}.run true && ! grep -qF {patterns} {LOCK}.run; then
            head -n 1 {LOCK}.run; exit {HELD}
        fi
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
    :param token: the run's own.
    """
    holder = parse(lock)
    if holder is None or (holder.token and holder.token == token):
        return None
    return (
        f"{host}: held by {holder}; wait for its end, or take it over with "
        "`bitrix-cdn lock break` if nobody works there any more"
    )


def for_run(what: str) -> Holder:
    """This process, as the holder of a lock; with the token that lets it through already, if there is one."""
    return Holder(operator(), machine(), now(), what, _token or secrets.token_hex(16))


def use_token(token: str) -> None:
    """Has this process, and the runs that it starts, let through where the lock has this token."""
    global _token
    _token = token


def own_token() -> str:
    """The token that lets this process through; empty: none."""
    return _token


def now() -> str:
    """Date and time, UTC, to the second."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def operator() -> str:
    """Who runs this: the account before `sudo`, if there was one."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def machine() -> str:
    """The name of the operator's machine."""
    return socket.gethostname()

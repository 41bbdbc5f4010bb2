"""The hosts' lock (see :mod:`host_agent.lock`) from the operator's side: the commands for it."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shlex
import socket
from datetime import UTC, datetime

from bitrix_cdn.engine.agent import call
from host_agent.lock import LOCK, Holder

# Seconds without a word from the operator's machine after which a run's lock is free.
LEASE = 20

_token = ""


def holder_script() -> str:
    """A command that prints in one line who holds the host, or nothing."""
    return (
        f"if [ -s {LOCK} ]; then tr -d '\\n' < {LOCK}; "
        f"elif [ -e {LOCK}.run ] && ! flock -s -n {LOCK}.run true; then head -n 1 {LOCK}.run; fi 2>/dev/null"
    )


def hold_script(holder: Holder) -> str:
    """A script that takes the lock for one run, says so, and holds it until its input ends or is silent for
    longer than `LEASE`.

    It says in a line of JSON, as `lock`, `taken`, `ours` where a run with the same token holds it already, or
    `held`, with the `holder`.
    """
    return call("lock", "hold", _json(holder), str(LEASE), bare=_hold_bare(holder))


def _hold_bare(holder: Holder) -> str:
    """The same for a host before its first deploy, which no rollout can hold: the run's lock alone."""
    inner = f"""
        umask 022
        mkdir -p $(dirname {LOCK})
        exec 9<$(dirname {LOCK}) 7>>{LOCK}.run
        flock -w 10 9
        if ! flock -w 1 7; then
            if grep -qF {shlex.quote(json.dumps(holder.token))} {LOCK}.run; then echo '{{"lock": "ours"}}'
            else echo '{{"lock": "held", "holder": '"$(head -n 1 {LOCK}.run)}}"; fi
            exit
        fi
        printf '%s\\n%s\\n' {shlex.quote(holder.written())} $$ > {LOCK}.run
        exec 9<&-
        echo '{{"lock": "taken"}}'
        while read -r -t {LEASE} _; do :; done
        : > {LOCK}.run
    """
    return f"exec bash -c {shlex.quote(inner)}"


def break_script() -> str:
    """A script that takes the lock from whoever has it; a run that holds it loses its connection."""
    # Before the first deploy there is a run's alone.
    bare = f"flock -s -n {LOCK}.run true || kill $(sed -n 2p {LOCK}.run); exit"
    return call("lock", "break", bare=bare)


def take_script(holder: Holder, *, instead_of: Holder | None = None) -> str:
    """A script that takes the lock until it is given back; held by somebody else, it exits with
    :attr:`~host_agent.json_output.Status.HELD`.

    :param instead_of: the holder whose lock is broken; if it is somebody else's by now, it stays.
    """
    broken = ["--instead-of", _json(instead_of)] if instead_of else []
    return call("lock", "take", _json(holder), *broken)


def give_back_script(token: str) -> str:
    """A script that frees the host, if the lock is one's own."""
    return call("lock", "give-back", token)


def _json(holder: Holder) -> str:
    return json.dumps(holder._asdict())


def refusal(host: str, holder: Holder | None, token: str) -> str | None:
    """Why a deploy may not go on, in one line; None: it may.

    :param holder: who holds the host.
    :param token: the run's own.
    """
    if holder is None or (holder.token and holder.token == token):
        return None
    return (
        f"{host}: held by {holder}; wait for its end, or take it over with "
        "`bitrix-cdn lock break` if that run is over"
    )


def for_run(what: str) -> Holder:
    """This process, as the holder of a lock; with the token that lets it through already, if there is one."""
    return Holder(operator(), machine(), now(), what, _token or secrets.token_hex(16))


def use_token(token: str) -> None:
    """Lets this process, and the runs that it starts, pass where the lock has this token."""
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

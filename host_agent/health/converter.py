"""Waits until the converter on this host is healthy: `cdn-host health CONFIG [RELEASE SECONDS BEFORE]`.

With CONFIG alone it prints the parts that are degraded now, for the `BEFORE` of a later call: names with
commas between, `none`, or `unknown` when the daemon doesn't answer. A part that was degraded before a
change, such as a full disk, says nothing about the change.

With all four it exits 0 once the daemon answers as that release, can work, has no part degraded that wasn't
before, and stays so for a second. It exits 1, with the reason on one line, when that isn't so within SECONDS,
or at once when the daemon ends by itself. Where it is unknown how it was before, one that works in part will
do in the end. A scan under way is no reason to wait.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNIT = "webp-converter.service"
UNKNOWN = "unknown"
STEADY_S = 1.0


def address(config: Path) -> str:
    """Where the daemon tells how it does, by its own settings."""
    api = tomllib.loads(config.read_text("utf-8")).get("api", {})
    host = api.get("address", "127.0.0.1")
    return f"http://{f'[{host}]' if ':' in host else host}:{api.get('port', 8088)}/api/status"


def ask(url: str) -> dict[str, Any]:
    """What the daemon tells of itself.

    :raises OSError: the daemon doesn't answer.
    :raises ValueError: the answer is not the converter's.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=5) as answer:
        status = json.load(answer)
    if not isinstance(status, dict) or "health" not in status:
        raise ValueError(f"{url} is not the converter's")
    return status


def degraded(status: dict[str, Any]) -> dict[str, str]:
    """The parts that don't do well, and why."""
    parts = status["health"].get("parts", {})
    return {name: part.get("reason", "") for name, part in parts.items() if part.get("status") != "ok"}


def problem(status: dict[str, Any], release: str, before: str) -> str:
    """What speaks against a daemon that answers like this; empty: nothing.

    :param before: the parts that were degraded before, with commas between; `unknown` allows none.
    """
    answering = status.get("release")
    if answering != release:
        return f"release {answering or 'of unknown id'} answers"
    worse = {part: why for part, why in degraded(status).items() if part not in before.split(",")}
    said = "; ".join(f"{part}: {why}" for part, why in worse.items())
    if status["health"].get("status") == "failed":
        return f"it says that it can't work{f' ({said})' if said else ''}"
    return said


def now(config: Path) -> str:
    """The parts that are degraded, with commas between; `none`, or `unknown` when there is no answer."""
    try:
        return ",".join(degraded(ask(address(config)))) or "none"
    except (OSError, ValueError):
        return UNKNOWN


def acceptable(status: dict[str, Any], release: str, before: str) -> bool:
    """Whether one that works in part will do, when it is unknown how it was before."""
    return before == UNKNOWN and not problem(status, release, ",".join(degraded(status)))


def restarts() -> tuple[bool, int]:
    """Whether systemd has given the daemon up or it was stopped, and how often it was started again."""
    shown = subprocess.run(
        ["systemctl", "show", UNIT, "-p", "ActiveState", "-p", "NRestarts"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split("=", 1) for line in shown.splitlines())
    return values["ActiveState"] in {"inactive", "failed"}, int(values["NRestarts"])


def wait(
    url: str,
    release: str,
    seconds: float,
    before: str,
    *,
    state: Callable[[], tuple[bool, int]] = restarts,
) -> str:
    """Waits until the daemon is healthy; what speaks against it in the end, empty: nothing."""
    deadline = time.monotonic() + seconds
    _, started = state()
    since: float | None = None
    while True:
        ended, starts = state()
        if ended or starts > started:
            return "it ends by itself"
        status = None
        try:
            status = ask(url)
            reason = problem(status, release, before)
        except (OSError, ValueError) as error:
            reason = f"{url}: {getattr(error, 'reason', error)}"
        now = time.monotonic()
        since = (since if since is not None else now) if not reason else None
        if since is not None and now - since >= STEADY_S:
            return ""
        if now > deadline and reason:
            return "" if status and acceptable(status, release, before) else reason
        time.sleep(0.2)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Waits until the converter on this host is healthy.")
    parser.add_argument("config", type=Path, help="the converter's; alone: prints what is degraded now")
    parser.add_argument("change", nargs="*", metavar="RELEASE SECONDS BEFORE", help="what to wait for")
    options = parser.parse_args(arguments)
    if len(options.change) not in {0, 3}:
        parser.error("CONFIG, or CONFIG RELEASE SECONDS BEFORE")
    if not options.change:
        print(now(options.config))
        return 0
    release, seconds, before = options.change
    reason = wait(address(options.config), release, float(seconds), before)
    if reason:
        print(" ".join(reason.split()))
    return 1 if reason else 0

"""Lets a Redis start that a power cut left with a damaged file: `cdn-host redis-mend INSTANCE METRICS`.

It runs before each start, as root, and changes nothing that Redis can read. What it can't is kept aside, cut
off where the damage begins, and else left out whole: the pictures are the truth, and a scan finds what a
queue has lost. What was lost is told to Prometheus.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

KEPT = 2
"""How many damaged states are kept of an instance."""
_PARTS = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_ATTEMPT = "starting"
_LISTEN = "mend.sock"


def mend(directory: Path, aside: Path, as_user: Sequence[str] = ()) -> tuple[str, int] | None:
    """Has Redis find files that it can read.

    :param directory: where the instance has its files.
    :param aside: where damaged ones are kept, and that a start was tried; not in reach of that account.
    :param as_user: what runs a command as the account of Redis.
    :return: what was done (`cut` or `emptied`) and how many bytes are lost; None: nothing was wrong.
    """
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    parts, attempt = directory / _PARTS, aside / _ATTEMPT
    tried, before = attempt.exists(), _size(parts)
    attempt.touch()
    if not parts.is_dir() or (_whole(parts, as_user) and not (tried and _refused(directory, as_user))):
        return None
    kept = aside / time.strftime("%Y%m%dT%H%M%S")
    shutil.rmtree(kept, ignore_errors=True)
    # Cut only if there is room for a copy of what it was.
    if shutil.disk_usage(aside).free > 2 * before and not _whole(parts, as_user):
        shutil.copytree(parts, kept, symlinks=True)
        command = [*as_user, "redis-check-aof", "--fix", str(parts / _MANIFEST)]
        subprocess.run(command, input=b"y\n", capture_output=True, check=False)
        if _whole(parts, as_user) and not _refused(directory, as_user):
            _forget(aside)
            return "cut", before - _size(parts)
        shutil.rmtree(kept)
    shutil.move(parts, kept)
    _forget(aside)
    return "emptied", before


def _whole(parts: Path, as_user: Sequence[str]) -> bool:
    """Whether all files that the manifest names are there, and can be read to their ends."""
    manifest = parts / _MANIFEST
    try:
        lines = manifest.read_text().splitlines()
    except FileNotFoundError:
        return not any(parts.iterdir())
    except ValueError:
        return False
    names = [line.split()[1] for line in lines if line.startswith("file ") and len(line.split()) >= 6]
    if len(names) != len([line for line in lines if line and not line.startswith("#")]) or not names:
        return False
    if not all((parts / name).is_file() for name in names):
        return False
    if not sum((parts / name).stat().st_size for name in names):
        return True
    command = [*as_user, "redis-check-aof", str(manifest)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _refused(directory: Path, as_user: Sequence[str]) -> bool:
    """Whether Redis ends by itself while it reads the files."""
    options = {"dir": directory, "appendonly": "yes", "save": "", "port": 0, "daemonize": "no", "logfile": ""}
    # It reads nothing before it listens somewhere.
    options |= {"unixsocket": directory / _LISTEN, "unixsocketperm": 700}
    command = [*as_user, "redis-server"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            said = ""
            for line in server.stdout:
                said += line
                if "eady to accept connections" in line:
                    return False
            # Killed, or out of memory, is no reason to leave files out.
            return server.wait() == 1 and any(words in said for words in ("append only file", "AOF", "RDB"))
        finally:
            server.terminate()
            server.wait()
            # One that refused leaves it.
            (directory / _LISTEN).unlink(missing_ok=True)


def _size(parts: Path) -> int:
    return sum(file.stat().st_size for file in parts.glob("*")) if parts.is_dir() else 0


def _forget(aside: Path) -> None:
    for old in sorted(path for path in aside.iterdir() if path.is_dir())[:-KEPT]:
        shutil.rmtree(old)


def tell(metrics: Path, instance: str, lost: int, now: float) -> None:
    """Replaces the instance's file for node_exporter, in one rename."""
    label = f'{{redis="{instance}"}}'
    text = (
        "# HELP redis_mended_timestamp_seconds When an append-only file was last mended.\n"
        "# TYPE redis_mended_timestamp_seconds gauge\n"
        f"redis_mended_timestamp_seconds{label} {now:.0f}\n"
        "# HELP redis_mended_lost_bytes How much of it could not be read.\n"
        "# TYPE redis_mended_lost_bytes gauge\n"
        f"redis_mended_lost_bytes{label} {lost}\n"
    )
    metrics.mkdir(parents=True, exist_ok=True)
    new = metrics / f".redis-{instance}.new"
    new.write_text(text)
    new.chmod(0o644)
    new.rename(metrics / f"redis-mended-{instance}.prom")


def main(arguments: Sequence[str] | None = None) -> int:
    """Mends one instance of this host, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("instance", help="its name, as the directory below /var/lib/redis has it")
    parser.add_argument("metrics", type=Path, help="the directory that node_exporter reads")
    given = parser.parse_args(arguments)
    instance, metrics = given.instance, given.metrics
    os.umask(0o022)
    aside = Path("/var/lib/bitrix-cdn/redis") / instance
    as_user = ["setpriv", "--reuid=redis", "--regid=redis", "--init-groups"]
    done = mend(Path("/var/lib/redis") / instance, aside, as_user)
    if done:
        what, lost = done
        print(f"the append-only file was damaged and is {what}: {lost} bytes are lost; see {aside}")
        tell(metrics, instance, lost, time.time())
    return 0

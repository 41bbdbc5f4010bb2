"""The audit log of a host: one line of JSON for the beginning and for the end of each run that changes it.

Each line holds the hash of the line before, so that a line that was changed or removed is noticed. Lines are
appended whole, and are on the disk before the run continues.

The operator's machine sends this code: a host may be bare, or have an older agent.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import grp
import hashlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DIRECTORY = Path("/var/log/bitrix-cdn")
NAME = "audit.jsonl"

LIMIT = 8_000_000
"""Bytes, some 20,000 lines, after which a new file begins; one old file is kept beside it."""

LONGEST = 4096
"""Characters of a value; what is longer is cut."""

SILENCE_S = 25.0
"""Seconds without a word from the operator's machine after which a run counts as interrupted."""

Entry = dict[str, Any]


class Log:
    """The files of the log."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        self._file = directory / NAME
        self._old = directory / f"{NAME}.1"
        # What a bare host without Python got: lines that wait for their place.
        self._pending = directory / "audit.pending"

    def add(self, *entries: Entry) -> None:
        """Adds lines, after those that wait."""
        if not entries and not self._pending.exists():
            return
        with self._alone() as file:
            waiting = [*_entries(self._pending), *entries]
            before = self._last(file)
            written = bytearray()
            # A line that a power cut left unfinished stands by itself.
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                written += b"\n"
            for entry in waiting:
                line = _line({**entry, "previous": before})
                before = hash_of(line)
                written += line + b"\n"
            if written:
                os.write(file, written)
                os.fsync(file)
            self._pending.unlink(missing_ok=True)

    def read(self) -> list[Entry]:
        """All entries, oldest first."""
        self.add()
        return [entry for line in self._lines() if (entry := _entry(line)) is not None]

    def verify(self) -> list[str]:
        """Where the chain is broken, a line each; none: it is whole."""
        found: list[str] = []
        before: str | None = None
        for number, line in enumerate(self._lines(), 1):
            entry = _entry(line)
            if entry is None:
                found.append(f"line {number} is cut short")
            elif before is None and entry.get("previous") and not self._full():
                found.append(f"line {number}: what came before it is gone")
            elif before is not None and entry.get("previous") != before:
                found.append(
                    f"line {number}, of {entry.get('time')}: the one before it was changed or removed"
                )
            before = hash_of(line)
        return found

    def put_before(self, saved: Path) -> None:
        """Puts the lines of a backup before those of a host that was set up again.

        A log that begins as the saved one does holds it already.
        """
        kept = [entry for name in (f"{NAME}.1", NAME) for entry in _entries(saved / name)]
        with self._alone() as file:
            here = [entry for line in self._lines() if (entry := _entry(line)) is not None]
            if not kept or any(entry in here for entry in kept):
                return
            new = self._file.with_suffix(".new")
            new.unlink(missing_ok=True)
            before = kept[0].get("previous", "")
            with new.open("xb") as target:
                for entry in (*kept, *here):
                    line = _line({**entry, "previous": before})
                    before = hash_of(line)
                    target.write(line + b"\n")
                target.flush()
                os.fsync(target.fileno())
            status = os.fstat(file)
            new.chmod(status.st_mode & 0o777)
            os.chown(new, status.st_uid, status.st_gid)
            new.replace(self._file)
            self._sync()

    def _full(self) -> bool:
        """Whether older lines have gone because of the limit."""
        return self._old.exists()

    def _lines(self) -> Iterator[bytes]:
        for path in (self._old, self._file):
            with contextlib.suppress(FileNotFoundError):
                yield from path.read_bytes().splitlines()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """The file, open for appending and locked."""
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        while True:
            file = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._same(file):
                    continue
                if os.fstat(file).st_size > LIMIT:
                    self._file.replace(self._old)
                    continue
                if not os.fstat(file).st_size:
                    self._directory.chmod(0o750)
                    os.chown(self._directory, -1, _readers())
                    os.fchmod(file, 0o640)
                    os.fchown(file, -1, _readers())
                    self._sync()
                yield file
                return
            finally:
                os.close(file)

    def _same(self, file: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), self._file.stat())
        return False

    def _last(self, file: int) -> str:
        """The hash of the last line."""
        size = os.fstat(file).st_size
        end = os.pread(file, 64 * LONGEST, max(0, size - 64 * LONGEST)).splitlines()
        if not end and self._old.exists():
            end = self._old.read_bytes().splitlines()
        return hash_of(end[-1]) if end else ""

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _readers() -> int:
    """The group that may read logs on Debian."""
    try:
        return grp.getgrnam("adm").gr_gid
    except KeyError:
        return 0


def _line(entry: Entry) -> bytes:
    cut = {key: value[:LONGEST] if isinstance(value, str) else value for key, value in entry.items()}
    return json.dumps(cut, ensure_ascii=True).encode()


def hash_of(line: bytes) -> str:
    """The hash that the next line holds."""
    return hashlib.sha256(line).hexdigest()


def _entry(line: bytes) -> Entry | None:
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        return entry if isinstance(entry, dict) else None
    return None


def _entries(path: Path) -> list[Entry]:
    with contextlib.suppress(FileNotFoundError):
        return [entry for line in path.read_bytes().splitlines() if (entry := _entry(line)) is not None]
    return []


def now() -> str:
    """Date and time, UTC, as the log has it."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03}Z"


def follow(log: Log, lines: int) -> None:
    """Adds what comes, a line of JSON each, until there is no more.

    A run whose end doesn't come was interrupted. The time of an entry is this host's.

    :param lines: a file descriptor.
    """
    begun: Entry = {}
    started = time.monotonic()
    log.add()
    for text in _arriving(lines):
        entry = _entry(text)
        if entry is None:
            continue
        entry = {"time": now(), **entry}
        if entry.get("event") == "end":
            entry = {**begun, **entry, "seconds": entry.get("seconds", round(time.monotonic() - started, 1))}
            begun = {}
        else:
            begun, started = dict(entry), time.monotonic()
            begun.pop("time")
        log.add(entry)
    if begun:
        seconds = round(time.monotonic() - started, 1)
        why = "the operator's machine, or the connection to it, went away"
        log.add(
            {**begun, "event": "end", "time": now(), "result": "interrupted", "why": why, "seconds": seconds}
        )


def _arriving(lines: int) -> Iterator[bytes]:
    waiting = b""
    while select.select([lines], [], [], SILENCE_S)[0]:
        chunk = os.read(lines, 65536)
        if not chunk:
            break
        *whole, waiting = (waiting + chunk).split(b"\n")
        yield from whole
    yield waiting


def at_work(run: str) -> bool:
    """Whether a run that has not ended still follows: its process has its name among its arguments."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and run.encode() in (process / "cmdline").read_bytes():
                return True
    return False


def listed(log: Log) -> Entry:
    """All that `bitrix-cdn log` asks of a host."""
    entries = log.read()
    ended = {entry.get("run") for entry in entries if entry.get("event") == "end"}
    open_ = {str(entry.get("run")) for entry in entries if entry.get("run") not in ended}
    return {"entries": entries, "broken": log.verify(), "at_work": [run for run in open_ if at_work(run)]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="cdn-host audit",
        description="The log of who changed this host, and when.",
        epilog="Exit status: 0; 1: it can't be read or written, or its chain is broken; 2: a wrong command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser("add", help="add the lines of JSON that come on standard input")
    add.add_argument("run", nargs="?", help="the name of the run that they tell of")
    commands.add_parser("list", help="all entries, as JSON")
    commands.add_parser("verify", help="look whether lines were changed or removed")
    options = parser.parse_args(arguments)
    log = Log()
    try:
        if options.command == "add":
            follow(log, sys.stdin.fileno())
        elif options.command == "list":
            print(json.dumps(listed(log)))
        else:
            broken = log.verify()
            for line in broken:
                print(f"cdn-host audit: {log._file}: {line}", file=sys.stderr)
            return int(bool(broken))
    except OSError as error:
        print(f"cdn-host audit: {error.filename or DIRECTORY}: {error.strerror}", file=sys.stderr)
        return 1
    return 0

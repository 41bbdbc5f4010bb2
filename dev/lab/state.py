"""What a lab is: its record on disk, and the view of it that other programs use.

from dev.lab import state
lab = state.load()                  # LAB_NAME, or state.load("name")
lab.host("cdn").address             # '198.18.7.3'
lab.ssh_key, lab.known_hosts        # paths for ssh, paramiko, pyinfra, testinfra
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.lab import layout
from dev.lab.errors import LabError
from dev.lab.layout import Layout

SUITES = ("trixie", "bookworm")
DEFAULT_HOSTS = ("bitrix", "cdn")
_FORMAT = 1


@dataclass(frozen=True)
class HostRecord:
    """One host as recorded: `number` is the last part of its address, `base` its base tree."""

    name: str
    number: int
    base: str


@dataclass(frozen=True)
class Record:
    """One lab as recorded. `index` (0 to 511) chooses its subnet and names its bridge."""

    name: str
    index: int
    suite: str
    hosts: tuple[HostRecord, ...]

    def host(self, name: str) -> HostRecord:
        """Return the record of host `name`.

        :raises LabError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts) or "none"
        raise LabError(f"lab {self.name} has no host {name!r} (its hosts: {names})")


@dataclass(frozen=True)
class Host:
    """A host of the lab, as it is at the moment of :func:`load`.

    `state` is `running` (booted, reachable), `starting`, `partitioned` (runs, cut
    off) or `stopped`.
    """

    name: str
    address: str
    suite: str
    state: str


@dataclass(frozen=True)
class Lab:
    """A lab as other programs see it: log in as root with `ssh_key`, `known_hosts` pins the hosts."""

    name: str
    suite: str
    hosts: tuple[Host, ...]
    ssh_key: Path
    known_hosts: Path

    def host(self, name: str) -> Host:
        """Return host `name`.

        :raises LabError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"lab {self.name} has no host {name!r}")


def load(name: str | None = None) -> Lab:
    """Return the lab called `name` (default: `LAB_NAME`, else `lab`).

    :raises LabError: one line, when there is no such lab.
    """
    # Imported here: both modules need the record's types.
    from dev.lab import guest, network

    files = Layout(layout.lab_name(name))
    record = existing(files)
    cut = network.partitioned(record)
    hosts = tuple(
        Host(
            name=host.name,
            address=network.address(record.index, host.number),
            suite=record.suite,
            state=guest.state(files, host, cut=host.number in cut),
        )
        for host in record.hosts
    )
    return Lab(record.name, record.suite, hosts, files.ssh_key, files.known_hosts)


def existing(files: Layout) -> Record:
    """Return the lab's record.

    :raises LabError: there is none.
    """
    record = read(files)
    if record is None:
        variable = "" if files.name == "lab" else f"LAB_NAME={files.name} "
        raise LabError(f"there is no lab {files.name}: start it with `{variable}python -m dev.lab up`")
    return record


def read(files: Layout) -> Record | None:
    """Return the lab's record, None when there is none.

    :raises LabError: it is unreadable.
    """
    try:
        raw = json.loads(files.record.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise LabError(
            f"{files.record} can't be read ({error}): `python -m dev.lab down` clears this lab"
        ) from None
    try:
        if raw["format"] != _FORMAT:
            raise ValueError(f"format {raw['format']}")
        hosts = tuple(HostRecord(str(h["name"]), int(h["number"]), str(h["base"])) for h in raw["hosts"])
        return Record(str(raw["name"]), int(raw["index"]), str(raw["suite"]), hosts)
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(
            f"{files.record} is of another version ({error}): `python -m dev.lab down` clears this lab"
        ) from None


def write(files: Layout, record: Record) -> None:
    """Store `record`, all or nothing."""
    raw = {
        "format": _FORMAT,
        "name": record.name,
        "index": record.index,
        "suite": record.suite,
        "hosts": [vars(host) for host in record.hosts],
    }
    files.directory.mkdir(parents=True, exist_ok=True)
    write_atomically(files.record, json.dumps(raw, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Give `path` the contents `text` (mode 0644) in one rename."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
    Path(file.name).replace(path)


def all_records() -> list[Record]:
    """Return the records of every lab on this machine that can be read."""
    records = []
    for path in sorted(layout.state_root().glob("[!.]*/state.json")):
        with contextlib.suppress(LabError):
            record = read(Layout(path.parent.name))
            if record is not None:
                records.append(record)
    return records


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None, *, timeout: float = 900) -> Iterator[None]:
    """Hold the lock file `path`; it vanishes with the last holder, and a killed holder frees it.

    `waiting` is called once when someone else holds it.

    :raises LabError: after `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The former holder may have removed the file between our open and our lock.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except BlockingIOError:
            if not told:
                waiting()
                told = True
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise LabError(f"{path} has been held by another command for {timeout:.0f} s") from None
            time.sleep(0.1)
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)

"""The data of running services: how each is saved consistently, and restored while its service is stopped.

What is saved is prepared in files first, each part in its own directory. Everything else on the host is
files that are never half changed, and is read where it lies.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from host_agent.backup import files
from host_agent.backup.config import Config, Redis
from host_agent.backup.errors import BackupError
from host_agent.redis import OPERATOR, asking, password_file

PATIENCE_S = 120.0
"""Seconds that a service has to come back with its data."""

Facts = dict[str, Any]
"""What is known of a saved part, to compare with after a restore."""


class Part(Protocol):
    """The data of one service."""

    name: str
    unit: str

    def stage(self) -> Path:
        """Where it is prepared, and where it is restored to: on the file system where it is used."""

    def present(self) -> bool:
        """Whether this host has it."""

    def save(self) -> Facts:
        """Prepares it in `stage()`.

        :raises BackupError: it can't be had whole.
        """

    def put_back(self) -> None:
        """Takes it from `stage()`; its service is stopped."""

    def verify(self, facts: Facts) -> str:
        """Waits until the service has it, and says in a few words what that is.

        :raises BackupError: it isn't what was saved.
        """


def parts(config: Config) -> list[Part]:
    """Those that this host should have."""
    found: list[Part] = [RedisPart(config, instance) for instance in config.redis]
    if config.prometheus:
        found.append(PrometheusPart(config))
    if config.alertmanager:
        found.append(AlertmanagerPart(config))
    if config.grafana:
        found.append(GrafanaPart(config))
    return found


class RedisPart:
    """One instance of Redis: the snapshot that it sends to a replica, checked by Redis' own checker."""

    DUMP = "dump.rdb"

    def __init__(self, config: Config, instance: Redis) -> None:
        self.name = f"redis-{instance.name}"
        self.unit = instance.unit
        self._instance = instance
        self._stage = Path(config.state) / "staged" / self.name

    def stage(self) -> Path:
        return self._stage

    def present(self) -> bool:
        return True

    def save(self) -> Facts:
        dump = self._stage / self.DUMP
        self._cli("--rdb", str(dump))
        return _checked(dump)

    def put_back(self) -> None:
        # With `appendonly yes` Redis 7 and 8 load the append-only file and nothing else, whatever
        # dump.rdb says. Its base may be a snapshot; the manifest names it.
        dump = self._stage / self.DUMP
        _checked(dump)
        directory = Path(self._instance.directory)
        owner = directory.stat()
        new = directory / "appendonlydir.bitrix-cdn-new"
        files.remove(new)
        new.mkdir(mode=0o750)
        shutil.copy(dump, new / "appendonly.aof.1.base.rdb")
        (new / "appendonly.aof.manifest").write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
        files.give_to(new, owner.st_uid, owner.st_gid)
        for entry in directory.iterdir():
            if entry != new:
                files.remove(entry)
        new.rename(directory / "appendonlydir")

    def verify(self, facts: Facts) -> str:
        _wait(f"{self.unit} to load its data", lambda: self._answer("ping") == "PONG")
        count = int(self._answer("dbsize"))
        # Keys whose time ran out since are gone.
        least = facts["keys"] - facts["expiring"]
        if not least <= count:
            raise BackupError(f"{self.unit}: {count} keys, of {facts['keys']} in the backup")
        return f"{count:,} keys"

    def _answer(self, *command: str) -> str:
        try:
            return self._cli(*command).strip()
        except BackupError:
            return ""

    def _cli(self, *arguments: str) -> str:
        password = password_file(self._instance.name, OPERATOR)
        command, environment = asking(Path(self._instance.socket), password, *arguments)
        return _said(command, self.unit, environment)


def _checked(dump: Path) -> Facts:
    """What is in a snapshot of Redis'.

    :raises BackupError: it is damaged.
    """
    said = _said(["redis-check-rdb", str(dump)], str(dump))
    keys, expiring = re.search(r"(\d+) keys read", said), re.search(r"(\d+) expires", said)
    if not keys or not expiring:
        raise BackupError(f"{dump}: redis-check-rdb does not say how many keys there are")
    return {"keys": int(keys[1]), "expiring": int(expiring[1])}


class PrometheusPart:
    """Prometheus' blocks, which never change, and its write-ahead log, which only grows.

    Its snapshot API would need the admin API, by which every account of the host could delete samples. The
    log is read like after a power cut: a record that is cut off at its end is dropped. Links to the files
    are taken in one go, so a block that is compacted away meanwhile stays readable.
    """

    name = "prometheus"
    unit = "prometheus.service"

    TRIES = 5

    def __init__(self, config: Config) -> None:
        self._data = Path(config.prometheus)
        self._stage = self._data.with_name(".bitrix-cdn-backup")

    def stage(self) -> Path:
        return self._stage

    def present(self) -> bool:
        return (self._data / "wal").is_dir()

    def save(self) -> Facts:
        for _ in range(self.TRIES):
            files.remove(self._stage)
            self._stage.mkdir(mode=0o700)
            before = self._oldest()
            try:
                # The log first: what becomes a block meanwhile is then in both, which is read well.
                files.link_tree(self._data / "wal", self._stage / "wal")
                blocks = self._blocks()
                for block in blocks:
                    files.link_tree(block, self._stage / block.name)
            except FileNotFoundError:
                continue
            if self._oldest() == before:
                return {"blocks": len(blocks)}
        raise BackupError(f"{self._data}: it was compacted again and again while it was read")

    def put_back(self) -> None:
        files.replace_content(self._data, self._stage)

    def verify(self, facts: Facts) -> str:
        _wait(f"{self.unit} to read its data", lambda: _active(self.unit))
        blocks = len(self._blocks())
        if blocks < facts["blocks"]:
            raise BackupError(f"{self._data}: {blocks} blocks, of {facts['blocks']} in the backup")
        return f"{blocks} blocks and what came after them"

    def _blocks(self) -> list[Path]:
        return sorted(path.parent for path in self._data.glob("*/meta.json") if "." not in path.parent.name)

    def _oldest(self) -> list[str]:
        """Checkpoint and first segment of the log; both change when its beginning is cut off."""
        names = sorted(path.name for path in (self._data / "wal").iterdir())
        return [name for name in names if name.startswith("checkpoint.")] + names[:1]


class AlertmanagerPart:
    """Silences, and who was told what. Alertmanager writes both every 15 minutes, and when it is stopped."""

    name = "alertmanager"
    unit = "prometheus-alertmanager.service"

    FILES = ("silences", "nflog")

    def __init__(self, config: Config) -> None:
        self._data = Path(config.alertmanager)
        self._stage = Path(config.state) / "staged" / self.name

    def stage(self) -> Path:
        return self._stage

    def present(self) -> bool:
        return any((self._data / name).is_file() for name in self.FILES)

    def save(self) -> Facts:
        for name in self.FILES:
            if (self._data / name).is_file():
                shutil.copy2(self._data / name, self._stage / name)
        return {}

    def put_back(self) -> None:
        owner = self._data.stat()
        files.give_to(self._stage, owner.st_uid, owner.st_gid)
        for path in self._stage.iterdir():
            files.put_in_place(path, self._data / path.name)

    def verify(self, facts: Facts) -> str:
        _wait(f"{self.unit} to start", lambda: _active(self.unit))
        return "silences"


class GrafanaPart:
    """Grafana's database, as SQLite's own backup copies it."""

    name = "grafana"
    unit = "grafana-server.service"

    FILE = "grafana.db"

    def __init__(self, config: Config) -> None:
        self._data = Path(config.grafana)
        self._stage = Path(config.state) / "staged" / self.name

    def stage(self) -> Path:
        return self._stage

    def present(self) -> bool:
        # The deploy leaves Grafana out where its repository can't be reached.
        return (self._data / self.FILE).is_file()

    def save(self) -> Facts:
        try:
            with (
                closing(sqlite3.connect(f"file:{self._data / self.FILE}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(self._stage / self.FILE)) as copy,
            ):
                source.backup(copy)
        except sqlite3.Error as error:
            raise BackupError(f"{self._data / self.FILE}: {error}") from None
        return {}

    def put_back(self) -> None:
        owner = self._data.stat()
        files.give_to(self._stage, owner.st_uid, owner.st_gid)
        for left in ("-wal", "-shm", "-journal"):
            files.remove(self._data / f"{self.FILE}{left}")
        files.put_in_place(self._stage / self.FILE, self._data / self.FILE)

    def verify(self, facts: Facts) -> str:
        _wait(f"{self.unit} to start", lambda: _active(self.unit))
        return "database"


def _active(unit: str) -> bool:
    return subprocess.run(["systemctl", "is-active", "-q", unit], check=False).returncode == 0


def _wait(what: str, ready: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise BackupError(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.2)


def _said(command: list[str], about: str, environment: Mapping[str, str] | None = None) -> str:
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise BackupError(f"{about}: {command[0]} is not installed") from None
    if result.returncode or result.stdout.startswith("Could not connect"):
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise BackupError(f"{about}: {lines[-1] if lines else f'{command[0]} exits {result.returncode}'}")
    return result.stdout

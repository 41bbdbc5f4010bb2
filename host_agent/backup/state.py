"""The state between runs: for Prometheus, and to refuse a second run at once."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from host_agent.backup.errors import BackupError, Status

METRICS = "bitrix_cdn_backup.prom"


@dataclass(frozen=True)
class Task:
    """How the last `backup`, `check` or `drill` went."""

    run: float = 0
    """When it ended, in seconds since 1970; 0: never. Likewise `success`."""
    success: float = 0
    seconds: float = 0
    """How long it took."""
    error: str = ""
    """Why it failed; empty: it didn't."""
    status: int = 0

    def ended(self, now: float, seconds: float, failure: BackupError | None) -> Task:
        """The same after one more run."""
        if failure is None:
            return Task(run=now, success=now, seconds=seconds)
        return Task(now, self.success, seconds, str(failure), int(failure.status))


@dataclass(frozen=True)
class State:
    """`state.json`."""

    repository: str = ""
    """Id of the repository that was last opened."""
    place: str = ""
    """Where that is."""
    backup: Task = Task()
    check: Task = Task()
    drill: Task = Task()
    snapshot: str = ""
    size: int = 0
    """Bytes of all files in the last backup."""
    added: int = 0
    """Bytes of it that the repository didn't have before."""
    vanished: int = 0
    drilled: int = 0
    """Files that the last good drill restored and compared."""

    @classmethod
    def load(cls, directory: Path) -> State:
        """What was saved; nothing, if nothing readable was."""
        try:
            values = json.loads((directory / "state.json").read_text())
            backup, check = Task(**values.pop("backup")), Task(**values.pop("check"))
            drill = Task(**values.pop("drill", {}))  # an earlier release wrote none
            return cls(backup=backup, check=check, drill=drill, **values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def known(self, place: str) -> str:
        """Id of the repository at a place; empty: none was opened there last."""
        return self.repository if self.place == place else ""

    def opened(self, place: str, repository: str) -> State:
        return replace(self, place=place, repository=repository)

    def save(self, directory: Path, metrics: str) -> None:
        write(directory / "state.json", json.dumps(asdict(self)), 0o600)
        Path(metrics).mkdir(mode=0o755, parents=True, exist_ok=True)
        write(Path(metrics) / METRICS, self.metrics(), 0o644)

    def metrics(self) -> str:
        """For node_exporter's textfile collector. What never was isn't told."""
        lines = [
            "# HELP backup_failed Whether the last backup, check or drill of a restore failed.",
            "# TYPE backup_failed gauge",
        ]
        tasks = {"backup": self.backup, "check": self.check, "drill": self.drill}
        ran = {name: task for name, task in tasks.items() if task.run}
        lines += [f'backup_failed{{what="{name}"}} {int(bool(task.error))}' for name, task in ran.items()]
        for name, help_, values in (
            (
                "backup_last_success_timestamp_seconds",
                "When it last succeeded.",
                {name: task.success for name, task in ran.items() if task.success},
            ),
            (
                "backup_last_duration_seconds",
                "How long the last run took.",
                {name: task.seconds for name, task in ran.items()},
            ),
        ):
            lines += [f"# HELP {name} {help_}", f"# TYPE {name} gauge"]
            lines += [f'{name}{{what="{what}"}} {value:.3f}' for what, value in values.items()]
        if self.snapshot:
            lines += [
                "# HELP backup_size_bytes All files in the last backup.",
                "# TYPE backup_size_bytes gauge",
                f"backup_size_bytes {self.size}",
                "# HELP backup_added_bytes What the repository did not have before it.",
                "# TYPE backup_added_bytes gauge",
                f"backup_added_bytes {self.added}",
            ]
        if self.drill.success:
            lines += [
                "# HELP backup_drill_files Files that the last good drill restored and compared.",
                "# TYPE backup_drill_files gauge",
                f"backup_drill_files {self.drilled}",
            ]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Restore:
    """`restore.json`: a restore that is not finished."""

    snapshot: str
    time: str
    """Of the snapshot, for people."""
    pictures: bool
    """Whether they are to be restored."""
    done: tuple[str, ...] = ()

    @classmethod
    def load(cls, directory: Path) -> Restore | None:
        """The one that was begun, if any.

        :raises BackupError: its file is damaged.
        """
        path = directory / "restore.json"
        try:
            values = json.loads(path.read_text())
            return cls(**{**values, "done": tuple(values["done"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BackupError(f"{path}: {error}; remove it to start over") from None

    def save(self, directory: Path) -> None:
        write(directory / "restore.json", json.dumps(asdict(self)), 0o600)

    def with_done(self, step: str) -> Restore:
        return replace(self, done=(*self.done, step))


def forget_restore(directory: Path) -> None:
    """It is finished."""
    (directory / "restore.json").unlink(missing_ok=True)


@contextmanager
def alone(directory: Path, patience: float = 0) -> Iterator[None]:
    """Keeps backup, check and restore of one host apart.

    :param patience: seconds to wait for another one to end.
    :raises BackupError: it didn't.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (directory / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BackupError(
                        "another backup, check or restore runs on this host", Status.LOCKED
                    ) from None
                time.sleep(1)
        yield


def write(path: Path, content: str, mode: int) -> None:
    """Replaces a file by one that is on the disk whole."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)

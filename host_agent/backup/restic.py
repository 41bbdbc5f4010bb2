"""The repository, through Debian's restic (0.14 in Debian 12, 0.18 in Debian 13)."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from host_agent.backup.config import Config
from host_agent.backup.errors import BackupError, Status, explain

TAG = "bitrix-cdn"
"""Of each of our snapshots."""
PICTURES = "pictures"
"""Of those with pictures."""

_INCOMPLETE = 3
"""restic's exit status when it made a snapshot without some of the files."""


@dataclass(frozen=True)
class Snapshot:
    """One backup of this host."""

    id: str
    time: datetime
    tags: frozenset[str]
    size: int | None
    """Bytes of all files in it; None: restic 0.14 doesn't keep it."""

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Snapshot:
        # Python 3.11 takes no more than six digits of a second.
        text = str(entry["time"]).replace("Z", "+00:00")
        head, dot, rest = text.partition(".")
        if dot:
            zone = rest.lstrip("0123456789")
            text = f"{head}.{rest[: len(rest) - len(zone)][:6]:0<6}{zone}"
        summary = entry.get("summary") or {}
        return cls(
            entry["id"],
            datetime.fromisoformat(text),
            frozenset(entry.get("tags") or ()),
            summary.get("total_bytes_processed"),
        )


def chosen(snapshots: Sequence[Snapshot], wanted: str, where: str) -> Snapshot:
    """The snapshot that `latest` or the beginning of an id means.

    :raises BackupError: there is none, or more than one.
    """
    if not snapshots:
        raise BackupError(f"{where}: there is no backup of this host in it", Status.NO_REPOSITORY)
    if wanted == "latest":
        return max(snapshots, key=lambda one: one.time)
    found = [one for one in snapshots if wanted and one.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise BackupError(f"{wanted}: more than one backup's id begins so", Status.USAGE)
    raise BackupError(
        f"{wanted}: there is no such backup; `latest` or an id is allowed, bitrix-cdn backup list shows them",
        Status.USAGE,
    )


@dataclass(frozen=True)
class Made:
    """What a backup came to."""

    id: str
    size: int
    """Bytes of all files in it."""
    added: int
    """Bytes that the repository didn't have yet, before compression."""
    vanished: int
    """Files that were removed while they were being read."""


class Repository:
    """This host's repository."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._base = ["restic", "--quiet"]
        if config.sftp_command:
            self._base += ["-o", f"sftp.command={config.sftp_command}"]
        if config.bandwidth_kib_s:
            rate = str(config.bandwidth_kib_s)
            self._base += ["--limit-upload", rate, "--limit-download", rate]
        self._environment = {
            **os.environ,
            "RESTIC_REPOSITORY": config.repository,
            "RESTIC_PASSWORD_FILE": config.password_file,
            "RESTIC_CACHE_DIR": config.cache,
            "RESTIC_PROGRESS_FPS": "0.1",
            # ssh wants one for messages about itself.
            "HOME": os.environ.get("HOME", "/root"),
            "LC_ALL": "C.UTF-8",
        }

    def open(self, known_id: str, *, create: bool) -> str:
        """Makes sure that the repository is there and opens; returns its id.

        :param known_id: its id when it was last opened; empty: it never was.
        :param create: make it if it isn't there. Never where one was before: its disk may be away.
        :raises BackupError: it can't be opened.
        """
        self._reach()
        try:
            repository = json.loads(self._run(["cat", "config"]))["id"]
        except BackupError as failure:
            if failure.status != Status.NO_REPOSITORY or "there is no repository there" not in str(failure):
                raise
            if known_id:
                raise BackupError(
                    f"{self._config.repository}: the repository that was there is gone; is its disk mounted? "
                    f"To begin a new one there: rm {self._config.state}/state.json",
                    Status.NO_REPOSITORY,
                ) from None
            if not create:
                raise
            self._run(["init"])
            repository = json.loads(self._run(["cat", "config"]))["id"]
        # Only locks whose process is gone, or that are half an hour old and not renewed.
        self._run(["unlock"])
        return str(repository)

    def _reach(self) -> None:
        """Asks the repository's server for a session: restic 0.14 loses what ssh says of a refusal.

        :raises BackupError: there is none.
        """
        if not self._config.sftp_command:
            return
        result = subprocess.run(
            shlex.split(self._config.sftp_command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if result.returncode:
            raise self._explained(result.stderr)

    def backup(self, paths: Sequence[str], excluded: Iterable[str], tags: Iterable[str]) -> Made:
        """Makes a snapshot of all paths.

        :raises BackupError: not made, or without a file that is still there.
        """
        arguments = ["backup", "--json", "--host", self._config.host, "--one-file-system", "--ignore-ctime"]
        for pattern in excluded:
            arguments += ["--exclude", pattern]
        for tag in tags:
            arguments += ["--tag", tag]
        result = self._ran([*arguments, "--", *paths])
        messages = _messages(result.stdout) + _messages(result.stderr)
        errors = [message for message in messages if message.get("message_type") == "error"]
        said = [_text_of(error) for error in errors]
        unread = [text for text in said if "no such file or directory" not in text]
        if result.returncode not in {0, _INCOMPLETE}:
            raise self._explained(result.stderr)
        summary = next((one for one in messages if one.get("message_type") == "summary"), None)
        if summary is None or unread or (result.returncode == _INCOMPLETE and not errors):
            detail = unread[0] if unread else "restic left something out"
            raise BackupError(f"{self._config.repository}: {detail}")
        return Made(
            str(summary["snapshot_id"]),
            int(summary["total_bytes_processed"]),
            int(summary["data_added"]),
            len(errors),
        )

    def snapshots(self, tag: str = "") -> list[Snapshot]:
        """The backups of this host, oldest first."""
        arguments = ["snapshots", "--json", "--host", self._config.host]
        found = [
            Snapshot.read(entry)
            for entry in json.loads(self._run([*arguments, *(["--tag", tag] if tag else [])])) or []
        ]
        return sorted(found, key=lambda one: one.time)

    def size(self, snapshot: str) -> int:
        """Bytes of all files in a snapshot."""
        stats = json.loads(self._run(["stats", "--json", "--mode", "restore-size", snapshot]))
        return int(stats["total_size"])

    def files(self, snapshot: str, directory: str) -> Iterator[tuple[str, int]]:
        """The regular files below a directory of a snapshot, with their bytes, as they are read.

        :raises BackupError: the snapshot can't be read to its end.
        """
        arguments = [*self._base, "ls", "--json", "--recursive", snapshot, directory]
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(
                arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            ) as process,
        ):
            assert process.stdout
            for message in map(json.loads, process.stdout):
                if message.get("type") == "file":
                    yield message["path"], message.get("size", 0)
            if process.wait():
                said.seek(0)
                raise self._explained(said.read())

    def restore(self, snapshot: str, patterns: Sequence[str], target: str) -> None:
        """Puts what matches the patterns below `target` and reads it again to compare."""
        includes = [word for pattern in patterns for word in ("--include", pattern)]
        self._run(["restore", snapshot, "--target", target, "--verify", *includes])

    def forget(self, *, prune: bool) -> None:
        """Drops the backups that are no longer kept; what only they needed goes with `prune`."""
        config = self._config
        arguments = ["forget", "--host", config.host, "--group-by", "host"]
        for period in ("daily", "weekly", "monthly"):
            count = getattr(config, f"keep_{period}")
            arguments += [f"--keep-{period}", str(count)] if count else []
        self._run([*arguments, *(["--prune"] if prune else [])])

    def check(self) -> None:
        """Checks the structure, and reads a part of the data whole.

        :raises BackupError: something is damaged.
        """
        percent = self._config.check_percent
        self._run(["check", *([f"--read-data-subset={percent}%"] if percent else [])])

    def _run(self, arguments: Sequence[str]) -> str:
        result = self._ran(arguments)
        if result.returncode:
            raise self._explained(result.stderr or result.stdout)
        return result.stdout

    def _ran(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self._base, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            raise BackupError("restic is not installed") from None

    def _explained(self, said: str) -> BackupError:
        key = ""
        if self._config.public_key and Path(self._config.public_key).is_file():
            key = Path(self._config.public_key).read_text().strip()
        return explain(said, self._config.repository, key)


def _messages(output: str) -> list[dict[str, Any]]:
    """The JSON messages among the lines of an output."""
    found = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def _text_of(message: dict[str, Any]) -> str:
    """What an error message of restic's says; 0.14 gives the number of the error instead of its text."""
    error = message.get("error")
    if isinstance(error, dict):
        number = error.get("Err")
        error = os.strerror(number).lower() if isinstance(number, int) else error.get("message", error)
    return f"{message.get('item', '')}: {error}"

"""Makes a backup, checks the repository, drills a restore; systemd's timers call all three."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from host_agent.backup import files
from host_agent.backup.config import Config
from host_agent.backup.contents import Contents, summed, unchanged
from host_agent.backup.drill import compare
from host_agent.backup.errors import BackupError, Status
from host_agent.backup.parts import parts
from host_agent.backup.restic import PICTURES, TAG, Repository
from host_agent.backup.state import Restore, State, alone

MANIFEST = "manifest.json"
"""What is in the snapshot, below `staged/`."""

_PATIENCE_S = 4 * 3600.0
"""The check of a large repository may take that long, and a backup waits for it."""


def backup(config: Config) -> State:
    """Makes one snapshot of all that is to be saved on this host, or none.

    :raises BackupError: it couldn't be made; that is remembered, and told to Prometheus.
    """
    return _remembered(config, "backup", _backup)


def check(config: Config) -> State:
    """Clears away what is no longer kept, and checks what is.

    :raises BackupError: something is damaged, or it couldn't be looked at.
    """
    return _remembered(config, "check", _check)


def drill(config: Config) -> State:
    """Restores the last backup beside what is there, and compares.

    :raises BackupError: it couldn't be restored, or isn't what was saved.
    """
    return _remembered(config, "drill", _drill)


def _remembered(config: Config, task: str, run: Callable[[Config, State], State]) -> State:
    directory = Path(config.state)
    started = time.time()
    with alone(directory, _PATIENCE_S):
        state = State.load(directory)
        failure: BackupError | None = None
        try:
            state = run(config, state)
        except BackupError as error:
            failure = error
        except OSError as error:
            failure = BackupError(
                f"{error.filename or config.host}: {error.strerror or error}", _status(error)
            )
        ended = time.time()
        outcome = getattr(state, task).ended(ended, ended - started, failure)
        state = replace(state, **{task: outcome})
        state.save(directory, config.metrics)
    if failure is not None:
        raise failure
    return state


def _status(error: OSError) -> Status:
    full = {"No space left on device", "Disk quota exceeded"}
    return Status.DISK_FULL if error.strerror in full else Status.FAILED


def _backup(config: Config, state: State) -> State:
    directory = Path(config.state)
    if Restore.load(directory):
        raise BackupError("a restore onto this host is not finished; run bitrix-cdn restore again first")
    repository = Repository(config)
    state = state.opened(config.repository, repository.open(state.known(config.repository), create=True))
    staged = directory / "staged"
    present = [part for part in parts(config) if part.present()]
    stages = [staged, *(part.stage() for part in present)]
    try:
        for stage in stages:
            files.remove(stage)
            stage.mkdir(mode=0o700)
        facts: dict[str, Any] = {part.name: part.save() for part in present}
        manifest = {
            "host": config.host,
            "time": time.time(),
            "pictures": config.with_pictures,
            "parts": facts,
        }
        (staged / MANIFEST).write_text(json.dumps(manifest))
        told = [
            *(found for pattern in (*config.identity, *config.configuration) for found in matching(pattern)),
            *map(str, stages),
        ]
        before = Contents.load(directory)
        sums = summed(told, config.excluded, before.sums if before else {})
        paths = [*told, *(path for path in config.pictures if config.with_pictures and Path(path).is_dir())]
        if config.spool and not files.mounted(config.spool) and Path(config.spool).is_dir():
            paths.append(config.spool)
        tags = [TAG, *([PICTURES] if config.with_pictures else [])]
        made = repository.backup(list(dict.fromkeys(paths)), config.excluded, tags)
        Contents(made.id, tuple(dict.fromkeys(told)), unchanged(sums)).save(directory)
    finally:
        for stage in stages:
            shutil.rmtree(stage, ignore_errors=True)
    state = replace(state, snapshot=made.id, size=made.size, added=made.added, vanished=made.vanished)
    repository.forget(prune=False)
    return state


def matching(pattern: str) -> list[str]:
    """What is on this host of an absolute path, or of a pattern of names in its last part."""
    path = Path(pattern)
    return [str(found) for found in sorted(path.parent.glob(path.name))]


def _check(config: Config, state: State) -> State:
    repository, state = _opened(config, state)
    repository.forget(prune=True)
    repository.check()
    return state


def _drill(config: Config, state: State) -> State:
    repository, state = _opened(config, state)
    return replace(state, drilled=compare(config, repository))


def _opened(config: Config, state: State) -> tuple[Repository, State]:
    """The repository that a backup was made in.

    :raises BackupError: none was.
    """
    repository = Repository(config)
    known = state.known(config.repository)
    if not known:
        raise BackupError(f"{config.repository}: no backup was made yet", Status.NO_REPOSITORY)
    return repository, state.opened(config.repository, repository.open(known, create=False))

"""Restores a backup, step by step; an interrupted step is done again.

The operator's side deploys between `before` and `data`. Which snapshot it is stands in `restore.json` from
the first step to the last, so that a second run goes on with the same one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC
from pathlib import Path
from typing import Any

from host_agent.audit import log as audit
from host_agent.backup import files
from host_agent.backup.config import Config
from host_agent.backup.errors import BackupError, Status
from host_agent.backup.parts import Part, parts
from host_agent.backup.restic import PICTURES, TAG, Repository, Snapshot, chosen
from host_agent.backup.run import MANIFEST
from host_agent.backup.state import Restore, State, alone, forget_restore

APPLIED = "/var/lib/bitrix-cdn/applied"
"""Holds something on a host that was deployed."""

Say = Callable[[str], None]


def status(config: Config) -> dict[str, Any]:
    """Whether this host is in use, and a restore that was begun."""
    restore = Restore.load(Path(config.state))
    deployed = Path(APPLIED)
    return {
        "deployed": deployed.is_dir() and any(deployed.iterdir()),
        "restore": restore and asdict(restore),
    }


def snapshots(config: Config) -> list[dict[str, Any]]:
    """The backups of this host, oldest first."""
    repository = Repository(config)
    repository.open("", create=False)
    return [
        {
            "id": one.id,
            "time": one.time.astimezone(UTC).isoformat(timespec="seconds"),
            "size": one.size if one.size is not None else repository.size(one.id),
            "pictures": PICTURES in one.tags,
        }
        for one in repository.snapshots(TAG)
    ]


def begin(config: Config, wanted: str, *, pictures: bool, another: bool) -> Restore:
    """Chooses a snapshot and records it; continues with the recorded one of an interrupted restore.

    :param pictures: restore them, if they are in it. Those of a restore that was begun can still be left out.
    :param another: start over if `wanted` is another one than that of the interrupted restore.
    :raises BackupError: there is no such snapshot, or another one was begun.
    """
    directory = Path(config.state)
    with alone(directory):
        begun = Restore.load(directory)
        other = begun and wanted != "latest" and not begun.snapshot.startswith(wanted)
        if begun and other and not another:
            raise BackupError(
                f"a restore of {begun.snapshot[:8]} ({begun.time}) was begun on this host: run the command "
                "without --snapshot to finish it, or with --force to start over",
                Status.USAGE,
            )
        if begun and not other:
            begun = replace(begun, pictures=begun.pictures and pictures)
            begun.save(directory)
            return begun
        repository = Repository(config)
        opened = repository.open("", create=False)
        snapshot = chosen(repository.snapshots(TAG), wanted, config.repository)
        restore = Restore(snapshot.id, _when(snapshot), pictures and PICTURES in snapshot.tags)
        State.load(directory).opened(config.repository, opened).save(directory, config.metrics)
        restore.save(directory)
        return restore


def _when(snapshot: Snapshot) -> str:
    return snapshot.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def before(config: Config, say: Say) -> None:
    """What must be in place before the deploy: keys, tokens, certificates, and the pictures."""
    directory = Path(config.state)
    with alone(directory):
        restore = _begun(directory)
        repository = Repository(config)
        if "identity" not in restore.done:
            _identity(config, repository, restore.snapshot)
            restore = _done(directory, restore, "identity")
            say("keys, tokens and certificates are in place")
        if restore.pictures and "pictures" not in restore.done:
            _stop(config.picture_users)
            for tree in config.pictures:
                # restic makes missing parents for root alone.
                files.make_parents(Path(tree))
            repository.restore(restore.snapshot, config.pictures, "/")
            restore = _done(directory, restore, "pictures")
            say("the pictures are in place")


def data(config: Config, say: Say) -> None:
    """The data of the services, each stopped meanwhile; started again and compared."""
    directory = Path(config.state)
    with alone(directory):
        restore = _begun(directory)
        repository = Repository(config)
        manifest = _manifest(config, repository, restore.snapshot)
        saved: dict[str, Any] = manifest["parts"]
        _stop(config.data_users)
        for part in parts(config):
            if part.name in restore.done:
                continue
            if part.name not in saved:
                say(f"{part.name}: not in this backup")
            elif not _installed(part):
                say(f"{part.name}: not installed here; its data stays in the backup")
            else:
                _fetch(repository, restore.snapshot, part)
                _stop([part.unit])
                part.put_back()
                _start([part.unit])
                say(f"{part.name}: {part.verify(saved[part.name])}")
                files.remove(part.stage())
            restore = _done(directory, restore, part.name)
        _start(config.data_users)
        broken = [unit for unit in config.services if not _runs(unit)]
        if broken:
            raise BackupError(f"{', '.join(broken)}: not running after the restore")
        files.remove(directory / "staged")
        forget_restore(directory)


def _begun(directory: Path) -> Restore:
    restore = Restore.load(directory)
    if restore is None:
        raise BackupError("no restore was begun on this host", Status.USAGE)
    return restore


def _done(directory: Path, restore: Restore, step: str) -> Restore:
    restore = restore.with_done(step)
    os.sync()
    restore.save(directory)
    return restore


def _identity(config: Config, repository: Repository, snapshot: str) -> None:
    aside = Path(config.state) / "restored"
    files.remove(aside)
    aside.mkdir(mode=0o700)
    try:
        repository.restore(snapshot, config.identity, str(aside))
        # What is damaged must not take the place of what lets the operator in.
        for key in (aside / "etc/ssh").glob("ssh_host_*_key"):
            test = subprocess.run(
                ["ssh-keygen", "-y", "-P", "", "-f", str(key)], capture_output=True, text=True, check=False
            )
            if test.returncode:
                raise BackupError(f"{snapshot[:8]}: {key.name} is no usable host key")
        for pattern in config.identity:
            for source in sorted(aside.glob(pattern.lstrip("/"))):
                place = Path("/") / source.relative_to(aside)
                if place == audit.DIRECTORY:
                    # This restore, and what else was done to the new host, stands there already.
                    audit.Log().put_before(source)
                    continue
                files.make_parents(place)
                files.put_in_place(source, place)
    finally:
        files.remove(aside)
    os.sync()
    # RPM distributions have it under its own name.
    server = next(unit for unit in ("ssh.service", "sshd.service") if not _systemctl("cat", unit).returncode)
    subprocess.run(["systemctl", "reload-or-restart", server], check=True)


def _manifest(config: Config, repository: Repository, snapshot: str) -> dict[str, Any]:
    path = Path(config.state) / "staged" / MANIFEST
    repository.restore(snapshot, [str(path)], "/")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BackupError(f"{snapshot[:8]}: {path.name}: {error}") from None
    return manifest


def _fetch(repository: Repository, snapshot: str, part: Part) -> None:
    stage = part.stage()
    files.remove(stage)
    stage.mkdir(mode=0o700, parents=True)
    repository.restore(snapshot, [str(stage)], "/")


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def _known_to_systemd(unit: str) -> bool:
    return _systemctl("cat", unit).returncode == 0


def _runs(unit: str) -> bool:
    return _systemctl("is-active", "-q", unit).returncode == 0


def _installed(part: Part) -> bool:
    return _known_to_systemd(part.unit)


def _stop(units: Any) -> None:
    for unit in units:
        if _known_to_systemd(unit):
            _systemctl("stop", unit)


def _start(units: Any) -> None:
    for unit in units:
        result = _systemctl("start", unit)
        if result.returncode:
            raise BackupError(
                f"{unit}: {result.stderr.strip().splitlines()[0] if result.stderr else 'does not start'}"
            )

"""Records a rollout's progress on the operator's machine, so that it can be interrupted at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitrix_cdn.fleet.lock import now
from bitrix_cdn.rollout.errors import RefusedError, RolloutError

HOME = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "bitrix-cdn" / "rollout"

# A deploy that outlived its rollout is waited for that long, in seconds.
_PATIENCE = 900.0


@dataclass
class Progress:
    """How far a rollout is. A run that is killed leaves it as it was when it began the step it names."""

    state: str
    """Of the tree and the settings that it brings."""
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    """Of its lock on the hosts."""
    began: str = field(default_factory=now)
    finished: dict[str, str] = field(default_factory=dict)
    """The hosts that have the state, each with when."""
    batch: list[str] = field(default_factory=list)
    """The hosts that are being changed."""
    step: str = ""
    """What is done with them; empty: nothing."""
    before: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    """Of these hosts, by kind, how much was tried and how much failed before anything was done with them."""
    ended: bool = False
    """It went through, or what it began is undone: the next run starts over."""


class Record:
    """The progress of the rollout of one inventory, in a file that one run at a time holds."""

    def __init__(self, inventory: str, home: Path = HOME) -> None:
        path = Path(inventory).resolve()
        name = f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        self.logs = home / f"{name}.logs"
        """A directory for what the deploys and the tests say."""
        self._file = home / f"{name}.json"
        self._lock = home / f"{name}.lock"
        self._work = home / f"{name}.work"
        self.progress = Progress(state="")

    def open(self, state: str, wait: Callable[[str], object]) -> None:
        """Takes the record, and goes on with it where an earlier run for the same state was cut short.

        :param state: what is to be brought to the hosts.
        :raises RefusedError: another run has it, or what a killed run left at work does not end.
        :raises RolloutError: the record can't be read or written.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held = self._lock.open("a+")
            self._at_work = self._work.open("a+")
            self._take(wait)
            self.progress = self.read() or Progress(state)
            self._lock.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise RolloutError(f"{self._file.parent}: {error.strerror}: progress is kept there") from None
        if self.progress.state != state or self.progress.ended:
            # The token stays: what an earlier run has locked is this operator's own.
            self.progress = Progress(
                state,
                token=self.progress.token,
                batch=self.progress.batch,
                step=self.progress.step,
                before=self.progress.before,
            )
        self.write()

    @property
    def work(self) -> int:
        """A file descriptor for what a run starts: as long as it is open there, the next run waits."""
        return self._at_work.fileno()

    def log(self, what: str) -> Path:
        """A new file for what a command says; the oldest go."""
        for old in sorted(self.logs.iterdir())[:-50]:
            old.unlink(missing_ok=True)
        return self.logs / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{what}.log"

    def close(self) -> None:
        """Lets the next run have it; the end of the process does so as well."""
        self._held.close()
        self._at_work.close()

    def enter(self, batch: Iterable[str], step: str) -> None:
        """A step begins."""
        self.progress.batch, self.progress.step = list(batch), step
        self.write()

    def finish(self, hosts: Iterable[str]) -> None:
        """These hosts have the state, and nothing is being done with them any more."""
        for host in hosts:
            self.progress.finished[host] = now()
        self.progress.before = {}
        self.enter((), "")

    def end(self) -> None:
        """Nothing is left for a next run to go on with."""
        self.progress.ended = True
        self.progress.before = {}
        self.enter((), "")

    def write(self) -> None:
        """In one rename, so that no run ever finds half of it."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self.progress), indent=1) + "\n")
        new.replace(self._file)

    def _take(self, wait: Callable[[str], object]) -> None:
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.seek(0)
            pid = self._held.read().strip()
            raise RefusedError(f"a rollout of this inventory runs here already (process {pid})") from None
        deadline = time.monotonic() + _PATIENCE
        said = False
        while True:
            # A child that was started with the descriptor shares its lock; this run has another one.
            with suppress(BlockingIOError):
                fcntl.flock(self._at_work, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > deadline:
                raise RefusedError(f"what a killed rollout started still runs: see `fuser {self._work}`")
            if not said:
                wait("waiting for the end of what a killed rollout started")
                said = True
            time.sleep(0.5)

    def read(self) -> Progress | None:
        """What an earlier run wrote; None: there was none.

        :raises RolloutError: it can't be read.
        """
        try:
            values: dict[str, Any] = json.loads(self._file.read_text())
            return Progress(**values)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise RolloutError(f"{self._file}: can't be read; remove it to start over") from None

"""Shows the operator the current step, its progress and its duration."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

# Where the output is no terminal, such as in a log: seconds between two lines.
_PLAIN_INTERVAL = 10.0


@dataclass(frozen=True)
class Copied:
    """How far a copy is."""

    bytes: int
    """Copied so far, by this run."""
    rate: float
    """Bytes a second."""
    copied: int
    """Files copied so far, by this run."""
    passed: int
    """Files and directories looked at so far, copied or not."""


class Meter:
    """One step's bar, or its lines where there is no terminal."""

    def __init__(self, display: Display, progress: Progress, task: TaskID, title: str, total: int) -> None:
        self._display = display
        self._progress = progress
        self._task = task
        self._title = title
        self._total = total
        self._last_line = time.monotonic()

    def copied(self, progress: Copied) -> None:
        """How far a copy is."""
        self._update(
            progress.passed,
            f"{progress.passed:,} looked at, {progress.copied:,} copied, {size(progress.bytes)}, "
            f"{size(progress.rate)}/s",
        )

    def read(self, count: int) -> None:
        """How far a comparison is: bytes read."""
        self._update(count, f"{size(count)} of {size(self._total)} compared")

    def finish(self) -> None:
        self._progress.update(self._task, completed=max(self._total, 1), total=max(self._total, 1))

    def _update(self, completed: float, text: str) -> None:
        self._progress.update(
            self._task, completed=min(completed, self._total), text=text, total=max(self._total, 1)
        )
        if not self._display.console.is_terminal and time.monotonic() - self._last_line > _PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            self._display.say(f"{self._title}: {min(completed / max(self._total, 1), 1):.0%}, {text}")


class Display:
    """The operator's terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def meter(self, title: str, *, total_entries: int = 0, total_bytes: int = 0) -> Iterator[Meter]:
        """Shows a step while it lasts."""
        total = total_entries or total_bytes
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with progress:
            task = progress.add_task(title, total=max(total, 1), text="")
            yield Meter(self, progress, task, title, total)


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

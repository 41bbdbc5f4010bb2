"""The jobs that this daemon has fetched and not finished: each is in hand until the queue
has been told its result, or could not be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from webp_converter.queue.jobs import Job


class InHand:
    """One thread takes jobs and hands them to workers, another one finishes them."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self.waiting: list[Job] = []
        """Those that no worker was handed yet."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def at_work(self) -> int:
        """How many were handed to workers."""
        return len(self._jobs) - len(self.waiting)

    def take(self, jobs: Sequence[Job]) -> None:
        """Takes in what was fetched."""
        self._jobs |= {job.entry: job for job in jobs}
        self.waiting += jobs

    def jobs(self) -> dict[str, Job]:
        """All of them, by entry."""
        return dict(self._jobs)

    def finished(self, jobs: Iterable[Job]) -> None:
        """Lets go of jobs."""
        for job in jobs:
            self._jobs.pop(job.entry, None)

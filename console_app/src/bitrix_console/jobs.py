"""Jobs: what is done to the hosts from here, who asked for it, who approved it, and how it ended.

A job is one row. It goes from one state to the next in a transaction that also writes the audit log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from web_kit.audit import Audit
from web_kit.database import Database
from web_kit.errors import RefusedError
from web_kit.roles import Role, Who

from bitrix_console.models import Job, JobLine, JobResult

_DETAILED = 500
"""Jobs whose lines and results are kept."""


class Kind(StrEnum):
    """What can be done; see :mod:`bitrix_console.job_process`."""

    PLAN = "plan"
    APPLY = "apply"
    DRIFT = "drift"
    BACKUP = "backup"
    BACK = "back"
    """To the release before, or to a named one."""


CHANGING = frozenset({Kind.APPLY, Kind.BACK})
"""What changes what visitors get: needs an approval."""


class State(StrEnum):
    """Where a job is."""

    ASKED = "asked"
    """It waits for an approval."""
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    """Somebody else holds a host, or it isn't what was planned for; nothing was changed."""
    INTERRUPTED = "interrupted"
    """Its process is gone and has not said how it ended: it may be half done."""
    WITHDRAWN = "withdrawn"


OVER = frozenset({State.DONE, State.FAILED, State.REFUSED, State.INTERRUPTED, State.WITHDRAWN})


@dataclass(frozen=True)
class Wanted:
    """What somebody asks for."""

    kind: Kind
    limit: tuple[str, ...] = ()
    """Of a plan, a drift check or a backup: hosts or groups; empty: all."""
    plan: int | None = None
    """Of an apply: the job that made the plan."""
    release: str = ""
    """Of a way back; empty: to the one before."""


@dataclass(frozen=True)
class End:
    """How a job ended."""

    state: State
    why: str = ""
    found: int | None = None
    log: str = ""
    hosts: Sequence[dict[str, Any]] = ()
    plan: dict[str, Any] | None = None


def check(wanted: Wanted) -> None:
    """
    :raises RefusedError: it can't be what somebody wants.
    """
    if wanted.limit and wanted.kind in CHANGING:
        raise RefusedError(422, "hosts can't be chosen for this: a plan has its own")
    if len(" ".join(wanted.limit)) > 400 or not all(re.fullmatch(r"[\w.*-]+", one) for one in wanted.limit):
        raise RefusedError(422, "hosts are names of hosts or groups with spaces between them")
    if not re.fullmatch(r"[\w.-]{0,64}", wanted.release) or (wanted.release and wanted.kind is not Kind.BACK):
        raise RefusedError(422, "this is no name of a release")
    if (wanted.plan is None) == (wanted.kind is Kind.APPLY):
        raise RefusedError(422, "a plan is what is applied, and nothing else needs one")


def may_approve(job: Job, who: Who) -> bool:
    """Whether somebody may approve a job: an approver that of somebody else, an admin also an own one."""
    return who.role is Role.ADMIN or (who.role is Role.APPROVER and who.name != job.by)


def may_withdraw(job: Job, who: Who) -> bool:
    """Whether somebody may have a job not begin: who asked for it, or who could have refused it."""
    return who.name == job.by or who.role.includes(Role.APPROVER)


class Jobs:
    """The jobs of one inventory."""

    def __init__(self, database: Database, audit: Audit, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    # What is known

    def latest(self, most: int = 100) -> Sequence[Job]:
        with self._database.reading() as work:
            return work.scalars(select(Job).order_by(Job.id.desc()).limit(most)).all()

    def get(self, id: int) -> Job:
        """
        :raises RefusedError: there is no such job.
        """
        with self._database.reading() as work:
            return _job(work, id)

    def lines(self, id: int, most: int = 10_000) -> list[str]:
        """What a job told, the last of it."""
        query = select(JobLine.text).where(JobLine.job_id == id).order_by(JobLine.id.desc()).limit(most)
        with self._database.reading() as work:
            return list(reversed(work.scalars(query).all()))

    def result(self, id: int | None) -> JobResult | None:
        with self._database.reading() as work:
            return work.get(JobResult, id) if id is not None else None

    # What people do

    def ask(self, who: Who, address: str, wanted: Wanted) -> Job:
        """Puts a job into the queue, or before those who may approve it.

        :raises RefusedError: it can't be done.
        """
        check(wanted)
        state = State.ASKED if wanted.kind in CHANGING else State.QUEUED
        with self._database.writing() as work:
            if wanted.plan is not None:
                _planned(work, wanted.plan)
            job = Job(
                kind=wanted.kind.value,
                state=state.value,
                by=who.name,
                address=address[:255],
                limit=" ".join(wanted.limit),
                release=wanted.release,
                plan_id=wanted.plan,
                asked=self._clock(),
            )
            work.add(job)
            work.flush()
            self._tell(work, who.name, address, "job.ask", job)
            old = job.id - _DETAILED
            work.execute(delete(JobLine).where(JobLine.job_id <= old))
            work.execute(delete(JobResult).where(JobResult.job_id <= old))
            return job

    def approve(self, who: Who, address: str, id: int) -> None:
        """
        :raises RefusedError: it doesn't wait for an approval, or for that of somebody else.
        """
        with self._database.writing() as work:
            job = _job(work, id)
            if job.state != State.ASKED:
                raise RefusedError(409, "this job does not wait for an approval")
            allowed = may_approve(job, who)
            if allowed:
                job.state, job.approved_by = State.QUEUED.value, who.name
            self._tell(work, who.name, address, "job.approve", job, "ok" if allowed else "refused")
        if not allowed:
            raise RefusedError(403, "somebody else has to approve what you ask for")

    def withdraw(self, who: Who, address: str, id: int) -> None:
        """Has a job not begin.

        :raises RefusedError: it has, or is somebody else's.
        """
        with self._database.writing() as work:
            job = _job(work, id)
            if job.state not in (State.ASKED, State.QUEUED):
                raise RefusedError(409, "this job has begun, and comes to its end")
            allowed = may_withdraw(job, who)
            if allowed:
                job.state, job.ended = State.WITHDRAWN.value, self._clock()
            self._tell(work, who.name, address, "job.withdraw", job, "ok" if allowed else "refused")
        if not allowed:
            raise RefusedError(403, "your role does not allow that")

    # What becomes of them

    def waiting(self) -> bool:
        """Whether there is one in the queue, or one that has begun."""
        some = select(Job.id).where(Job.state.in_([State.QUEUED.value, State.RUNNING.value])).limit(1)
        with self._database.reading() as work:
            return work.scalars(some).first() is not None

    def begin(self) -> Job | None:
        """Begins the first job of the queue; only for whoever holds its lock."""
        with self._database.writing() as work:
            queued = select(Job).where(Job.state == State.QUEUED.value).order_by(Job.id).limit(1)
            job = work.scalars(queued).first()
            if job is not None:
                job.state, job.began = State.RUNNING.value, self._clock()
                self._tell(work, job.by, job.address, "job.begin", job)
            return job

    def end_lost(self) -> None:
        """Ends what has begun and has nobody who will say how it ended; only for whoever holds the lock."""
        with self._database.reading() as work:
            lost = work.scalars(select(Job.id).where(Job.state == State.RUNNING.value)).all()
        for id in lost:
            self.end(
                id,
                End(
                    State.INTERRUPTED,
                    "its process ended without saying how; `bitrix-cdn log` shows what the hosts know of it",
                ),
            )

    def end(self, id: int, end: End) -> None:
        """Keeps how a job that runs ended."""
        with self._database.writing() as work:
            job = _job(work, id)
            if job.state != State.RUNNING:
                return
            job.state, job.ended, job.why = end.state.value, self._clock(), end.why
            job.found, job.log, job.step = end.found, end.log or job.log, ""
            if end.hosts or end.plan:
                work.add(JobResult(job_id=id, hosts=list(end.hosts), plan=end.plan))
            result = {State.DONE: "ok", State.REFUSED: "refused"}.get(end.state, "failed")
            self._tell(work, job.by, job.address, f"job.{job.kind}", job, result)

    def told(self, id: int, number: int, total: int, step: str, lines: Iterable[str] = ()) -> None:
        """Keeps how far a job is."""
        with self._database.writing() as work:
            job = _job(work, id)
            job.number, job.total, job.step = number, total, step
            work.add_all(JobLine(job_id=id, text=text) for text in lines)

    def _tell(self, work: Session, who: str, address: str, what: str, job: Job, result: str = "ok") -> None:
        """Writes to the audit log what became of a job."""
        facts = {
            "hosts": job.limit,
            "release": job.release,
            "plan of job": job.plan_id,
            "approved by": job.approved_by,
            "found": job.found,
            "interrupted": job.why if job.state == State.INTERRUPTED else "",
            "why": job.why if job.state in (State.FAILED, State.REFUSED) else "",
        }
        detail = "; ".join(f"{name} {value}" for name, value in facts.items() if value not in ("", None))
        self._audit.add(work, who, address, what, f"job {job.id}: {job.kind}", result=result, detail=detail)


def _job(work: Session, id: int) -> Job:
    job = work.get(Job, id)
    if job is None:
        raise RefusedError(404, "there is no such job")
    return job


def _planned(work: Session, id: int) -> None:
    """
    :raises RefusedError: the job made no plan that changes anything.
    """
    job, result = _job(work, id), work.get(JobResult, id)
    if job.kind != Kind.PLAN or job.state != State.DONE or result is None or result.plan is None:
        raise RefusedError(409, "this job has no plan; make one again")
    if not job.found:
        raise RefusedError(409, "this plan changes nothing")

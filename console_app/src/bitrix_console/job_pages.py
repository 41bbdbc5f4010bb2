"""Jobs, as pages, as they go on, and for programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from web_kit.access import Fields, needs
from web_kit.errors import RefusedError
from web_kit.kit import Kit, back
from web_kit.roles import Role, Who

from bitrix_console import jobs as rules
from bitrix_console.job_queue import Queue
from bitrix_console.jobs import OVER, Jobs, Kind, State, Wanted
from bitrix_console.models import Job
from bitrix_console.pages import address_of, part_of

JOBS = "jobs"
APPROVE = "approve"
"""The scopes of tokens: what asks for jobs need not approve them."""

LIVE_S = 30.0
"""After which a browser asks again, and has to be logged in again."""
_LOOK_S = 0.5
_LAST = 50
"""Lines that are shown while a job runs."""

TITLES = {
    Kind.PLAN: "Plan",
    Kind.APPLY: "Apply a plan",
    Kind.DRIFT: "Drift check",
    Kind.BACKUP: "Back up",
    Kind.BACK: "Release back",
}
STATES = {
    State.ASKED: "waits for approval",
    State.QUEUED: "in the queue",
    State.RUNNING: "in progress",
    State.DONE: "done",
    State.FAILED: "failed",
    State.REFUSED: "refused",
    State.INTERRUPTED: "interrupted",
    State.WITHDRAWN: "withdrawn",
}


class Asking(BaseModel):
    """A wish to have something done."""

    kind: Kind
    limit: list[str] = []
    plan: int | None = None
    release: str = ""


class JobState(BaseModel):
    """A job, and where it is."""

    id: int
    kind: Kind
    state: State
    by: str
    approved_by: str
    limit: str
    release: str
    plan_id: int | None
    asked: float
    began: float | None
    ended: float | None
    number: int
    total: int
    step: str
    found: int | None
    why: str
    log: str


class JobDetail(JobState):
    """With what it told and found."""

    lines: list[str]
    hosts: list[dict[str, Any]] | None
    """As `bitrix-cdn drift --json` has them."""


def add_to(app: FastAPI, jobs: Jobs, queue: Queue) -> None:
    kit: Kit = app.state.kit
    page: dict[str, Any] = {"include_in_schema": False}
    operator = needs(Role.OPERATOR, JOBS)
    approver = needs(Role.APPROVER, APPROVE)

    def asked(request: Request, who: Who, wanted: Wanted) -> Job:
        job = jobs.ask(who, address_of(request), wanted)
        queue.look_now()
        return job

    def approved(request: Request, who: Who, id: int) -> None:
        jobs.approve(who, address_of(request), id)
        queue.look_now()

    def shown(request: Request, who: Who, job: Job, template: str) -> Response:
        over = job.state in OVER
        return kit.page(
            request,
            template,
            who,
            job=job,
            over=over,
            lines=jobs.lines(job.id) if over else jobs.lines(job.id, _LAST),
            # Who approves a plan sees it there.
            result=jobs.result(job.plan_id if job.kind == Kind.APPLY else job.id),
            titles=TITLES,
            states=STATES,
            may_approve=job.state == State.ASKED
            and rules.may_approve(job, who)
            and who.may(Role.APPROVER, APPROVE),
            may_withdraw=job.state in (State.ASKED, State.QUEUED) and rules.may_withdraw(job, who),
        )

    @app.get("/jobs", **page)
    def list_jobs(request: Request, who: Who = operator) -> Response:
        return kit.page(
            request, part_of(request, "jobs"), who, jobs=jobs.latest(), titles=TITLES, states=STATES
        )

    @app.post("/jobs", **page)
    def ask(request: Request, form: Fields, who: Who = operator) -> Response:
        job = asked(request, who, _wanted(form))
        return back(f"/jobs/{job.id}")

    @app.get("/jobs/{id}", **page)
    def show(request: Request, id: int, who: Who = operator) -> Response:
        return shown(request, who, jobs.get(id), "job.html.j2")

    @app.get("/jobs/{id}/live", **page)
    def live(request: Request, id: int, state: str = "", who: Who = operator) -> Response:
        jobs.get(id)

        def look() -> tuple[str, str]:
            job = jobs.get(id)
            return job.state, bytes(shown(request, who, job, "job_part.html.j2").body).decode()

        async def told() -> AsyncIterator[str]:
            until, sent = time.monotonic() + LIVE_S, ""
            yield "retry: 1000\n\n"
            while time.monotonic() < until:
                now, text = await run_in_threadpool(look)
                if now != state:
                    # The page has other buttons then, or the result.
                    yield f"event: end\ndata: {now}\n\n"
                    return
                if text != sent:
                    yield "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"
                    sent = text
                await asyncio.sleep(_LOOK_S)

        return StreamingResponse(told(), media_type="text/event-stream")

    @app.post("/jobs/{id}/approve", **page)
    def approve(request: Request, id: int, who: Who = approver) -> Response:
        approved(request, who, id)
        return back(f"/jobs/{id}")

    @app.post("/jobs/{id}/withdraw", **page)
    def withdraw(request: Request, id: int, who: Who = operator) -> Response:
        jobs.withdraw(who, address_of(request), id)
        return back(f"/jobs/{id}")

    # For programs

    @app.get("/api/jobs")
    def list_them(who: Who = operator) -> list[JobState]:
        """The latest jobs, at most 100."""
        return [JobState.model_validate(one.as_data()) for one in jobs.latest()]

    @app.post("/api/jobs", status_code=201)
    def ask_for(request: Request, wanted: Asking, who: Who = operator) -> JobState:
        """Asks for a job. `apply` and `back` wait for an approval, all else goes into the queue."""
        job = asked(request, who, Wanted(wanted.kind, tuple(wanted.limit), wanted.plan, wanted.release))
        return JobState.model_validate(job.as_data())

    @app.get("/api/jobs/{id}")
    def tell(id: int, who: Who = operator) -> JobDetail:
        """A job, with what it told and found."""
        job, result = jobs.get(id), jobs.result(id)
        more = {"lines": jobs.lines(id), "hosts": result and result.hosts}
        return JobDetail.model_validate(job.as_data() | more)

    @app.post("/api/jobs/{id}/approve")
    def approve_it(request: Request, id: int, who: Who = approver) -> JobState:
        """Approves a job that waits for it: an approver that of somebody else, an admin also an own one."""
        approved(request, who, id)
        return JobState.model_validate(jobs.get(id).as_data())

    @app.post("/api/jobs/{id}/withdraw")
    def withdraw_it(request: Request, id: int, who: Who = operator) -> JobState:
        """Has a job not begin."""
        jobs.withdraw(who, address_of(request), id)
        return JobState.model_validate(jobs.get(id).as_data())


def _wanted(form: dict[str, str]) -> Wanted:
    """What a form asks for.

    :raises RefusedError: nothing that there is.
    """
    plan = form.get("plan", "")
    try:
        kind, number = Kind(form.get("kind", "")), int(plan) if plan else None
    except ValueError:
        raise RefusedError(422, "there is no such job") from None
    return Wanted(kind, tuple(form.get("limit", "").split()), number, form.get("release", "").strip())

"""The application: all parts put together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection

from fastapi import FastAPI
from web_kit import account_pages, admin_pages
from web_kit.database import Database
from web_kit.kit import Kit, Section
from web_kit.passwords import Passwords
from web_kit.roles import Role

from bitrix_console import job_pages, pages, pictures, russian
from bitrix_console.alerts import Alerts, Send
from bitrix_console.job_queue import Queue, Start
from bitrix_console.jobs import Jobs
from bitrix_console.pictures import Explain
from bitrix_console.watcher import Asks, Watcher

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_MENU = (
    Section("/", "Overview", Role.VIEWER),
    Section("/alerts", "Alerts", Role.VIEWER),
    Section("/pictures", "Pictures", Role.VIEWER),
    Section("/jobs", "Jobs", Role.OPERATOR),
    *admin_pages.MENU,
)
_SCOPES = (*admin_pages.SCOPES, pages.ALERTS, job_pages.JOBS, job_pages.APPROVE)


def create(
    database: Database,
    asks: Asks,
    send: Send,
    start: Start,
    explain: Explain,
    *,
    hosts: Collection[str] = LOOPBACK,
    hashes: Passwords | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The console.

    :param asks: where what is known of the hosts comes from.
    :param send: what reaches Alertmanager.
    :param start: starts a job's process.
    :param explain: has a picture explained.
    :param hosts: names that browsers call it by.
    """
    kit = Kit(
        "bitrix_console",
        "Bitrix CDN",
        database,
        menu=_MENU,
        scopes=_SCOPES,
        russian_table=russian.TABLE,
        hosts=hosts,
        hashes=hashes,
        clock=clock,
    )
    database.migrate("bitrix_console")
    alerts = Alerts(database, kit.audit, send, clock)
    watcher = Watcher(asks, alerts.remember, clock)
    jobs = Jobs(database, kit.audit, clock)
    queue = Queue(jobs, database.file.with_name("job.lock"), start)

    @contextlib.asynccontextmanager
    async def lives(_: FastAPI) -> AsyncIterator[None]:
        watcher.start()
        queue.start()
        yield
        queue.end()
        watcher.end()

    app = FastAPI(
        title="Bitrix CDN: console",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lives,
    )
    app.state.watcher = watcher
    app.state.jobs = jobs
    app.state.queue = queue
    app.state.kit = kit
    kit.install(app)
    account_pages.add_to(app)
    admin_pages.add_to(app)
    pages.add_to(app, watcher, alerts)
    job_pages.add_to(app, jobs, queue)
    pictures.add_to(app, explain)
    return app

"""The console as tests use it: without hosts, and with a clock of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from bitrix_console.app import create
from bitrix_console.job_queue import Queue
from bitrix_console.jobs import Jobs
from bitrix_console.models import Job
from bitrix_console.prometheus import Alert, Monitored, Point
from bitrix_console.watcher import Watcher
from fastapi import FastAPI
from fastapi.testclient import TestClient
from web_kit.accounts import Accounts
from web_kit.audit import Audit
from web_kit.database import Database
from web_kit.passwords import Passwords
from web_kit.roles import Role

from bitrix_cdn.fleet import HostError
from bitrix_cdn.status.facts import HostStatus, Mount

BASE = "http://127.0.0.1:8090"
PASSWORD = "correct horse battery"
QUICK = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
FROM_HERE = {"Origin": BASE}

ALERT = Alert(
    "abc123",
    "MountDown",
    "critical",
    "bitrix",
    "resize-cache is not mounted",
    "They don't reach each other.",
    1_000.0,
    "mounts.md#mountdown",
    (),
    {"alertname": "MountDown", "host": "bitrix"},
)


class Clock:
    """Seconds of the wall clock, as a test wants them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Hosts:
    """What the hosts and Alertmanager say."""

    clock: Clock
    statuses: tuple[HostStatus, ...] = (
        HostStatus("cdn", ("cdn", "monitoring"), units=3, disk={"/": 40}, alerts=(), release="1c0ae4"),
        HostStatus(
            "bitrix", ("bitrix",), units=2, mounts=(Mount("/resize", "mounted", "", 0),), disk={"/": 9}
        ),
    )
    alerts: tuple[Alert, ...] | None = ()
    away: str = ""
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    explained: dict[str, Any] = field(default_factory=dict)
    meanwhile: Callable[[], object] = bool
    """What happens while a picture is explained."""

    def hosts(self) -> tuple[HostStatus, ...]:
        if self.away:
            raise HostError(self.away)
        return self.statuses

    def explain(self, what: str) -> dict[str, Any]:
        if self.away:
            raise HostError(self.away)
        self.meanwhile()
        return self.explained | {"asked": what}

    def monitored(self, window: str, now: float) -> Monitored | None:
        points = tuple(Point(now - 60 * back, 10.0 + back) for back in range(9, -1, -1))
        return Monitored({"requests": points}, {"saved_day": 2e9}, self.alerts)

    def send(self, method: str, path: str, body: bytes) -> str:
        if self.away:
            raise HostError(self.away)
        self.sent.append((method, path, body))
        return '{"silenceID":"0b7c1f1e-1111-4222-8333-444455556666"}'


class Alive:
    """The process of a job, which never ends."""

    def poll(self) -> int | None:
        return None


class Console:
    """One console, and browsers."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.hosts = Hosts(self.clock)
        self.database = Database(directory / "console.db")
        self.started: list[int] = []
        """Jobs, by number; nothing is done."""
        self.app: FastAPI = create(
            self.database,
            self.hosts,
            self.hosts.send,
            self.start,
            self.hosts.explain,
            hashes=QUICK,
            clock=self.clock,
        )
        self.accounts: Accounts = self.app.state.kit.accounts
        self.audit: Audit = self.app.state.kit.audit
        self.watcher: Watcher = self.app.state.watcher
        self.jobs: Jobs = self.app.state.jobs
        self.queue: Queue = self.app.state.queue

    def start(self, job: Job, lock: int) -> Alive:
        self.started.append(job.id)
        return Alive()

    def browser(self) -> TestClient:
        return TestClient(self.app, base_url=BASE, follow_redirects=False, headers=FROM_HERE)

    def add(self, name: str, role: Role) -> None:
        secret = self.accounts.invite("test", "", name, role)
        self.accounts.accept(secret, PASSWORD, "", "")

    def logged_in(self, name: str, role: Role) -> TestClient:
        """A browser of a new account."""
        self.add(name, role)
        found = self.browser()
        answer = log_in(found, name)
        assert answer.status_code == 303, answer.text
        return found


def log_in(browser: TestClient, name: str, password: str = PASSWORD, code: str = "") -> Any:
    return browser.post("/login", data={"name": name, "password": password, "code": code})


def csrf(browser: TestClient) -> str:
    """What forms of this browser's session bear."""
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/alerts").text)
    assert found
    return found[1]


def post(browser: TestClient, path: str, **fields: str) -> Any:
    """Sends a form as a page of this browser does."""
    return browser.post(path, data={"csrf": csrf(browser), **fields})

"""Jobs: who may have what done, one at a time, and that their end is known whatever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bitrix_console import job_pages, job_process
from bitrix_console.job_process import Run, ended
from bitrix_console.job_queue import Process, Queue, free, starter
from bitrix_console.jobs import CHANGING, End, Jobs, Kind, State, Wanted, check, may_approve, may_withdraw
from bitrix_console.models import Job
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from web_kit.audit import Audit
from web_kit.database import Database
from web_kit.errors import RefusedError
from web_kit.roles import Role, Who

from bitrix_cdn.deploy import apply as applying
from bitrix_cdn.deploy import execute as executing
from bitrix_cdn.deploy.plan import Plan, as_data, of_data
from bitrix_cdn.drift.report import Difference, HostReport, Report
from bitrix_cdn.fleet import HostError, UsageError
from bitrix_cdn.fleet import RefusedError as HeldError
from bitrix_cdn.fleet.results import Result, Step
from host_agent.backup.errors import BackupError, Status
from tests.kit.console import Console, csrf, post
from tests.kit.deployment import ROOT
from tests.kit.support import wait_until

HOSTILE = "<img src=x onerror=alert(1)>\N{LINE SEPARATOR}\r\ndata: x"
CHANGE = Difference(
    "file", "/etc/nginx/nginx.conf", "differs", "nginx", ["--- a", "+++ b", "@@", "-old", "+new"]
)
PLAN = Plan("shop.py", ("cdn",), "s", {"cdn": (CHANGE,)}, {"cdn": "d1g3st"}, "s4lt", "now", "ann")


def who(name: str, role: Role) -> Who:
    return Who(1, name, role, "")


ANN = who("ann", Role.OPERATOR)


def planned(console: Console, plan: Plan = PLAN, by: Who = ANN) -> int:
    """A job that has made a plan."""
    job = console.jobs.ask(by, "here", Wanted(Kind.PLAN))
    begun = console.jobs.begin()
    assert begun
    assert begun.id == job.id
    hosts = [
        {"name": name, "error": None, "differences": [vars(one) for one in found]}
        for name, found in plan.hosts.items()
    ]
    console.jobs.end(job.id, End(State.DONE, found=plan.count, hosts=hosts, plan=as_data(plan)))
    return job.id


def log(audit: Audit) -> list[tuple[str, str, str]]:
    return [(one.who, one.what, one.result) for one in reversed(audit.search("job")) if "job." in one.what]


# Who may


@pytest.mark.parametrize(
    ("by", "name", "role", "approve", "withdraw"),
    [
        ("ann", "ann", Role.OPERATOR, False, True),
        ("ann", "bob", Role.OPERATOR, False, False),
        ("ann", "ann", Role.APPROVER, False, True),
        ("ann", "bob", Role.APPROVER, True, True),
        ("ann", "ann", Role.ADMIN, True, True),
        ("ann", "bob", Role.ADMIN, True, True),
    ],
)
def test_who_may_approve_and_withdraw(by: str, name: str, role: Role, approve: bool, withdraw: bool) -> None:
    job = Job(by=by)
    assert (may_approve(job, who(name, role)), may_withdraw(job, who(name, role))) == (approve, withdraw)


@pytest.mark.parametrize(
    ("wanted", "good"),
    [
        (Wanted(Kind.PLAN), True),
        (Wanted(Kind.PLAN, ("cdn", "edge-*", "web_1.x")), True),
        (Wanted(Kind.PLAN, ("a;b",)), False),
        (Wanted(Kind.PLAN, ("x" * 401,)), False),
        (Wanted(Kind.PLAN, plan=1), False),
        (Wanted(Kind.PLAN, release="1c0ae4"), False),
        (Wanted(Kind.APPLY), False),
        (Wanted(Kind.APPLY, plan=1), True),
        (Wanted(Kind.APPLY, ("cdn",), plan=1), False),
        (Wanted(Kind.BACK), True),
        (Wanted(Kind.BACK, release="1c0ae4"), True),
        (Wanted(Kind.BACK, release="../x"), False),
        (Wanted(Kind.BACK, release="$(x)"), False),
        (Wanted(Kind.BACK, ("cdn",)), False),
    ],
)
def test_what_can_be_wanted(wanted: Wanted, good: bool) -> None:
    if good:
        check(wanted)
    else:
        with pytest.raises(RefusedError):
            check(wanted)


def test_a_change_waits_for_another_person_and_all_is_recorded(console: Console) -> None:
    operator = console.logged_in("ann", Role.OPERATOR)
    approver = console.logged_in("bob", Role.APPROVER)
    number = planned(console)
    page = operator.get(f"/jobs/{number}").text
    assert "/etc/nginx/nginx.conf" in page
    assert '<span class="added">+new</span>' in page
    assert "s4lt" not in page
    assert "d1g3st" not in page + operator.get(f"/api/jobs/{number}").text
    answer = post(operator, "/jobs", kind="apply", plan=str(number))
    address = answer.headers["location"]
    console.queue.look()
    assert console.started == []
    assert 'id="approve"' not in operator.get(address).text
    assert post(operator, f"{address}/approve").status_code == 403
    # Whoever approves sees what is planned on the same page.
    page = approver.get(address).text
    assert 'id="approve"' in page
    assert '<span class="added">+new</span>' in page
    assert post(approver, f"{address}/approve").status_code == 303
    assert post(approver, f"{address}/approve").status_code == 409
    console.queue.look()
    assert console.started == [number + 1]
    assert log(console.audit)[3:] == [
        ("ann", "job.ask", "ok"),
        ("bob", "job.approve", "ok"),
        ("ann", "job.begin", "ok"),
    ]
    console.jobs.end(number + 1, End(State.FAILED, "cdn: nginx: no"))
    last = console.audit.search("job.apply")[0]
    assert (last.result, last.target) == ("failed", f"job {number + 1}: apply")
    assert last.detail == f"plan of job {number}; approved by bob; why cdn: nginx: no"
    assert console.audit.verify().broken is None


def test_an_approver_does_not_approve_an_own_wish_and_an_admin_does(console: Console) -> None:
    approver, admin = console.logged_in("bob", Role.APPROVER), console.logged_in("eve", Role.ADMIN)
    address = post(approver, "/jobs", kind="back").headers["location"]
    assert 'id="approve"' not in approver.get(address).text
    assert post(approver, f"{address}/approve").status_code == 403
    assert log(console.audit)[-1] == ("bob", "job.approve", "refused")
    assert console.jobs.get(1).state == State.ASKED
    own = post(admin, "/jobs", kind="back", release="1c0ae4").headers["location"]
    assert post(admin, f"{own}/approve").status_code == 303
    assert console.jobs.get(2).state == State.QUEUED


def test_only_a_plan_that_changes_something_can_be_applied(console: Console) -> None:
    browser = console.logged_in("ann", Role.OPERATOR)
    number = planned(console, Plan("x", (), "s", {"cdn": ()}, {"cdn": ""}, "", "", ""))
    assert 'id="apply"' not in browser.get(f"/jobs/{number}").text
    for plan, status in ((str(number), 409), ("99", 404), ("", 422), ("x", 422)):
        assert post(browser, "/jobs", kind="apply", plan=plan).status_code == status
    console.jobs.ask(ANN, "", Wanted(Kind.DRIFT))
    assert post(browser, "/jobs", kind="apply", plan=str(number + 1)).status_code == 409
    for form in (
        {},
        {"kind": "nonsense"},
        {"kind": "plan", "limit": "$(x)"},
        {"kind": "back", "release": "/"},
    ):
        assert post(browser, "/jobs", **form).status_code == 422


def test_what_has_not_begun_is_withdrawn_and_what_has_is_not(console: Console) -> None:
    ann, other = console.logged_in("ann", Role.OPERATOR), console.logged_in("joe", Role.OPERATOR)
    address = post(ann, "/jobs", kind="drift").headers["location"]
    assert post(other, f"{address}/withdraw").status_code == 403
    assert post(ann, f"{address}/withdraw").status_code == 303
    console.queue.look()
    assert console.started == []
    address = post(ann, "/jobs", kind="drift").headers["location"]
    console.queue.look()
    assert post(ann, f"{address}/withdraw").status_code == 409
    assert [one[1:] for one in log(console.audit)][1:3] == [
        ("job.withdraw", "refused"),
        ("job.withdraw", "ok"),
    ]


def test_programs_ask_and_are_told(console: Console) -> None:
    browser = console.logged_in("eve", Role.ADMIN)

    def send(path: str, **body: Any) -> Any:
        return browser.post(path, json=body, headers={"X-CSRF-Token": csrf(browser)})

    number = planned(console)
    assert send("/api/jobs", kind="nonsense").status_code == 422
    assert send("/api/jobs", kind="plan", limit=["a b"]).status_code == 422
    made = send("/api/jobs", kind="apply", plan=number)
    assert (made.status_code, made.json()["state"]) == (201, "asked")
    assert send(f"/api/jobs/{made.json()['id']}/approve").json()["state"] == "queued"
    assert send(f"/api/jobs/{made.json()['id']}/withdraw").json()["state"] == "withdrawn"
    found = browser.get(f"/api/jobs/{number}").json()
    assert found["hosts"][0]["differences"][0]["what"] == "/etc/nginx/nginx.conf"
    assert [one["kind"] for one in browser.get("/api/jobs").json()] == ["apply", "plan"]
    assert browser.get("/api/jobs/99").status_code == 404


# What is shown


def test_hostile_text_is_shown_as_text(console: Console) -> None:
    browser = console.logged_in("ann", Role.OPERATOR)
    worst = Difference(HOSTILE, HOSTILE, HOSTILE, HOSTILE, ["", "", HOSTILE, f"+{HOSTILE}"])
    number = planned(console, Plan("x", (), "s", {HOSTILE: (worst,)}, {HOSTILE: ""}, "", "", ""))
    console.jobs.ask(ANN, "", Wanted(Kind.BACKUP))
    console.jobs.begin()
    console.jobs.told(number + 1, 3, 9, HOSTILE, [HOSTILE])
    pages = [browser.get(f"/jobs/{one}").text for one in (number, number + 1)]
    console.jobs.end(number + 1, End(State.FAILED, HOSTILE, log=HOSTILE))
    pages += [browser.get(f"/jobs/{number + 1}").text, browser.get("/jobs").text]
    assert all("<img" not in one for one in pages)
    assert ["&lt;img" in one for one in pages] == [True, True, True, False]


def live(browser: TestClient, id: int, state: str) -> list[str]:
    """What the server sends, until it ends the answer."""
    answer = browser.get(f"/jobs/{id}/live", params={"state": state})
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [one for one in answer.text.split("\n\n") if one]


def test_progress_is_sent_until_the_job_is_in_another_state(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "LIVE_S", 0.2)
    monkeypatch.setattr(job_pages, "_LOOK_S", 0.05)
    browser = console.logged_in("ann", Role.OPERATOR)
    assert post(browser, "/jobs", kind="plan").status_code == 303
    assert 'data-live="/jobs/1/live?state=queued"' in browser.get("/jobs/1").text
    console.jobs.begin()
    console.jobs.told(1, 3, 9, HOSTILE, ["1 of 9  cdn: nginx", HOSTILE])
    # The page is of before: it is to be loaded again.
    assert live(browser, 1, "queued") == ["retry: 1000", "event: end\ndata: running"]
    _, *parts = live(browser, 1, "running")
    # Once, as nothing new was told, and nothing that a job says is an event of its own.
    assert len(parts) == 1
    assert all(line.startswith("data: ") for line in parts[0].splitlines())
    assert "1 of 9  cdn: nginx" in parts[0]
    assert 'value="3"' in parts[0]
    assert "<html" not in parts[0]
    console.jobs.end(1, End(State.DONE))
    assert live(browser, 1, "running")[-1] == "event: end\ndata: done"
    assert "data-live" not in browser.get("/jobs/1").text
    assert console.logged_in("vic", Role.VIEWER).get("/jobs/1/live").status_code == 403


def test_the_list_that_is_asked_for_again_is_no_whole_page(console: Console) -> None:
    browser = console.logged_in("ann", Role.OPERATOR)
    post(browser, "/jobs", kind="drift", limit="cdn edge")
    part = browser.get("/jobs", headers={"X-Part": "1"}).text
    assert "<html" not in part
    assert "cdn edge" in part
    assert "Проверка расхождений" in browser.get("/jobs", headers={"Accept-Language": "ru"}).text


def test_old_jobs_lose_their_details_and_keep_their_number(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitrix_console.jobs._DETAILED", 1)
    number = planned(console)
    assert console.jobs.result(number)
    console.jobs.ask(ANN, "", Wanted(Kind.APPLY, plan=number))
    assert console.jobs.result(number) is None
    assert console.jobs.get(number).found == 1


# What the process of a job makes of what the library says


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (HostError("cdn: no route"), State.FAILED, "cdn: no route"),
        (UsageError("x.py: no such inventory"), State.FAILED, "x.py: no such inventory"),
        (HeldError("cdn: held by bob"), State.REFUSED, "cdn: held by bob"),
        (BackupError("cdn: no space", Status.DISK_FULL), State.FAILED, "cdn: no space"),
        (BackupError("cdn: locked", Status.LOCKED), State.REFUSED, "cdn: locked"),
        (OSError(28, "No space left on device"), State.FAILED, "[Errno 28] No space left on device"),
        (KeyError("cdn"), State.FAILED, "KeyError: 'cdn'"),
        (KeyboardInterrupt(), State.INTERRUPTED, "it was interrupted"),
    ],
)
def test_how_a_job_ends_that_raises(error: BaseException, state: State, why: str) -> None:
    def work() -> End:
        raise error

    found = ended(work)
    assert (found.state, found.why) == (state, why)


def test_progress_that_can_not_be_kept_does_not_end_the_deploy(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OperationalError("", {}, Exception("database or disk is full"))

    monkeypatch.setattr(console.jobs, "told", full)
    run = Run(console.jobs, 1, "x", 0)
    run.step(Step(1, 2, "nginx"))
    run.step(Step(1, 2, "nginx", ("cdn",)))
    run.say("cdn: done")


def test_an_apply_does_the_plan_that_was_approved_and_keeps_the_queue_locked(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Hosts:
        def close(self) -> None:
            pass

    def applied(hosts: object, wanted: Plan, step: Any, *, holding: Any) -> executing.Executed:
        calls.append((wanted, holding))
        step(Step(1, 1, "nginx", ("cdn",)))
        return executing.Executed({"cdn": ("nginx",)}, 1.0, Path("/log"))

    monkeypatch.setattr(applying, "apply", applied)
    monkeypatch.setattr(job_process, "load", lambda _: Hosts())
    number = planned(console)
    job = console.jobs.ask(ANN, "", Wanted(Kind.APPLY, plan=number))
    found = job_process.apply(Run(console.jobs, job.id, "shop.py", 7), job)
    assert (found.state, found.found, found.log) == (State.DONE, 1, "/log")
    assert calls == [(PLAN, [7])]
    assert console.jobs.lines(job.id) == ["1 of 1  cdn: nginx"]
    assert of_data(as_data(PLAN), "") == PLAN


def test_a_deploy_that_begins_keeps_what_it_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    def run(*_: object, **more: Any) -> Result:
        given.update(more)
        return Result(connected=frozenset({"cdn"}))

    monkeypatch.setattr("bitrix_cdn.fleet.deploys.run", run)
    monkeypatch.setattr(executing, "LOGS", tmp_path)
    executing.execute("x", "deploy.py", ["cdn"], lambda _: None, holding=[7])
    assert given["holding"] == [7]


class Opened:
    """An inventory without hosts that answer."""

    groups = {"cdn": ("cdn-1",)}  # noqa: RUF012

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()
    monkeypatch.setattr(job_process, "load", lambda _: found)
    return found


def done(console: Console, wanted: Wanted) -> Job:
    """A job that was done as its process does it."""
    number = console.jobs.ask(ANN, "", wanted).id
    if wanted.kind in CHANGING:
        console.jobs.approve(who("eve", Role.ADMIN), "", number)
    job = console.jobs.begin()
    assert job
    assert job.id == number
    console.jobs.end(
        number, ended(lambda: job_process.WORK[job.kind](Run(console.jobs, number, "shop.py", 7), job))
    )
    return console.jobs.get(number)


def test_a_plan_is_kept_as_it_was_made(
    console: Console, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def make(_: object, limit: list[str]) -> Plan:
        limits.append(limit)
        return PLAN

    monkeypatch.setattr("bitrix_cdn.deploy.plan.make", make)
    job = done(console, Wanted(Kind.PLAN, ("cdn", "edge")))
    result = console.jobs.result(job.id)
    assert (job.state, job.found, limits, opened.closed) == (State.DONE, 1, [["cdn", "edge"]], True)
    assert result
    assert result.plan
    assert of_data(result.plan, "") == PLAN
    [host] = result.hosts
    assert (host["name"], host["error"], host["differences"]) == ("cdn", None, [vars(CHANGE)])


@pytest.mark.parametrize(
    ("limit", "monitoring", "published"), [((), ["cdn"], True), (("cdn",), ["cdn"], False), ((), [], False)]
)
def test_a_drift_check_of_all_hosts_is_published(
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    limit: tuple[str, ...],
    monitoring: list[str],
    published: bool,
) -> None:
    told: list[Report] = []
    report = Report("x", [HostReport("cdn", differences=[CHANGE])], 0.0, 1.0, "/metrics", monitoring)
    monkeypatch.setattr("bitrix_cdn.drift.run.check", lambda *_: report)
    monkeypatch.setattr("bitrix_cdn.drift.publish.publish", told.append)
    job = done(console, Wanted(Kind.DRIFT, limit))
    assert (job.state, job.found, told) == (State.DONE, 1, [report] if published else [])
    result = console.jobs.result(job.id)
    assert result
    assert result.hosts[0]["differences"][0]["what"] == CHANGE.what


def test_a_drift_check_that_left_a_host_out_or_was_not_published_has_failed(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(_: Report) -> None:
        raise HostError("the result could not be published: no")

    report = Report("x", [HostReport("cdn", failed="no route")], 0.0, 1.0, "/metrics", ["cdn"])
    monkeypatch.setattr("bitrix_cdn.drift.run.check", lambda *_: report)
    monkeypatch.setattr("bitrix_cdn.drift.publish.publish", publish)
    job = done(console, Wanted(Kind.DRIFT))
    assert job.state == State.FAILED
    assert job.why == "cdn: could not be checked: no route\nthe result could not be published: no"


@pytest.mark.parametrize("fails", [False, True])
def test_a_backup_fails_when_that_of_one_host_does(
    console: Console, opened: Opened, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def run(_: object, limit: list[str], say: Any, complain: Any) -> None:
        say(f"{limit[0]}: backup 1c0ae4")
        if fails:
            complain(BackupError("edge: no space"))

    monkeypatch.setattr("bitrix_cdn.backup.fleet.of", lambda _: None)
    monkeypatch.setattr("bitrix_cdn.backup.tasks.run", run)
    job = done(console, Wanted(Kind.BACKUP, ("cdn",)))
    assert (job.state, job.why) == ((State.FAILED, "edge: no space") if fails else (State.DONE, ""))
    assert console.jobs.lines(job.id) == ["cdn: backup 1c0ae4"]


@pytest.mark.parametrize(("release", "data"), [("", {}), ("1c0ae4", {"release": "1c0ae4"})])
def test_a_way_back_is_that_of_the_command(
    console: Console, opened: Opened, monkeypatch: pytest.MonkeyPatch, release: str, data: dict[str, str]
) -> None:
    calls = []

    def execute(*given: Any, **more: Any) -> executing.Executed:
        calls.append((given[:3], more))
        return executing.Executed({"cdn-1": ("release",)}, 1.0, Path("/log"))

    monkeypatch.setattr(executing, "execute", execute)
    job = done(console, Wanted(Kind.BACK, release=release))
    assert (job.state, job.found, job.log) == (State.DONE, 1, "/log")
    assert calls == [(("shop.py", "rollback.py", ("cdn-1",)), {"data": data, "holding": [7]})]


# Real processes

CHILD = """
import subprocess, sys, time
from pathlib import Path
from bitrix_console.job_process import main
from bitrix_console.jobs import CHANGING, End, State

place = Path(sys.argv[1]).parent

def waits(run, job):
    run.say("half of it")
    (place / "begun").touch()
    while not (place / "go").exists():
        time.sleep(0.02)
    return End(State.DONE, found=2)

def deploys(run, job):
    # As the worker that runs pyinfra.
    script = f"touch {place}/begun; while [ ! -e {place}/go ]; do sleep 0.02; done"
    subprocess.run(["sh", "-c", script], pass_fds=[run.lock], check=True)
    return End(State.DONE)

main(*sys.argv[1:5], works={"drift": waits, "backup": deploys})
"""

CONSOLE = """
import subprocess, sys, time
from pathlib import Path
from bitrix_console.job_queue import Queue
from bitrix_console.jobs import Jobs
from web_kit.audit import Audit
from web_kit.database import Database

file = Path(sys.argv[1])
database = Database(file)

def start(job, lock):
    return subprocess.Popen(
        [sys.executable, "-c", sys.argv[2], str(file), "x", str(job.id), str(lock)],
        pass_fds=[lock], start_new_session=True,
    )

queue = Queue(Jobs(database, Audit(database)), file.with_name("job.lock"), start)
queue.start()
time.sleep(60)
"""


class Place:
    """A database, and processes that have it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "console.db"
        self.lock = directory / "job.lock"
        self.database = Database(self.file)
        for package in ("web_kit", "bitrix_console"):
            self.database.migrate(package)
        self.audit = Audit(self.database)
        self.jobs = Jobs(self.database, self.audit)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, job: Job, lock: int) -> Process:
        command = [sys.executable, "-c", CHILD, str(self.file), "x", str(job.id), str(lock)]
        return self._run(command, pass_fds=[lock], start_new_session=True)

    def console(self) -> subprocess.Popen[bytes]:
        return self._run([sys.executable, "-c", CONSOLE, str(self.file), CHILD])

    def _run(self, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
        self.processes.append(subprocess.Popen(command, cwd=ROOT, **more))
        return self.processes[-1]

    def queue(self) -> Queue:
        """Of a console that starts anew."""
        return Queue(self.jobs, self.lock, self.start)

    def go(self) -> None:
        (self.file.parent / "go").touch()

    def begun(self) -> bool:
        return (self.file.parent / "begun").exists()

    def is_free(self) -> bool:
        with free(self.lock) as lock:
            return lock is not None

    def ask(self, kind: Kind) -> int:
        return self.jobs.ask(ANN, "here", Wanted(kind)).id


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.go()
    for process in found.processes:
        process.kill()
        process.wait()
    wait_until("no job has the lock", found.is_free)


def test_a_job_goes_on_when_its_console_is_killed_and_its_end_is_known(place: Place) -> None:
    first, second = place.ask(Kind.DRIFT), place.ask(Kind.DRIFT)
    console = place.console()
    wait_until("the job runs", place.begun)
    os.kill(console.pid, signal.SIGKILL)
    console.wait()
    queue = place.queue()
    queue.look()
    # It is neither called lost nor done, and nothing else begins.
    assert [place.jobs.get(one).state for one in (first, second)] == [State.RUNNING, State.QUEUED]
    place.go()
    wait_until("it ends", lambda: place.jobs.get(first).state, lambda state: state != State.RUNNING)
    job = place.jobs.get(first)
    assert (job.state, job.found, place.jobs.lines(first)) == (State.DONE, 2, ["half of it"])
    wait_until("its process is gone", place.is_free)
    queue.look()
    wait_until("the next one ends", lambda: place.jobs.get(second).state == State.DONE)
    assert log(place.audit)[2:] == [
        ("ann", "job.begin", "ok"),
        ("ann", "job.drift", "ok"),
        ("ann", "job.begin", "ok"),
        ("ann", "job.drift", "ok"),
    ]


def test_a_job_whose_process_is_killed_is_interrupted_and_not_done(place: Place) -> None:
    number = place.ask(Kind.DRIFT)
    queue = place.queue()
    queue.look()
    wait_until("the job runs", place.begun)
    [process] = place.processes
    os.kill(process.pid, signal.SIGKILL)
    wait_until("its process is gone", place.is_free)
    queue.look()
    job = place.jobs.get(number)
    assert (job.state, bool(job.ended)) == (State.INTERRUPTED, True)
    assert "bitrix-cdn log" in job.why
    assert log(place.audit)[-1] == ("ann", "job.drift", "failed")
    assert "interrupted" in place.audit.search("job.drift")[0].detail


def test_nothing_begins_while_the_deploy_of_a_killed_job_goes_on(place: Place) -> None:
    first, second = place.ask(Kind.BACKUP), place.ask(Kind.DRIFT)
    queue = place.queue()
    queue.look()
    wait_until("the deploy runs", place.begun)
    [process] = place.processes
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    queue.look()
    assert [place.jobs.get(one).state for one in (first, second)] == [State.RUNNING, State.QUEUED]
    place.go()
    wait_until("the deploy ends", place.is_free)
    queue.look()
    assert place.jobs.get(first).state == State.INTERRUPTED
    wait_until("the next one ends", lambda: place.jobs.get(second).state == State.DONE)


def test_two_consoles_of_one_database_begin_one_job(place: Place) -> None:
    numbers = [place.ask(Kind.DRIFT), place.ask(Kind.DRIFT)]
    one, other = place.queue(), place.queue()
    one.look()
    other.look()
    one.look()
    assert [place.jobs.get(number).state for number in numbers] == [State.RUNNING, State.QUEUED]


def test_a_job_that_was_to_begin_when_the_console_was_killed_is_not_done(place: Place) -> None:
    number = place.ask(Kind.DRIFT)
    place.jobs.begin()  # and no process was started
    place.queue().look()
    assert place.jobs.get(number).state == State.INTERRUPTED


def test_a_process_that_can_not_be_started_fails_its_job(place: Place) -> None:
    def start(*_: object) -> Process:
        raise OSError(12, "Cannot allocate memory")

    number = place.ask(Kind.DRIFT)
    Queue(place.jobs, place.lock, start).look()
    job = place.jobs.get(number)
    assert (job.state, job.why) == (State.FAILED, "it could not be started: Cannot allocate memory")


@pytest.mark.parametrize("kind", [Kind.PLAN, Kind.DRIFT, Kind.BACKUP])
def test_the_real_process_tells_in_one_line_what_is_wrong_with_the_inventory(
    place: Place, kind: Kind
) -> None:
    inventory = place.file.with_name("shop.py")
    inventory.write_text("cdn = [\n")
    number = place.ask(kind)
    Queue(place.jobs, place.lock, starter(place.file, str(inventory))).look()
    wait_until("it ends", lambda: place.jobs.get(number).state, lambda state: state != State.RUNNING)
    job = place.jobs.get(number)
    assert job.state == State.FAILED
    assert re.search(r"shop\.py:1: SyntaxError: ", job.why)
    assert "\n" not in job.why

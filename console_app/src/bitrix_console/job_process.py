"""The process of one job: it calls what the command calls, and keeps in the database how far it is and how it
ended. Its life does not depend on the console's, which starts it: :mod:`bitrix_console.job_queue`.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from bitrix_cdn.fleet import HostError, Inventory, UsageError, errors, load
from bitrix_cdn.fleet.results import Step
from host_agent.backup.errors import BackupError, Status
from pyinfra.api.exceptions import PyinfraError
from sqlalchemy.exc import SQLAlchemyError
from web_kit.audit import Audit
from web_kit.database import Database

from bitrix_console.jobs import End, Jobs, Kind, State
from bitrix_console.models import Job

_PROGRESS_S = 0.5
"""Between two writes of how far a job is, unless there is more to tell."""


class Run:
    """A job that runs."""

    def __init__(self, jobs: Jobs, id: int, inventory: str, lock: int) -> None:
        self.jobs = jobs
        self.id = id
        self.inventory = inventory
        self.lock = lock
        """What a deploy keeps open to its end, so that nothing else begins even if this process is killed."""
        self._written = 0.0

    def step(self, one: Step) -> None:
        """Keeps an operation's begin or its changes."""
        if one.changed:
            self._tell(one, [f"{one.number} of {one.total}  {', '.join(one.changed)}: {one.name}"])
        elif one.changed is None and time.monotonic() - self._written > _PROGRESS_S:
            self._tell(one)

    def say(self, text: str) -> None:
        self._tell(Step(0, 0, ""), [text])

    def _tell(self, one: Step, lines: list[str] | None = None) -> None:
        try:
            self.jobs.told(self.id, one.number, one.total, one.name, lines or ())
        except SQLAlchemyError:
            # What can't be told is no reason to end a deploy in its middle.
            traceback.print_exc()
        self._written = time.monotonic()


Work = Callable[[Run, Job], End]
"""Does what a job is about; raises what the library raises."""


def plan(run: Run, job: Job) -> End:
    from bitrix_cdn.deploy import plan as plans

    with _Opened(run.inventory) as hosts:
        found = plans.make(hosts, job.limit.split())
    data = plans.as_data(found)
    shown = [{"name": name, "error": None, "differences": data["hosts"][name]} for name in found.hosts]
    return End(State.DONE, found=found.count, hosts=shown, plan=data)


def apply(run: Run, job: Job) -> End:
    from bitrix_cdn.deploy import plan as plans
    from bitrix_cdn.deploy.apply import apply as apply_plan

    result = run.jobs.result(job.plan_id)
    if result is None or result.plan is None:
        raise UsageError("the plan is not kept any more; make it again")
    wanted = plans.of_data(result.plan, f"job {job.plan_id}")
    with _Opened(run.inventory) as hosts:
        done = apply_plan(hosts, wanted, run.step, holding=[run.lock])
    return End(State.DONE, found=sum(map(len, done.changed.values())), log=str(done.log))


def back(run: Run, job: Job) -> End:
    from bitrix_cdn.deploy.execute import execute

    with _Opened(run.inventory) as hosts:
        names = hosts.groups["cdn"]
    data = {"release": job.release} if job.release else {}
    done = execute(run.inventory, "rollback.py", names, run.step, data=data, holding=[run.lock])
    return End(State.DONE, found=sum(map(len, done.changed.values())), log=str(done.log))


def drift(run: Run, job: Job) -> End:
    from bitrix_cdn.drift import publish, report
    from bitrix_cdn.drift import run as drifts

    found = drifts.check(run.inventory, job.limit.split())
    failed = [f"{host.name}: could not be checked: {host.failed}" for host in found.hosts if host.failed]
    if not job.limit and found.metrics and found.monitoring:
        # As the timer does: the overview and the alerts have it from there.
        try:
            publish.publish(found)
        except HostError as error:
            failed.append(str(error))
    return End(
        State.FAILED if failed else State.DONE,
        "\n".join(failed),
        found=sum(len(host.differences) for host in found.hosts),
        hosts=json.loads(report.as_json(found))["hosts"],
    )


def backup(run: Run, job: Job) -> End:
    from bitrix_cdn.backup import fleet, tasks

    failed: list[str] = []
    with _Opened(run.inventory) as hosts:
        tasks.run(fleet.of(hosts), job.limit.split(), run.say, lambda error: failed.append(str(error)))
    return End(State.FAILED if failed else State.DONE, "\n".join(failed))


WORK: Mapping[str, Work] = {
    Kind.PLAN: plan,
    Kind.APPLY: apply,
    Kind.BACK: back,
    Kind.DRIFT: drift,
    Kind.BACKUP: backup,
}


class _Opened:
    """An inventory, read again for each job, with connections that are closed in the end."""

    def __init__(self, file: str) -> None:
        self._hosts = load(file)

    def __enter__(self) -> Inventory:
        return self._hosts

    def __exit__(self, *_: object) -> None:
        self._hosts.close()


def ended(work: Callable[[], End]) -> End:
    """How work ends, whatever it raises."""
    try:
        return work()
    except errors.RefusedError as error:
        return End(State.REFUSED, str(error))
    except BackupError as error:
        held = error.status in (Status.LOCKED, Status.LIVE)
        return End(State.REFUSED if held else State.FAILED, str(error))
    except (HostError, OSError, PyinfraError) as error:
        return End(State.FAILED, str(error))
    except KeyboardInterrupt:
        return End(State.INTERRUPTED, "it was interrupted")
    except Exception as error:
        traceback.print_exc()
        return End(State.FAILED, f"{type(error).__name__}: {error}")


def main(database: str, inventory: str, id: str, lock: str, works: Mapping[str, Work] = WORK) -> None:
    """Does one job that has begun.

    :param database: its file.
    :param id: of the job.
    :param lock: descriptor of the file that is locked while a job runs.
    """
    # They log what is kept here in one line.
    for library in ("paramiko", "pyinfra"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    opened = Database(Path(database))
    jobs = Jobs(opened, Audit(opened))
    job = jobs.get(int(id))
    if job.state != State.RUNNING:
        raise SystemExit(f"job {id} has not begun, or is over: {job.state}")
    run = Run(jobs, job.id, inventory, int(lock))
    jobs.end(job.id, ended(lambda: works[job.kind](run, job)))

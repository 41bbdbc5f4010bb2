"""The pool with workers that are made to fail: the path tells what to do."""

from __future__ import annotations

import ctypes
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from converter_app.tests.harness import children_of, wait_until

from webp_converter.base.processes import start_fork_server
from webp_converter.config import Config, Store, Workers
from webp_converter.queue.jobs import Job
from webp_converter.queue.outcome import Outcome
from webp_converter.variants.store import StoreError, Temporary
from webp_converter.work import pool
from webp_converter.work.convert import convert
from webp_converter.work.pool import Answer, Failure, Pool
from webp_converter.work.worker import Order, Report


def misbehave(orders: Sequence[Order]) -> list[Report | str]:
    reports: list[Report | str] = []
    for order in orders:
        if order.path == b"crash":
            ctypes.string_at(0)
        if order.path == b"hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        if order.path == b"doze":
            time.sleep(0.5)
        if order.path == b"eat":
            try:
                bytearray(2 << 30)
            except MemoryError:
                reports.append("MemoryError")
                continue
        detail = f"{os.getpid()} {len(orders)} {resource.getrlimit(resource.RLIMIT_AS)[0]}"
        reports.append(Report(Outcome.FRESH, order.path, detail=detail))
    return reports


class Answers:
    def __init__(self, config: Config, temporary: bytes) -> None:
        self._queue: queue.SimpleQueue[Sequence[tuple[Job, Answer]]] = queue.SimpleQueue()
        self.pool = Pool(config, temporary, self._queue.put, misbehave)
        self._number = 0

    def submit(self, *paths: bytes) -> None:
        jobs = []
        for path in paths:
            self._number += 1
            jobs.append(Job(path, 0, entry=str(self._number)))
        self.pool.submit(jobs)

    def get(self, count: int) -> dict[bytes, Answer]:
        answers: dict[bytes, Answer] = {}
        deadline = time.monotonic() + 15
        while len(answers) < count:
            assert time.monotonic() < deadline
            try:
                pairs = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            for job, answer in pairs:
                assert job.path not in answers
                answers[job.path] = answer
        return answers


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> None:
    start_fork_server()


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    config = Config(workers=Workers(count=2, time_limit_s=1, memory_limit_mib=1024))
    temporary = Temporary(tmp_path / "tmp")
    answers = Answers(config, temporary.path)
    yield answers
    answers.pool.close()


def test_every_job_is_answered_once(answers: Answers) -> None:
    for k in range(50):
        answers.submit(b"%d" % k)
    assert set(answers.get(50)) == {b"%d" % k for k in range(50)}
    assert len(answers.pool) == 0


def test_workers_are_kept_and_limited(answers: Answers) -> None:
    for k in range(20):
        answers.submit(b"%d" % k)
    details = [answer.detail.split() for answer in answers.get(20).values() if isinstance(answer, Report)]
    assert len({pid for pid, _, _ in details}) <= 2
    assert {int(limit) for _, _, limit in details} == {1 << 30}


def test_a_crash_costs_its_job_one_try_and_nothing_else(answers: Answers) -> None:
    answers.submit(b"1", b"crash", b"2")
    answers.submit(b"3")
    result = answers.get(4)
    failure = result.pop(b"crash")
    assert isinstance(failure, Failure)
    assert failure.counts
    assert "crashed" in failure.reason
    assert all(isinstance(answer, Report) for answer in result.values())
    assert answers.pool.replaced == 2  # in company, and then alone


def test_a_hang_is_ended(answers: Answers) -> None:
    answers.submit(b"hang")
    answers.submit(b"1")
    result = answers.get(2)
    failure = result[b"hang"]
    assert isinstance(failure, Failure)
    assert failure == Failure("not done after 1 s", counts=True)
    assert isinstance(result[b"1"], Report)


def test_memory_is_limited(answers: Answers) -> None:
    answers.submit(b"eat", b"1")
    result = answers.get(2)
    assert result[b"eat"] == Failure("MemoryError", counts=True)
    assert isinstance(result[b"1"], Report)


def test_idle_workers_killed_from_outside(answers: Answers) -> None:
    answers.submit(b"1")
    answer = answers.get(1)[b"1"]
    assert isinstance(answer, Report)
    worker = int(answer.detail.split()[0])
    parent = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in children_of(parent):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: answers.pool.replaced)
    answers.submit(b"2")
    result = answers.get(1)[b"2"]
    assert isinstance(result, Report)


def test_the_server_that_workers_are_forked_from_dies_while_one_starts(tmp_path: Path) -> None:
    """Another server is started, and the pool goes on."""
    answers = Answers(Config(workers=Workers(count=1)), Temporary(tmp_path / "tmp").path)
    try:
        answers.submit(b"1")
        answer = answers.get(1)[b"1"]
        assert isinstance(answer, Report)
        worker = int(answer.detail.split()[0])
        server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not answers.pool.workers)
        answers.submit(b"2")
        wait_until(lambda: waits_for_the_server(answers.pool))
        os.kill(server, signal.SIGKILL)
        assert isinstance(answers.get(1)[b"2"], Report)
        assert answers.pool.alive
    finally:
        answers.pool.close()


def waits_for_the_server(pool: Pool) -> bool:
    """Whether the pool's thread has asked for a process and waits for its number."""
    stack = traceback.extract_stack(sys._current_frames()[pool._thread.ident or 0])
    return stack[-1].name == "read_signed"


def test_small_pictures_travel_together_large_ones_alone(answers: Answers) -> None:
    assert answers.pool.wait_for_room(1, 0) == 1
    assert answers.pool.wait_for_room(100, 0) == 1  # nothing is known yet
    answers.pool._job_ms = 5
    assert answers.pool.wait_for_room(100, 0) == 10
    assert answers.pool.wait_for_room(8, 0) == 2  # spread over the workers
    answers.pool._job_ms = 200
    assert answers.pool.wait_for_room(100, 0) == 1


def test_room_is_limited(answers: Answers) -> None:
    for _ in range(4):
        assert answers.pool.wait_for_room(1, 0)
        answers.submit(b"hang")
    assert answers.pool.wait_for_room(1, 0.05) == 0


def hang_for_ever(directory: str) -> None:
    """A daemon whose worker hangs inside C, deaf to everything but SIGKILL."""
    start_fork_server()
    pool = Pool(Config(), Temporary(Path(directory)).path, print, misbehave)
    pool.submit([Job(b"hang", 0, entry="1")])
    time.sleep(60)


def test_a_hanging_worker_dies_with_a_killed_daemon(tmp_path: Path) -> None:
    program = f"from converter_app.tests.test_pool import hang_for_ever as f; f({str(tmp_path / 'tmp')!r})"
    daemon = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: any(children_of(pid) for pid in children_of(daemon.pid)))
    workers = [pid for server in children_of(daemon.pid) for pid in children_of(server)]
    # SIGTERM is ignored once the job has begun.
    ignored = re.compile(r"SigIgn:\s+\w*[4567cdef]\w{3}\n")
    wait_until(lambda: any(ignored.search(Path(f"/proc/{pid}/status").read_text()) for pid in workers))
    daemon.kill()
    daemon.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), timeout_s=5)


def test_the_first_worker_comes_with_the_first_work_and_the_last_goes_with_it(tmp_path: Path) -> None:
    workers = Workers(count=2, minimum=0, idle_s=1)
    answers = Answers(Config(workers=workers), Temporary(tmp_path / "tmp").path)
    try:
        assert answers.pool.workers == 0
        answers.submit(b"1")
        answers.get(1)
        assert answers.pool.workers == 1
        answers.submit(b"doze")
        answers.submit(b"3")
        wait_until(lambda: answers.pool.workers == 2)
        assert set(answers.get(2)) == {b"doze", b"3"}
        wait_until(lambda: answers.pool.workers == 0)
        answers.submit(b"2")
        assert isinstance(answers.get(1)[b"2"], Report)
        assert answers.pool.replaced == 0
    finally:
        answers.pool.close()


def refuse(*_: object) -> None:
    raise OSError("no processes left")


def test_a_pool_whose_workers_do_not_start_says_so_and_goes_on_when_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_Worker", refuse)
        answers = Answers(Config(workers=Workers(count=1)), Temporary(tmp_path / "tmp").path)
        answers.submit(b"1")
        wait_until(lambda: answers.pool.problem == "workers don't start: no processes left")
    try:
        assert isinstance(answers.get(1)[b"1"], Report)
        assert answers.pool.problem == ""
    finally:
        answers.pool.close()


def test_converting_by_hand_ends_where_no_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"owner": "root", "group": "root"} if os.geteuid() == 0 else {}
    root = tmp_path / "resize_cache"
    root.mkdir()
    store = Store.model_validate({"root": root, "temporary": tmp_path / "tmp", **owner})
    monkeypatch.setattr(pool, "_Worker", refuse)
    with pytest.raises(StoreError, match="no processes left"):
        list(convert(Config(store=store), [os.fsencode(root / "photo.jpg")]))

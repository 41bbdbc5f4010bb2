from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from converter_app.tests.harness import RedisServer

from webp_converter.config import Queue
from webp_converter.jobs import GROUP, Done, Job, Jobs, Priority


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("jobs") / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def raw(server: RedisServer) -> redis.Redis:
    client = redis.Redis(unix_socket_path=str(server.socket))
    client.flushall()
    return client


@pytest.fixture
def jobs(server: RedisServer, raw: redis.Redis) -> Jobs:
    return consumer(server, "one")


def consumer(server: RedisServer, name: str) -> Jobs:
    jobs = Jobs(Queue(url=server.url, consumer=name, claim_idle_s=1))
    jobs.ensure_group()
    return jobs


PATH = b"/a/\xff\n photo.jpg"


def test_one_entry_a_path(jobs: Jobs) -> None:
    assert jobs.push([Job(PATH, 1), Job(b"/b", 2), Job(PATH, 3)]) == 2
    fetched = jobs.fetch(10, 0)
    assert [job.path for job in fetched] == [PATH, b"/b"]
    assert fetched[0].event_ns == 1
    jobs.finish([Done(job) for job in fetched])
    assert jobs.push([Job(PATH, 4)]) == 1


def test_a_change_during_the_work_is_queued_after_it(jobs: Jobs) -> None:
    jobs.push([Job(PATH, 1)])
    [job] = jobs.fetch(1, 0)
    assert jobs.push([Job(PATH, 2)]) == 0
    assert jobs.fetch(1, 0) == []
    jobs.finish([Done(job)])
    [again] = jobs.fetch(1, 0)
    assert (again.path, again.event_ns) == (PATH, 2)
    jobs.finish([Done(again)])
    assert jobs.fetch(1, 0) == []


def test_high_before_normal_before_low(jobs: Jobs) -> None:
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        jobs.push([Job(priority.encode(), 1, priority)])
    assert [job.path for job in jobs.fetch(2, 0)] == [b"high", b"normal"]


def test_a_waiting_job_moves_up_never_down(jobs: Jobs) -> None:
    jobs.push([Job(PATH, 1, Priority.LOW), Job(b"/b", 1, Priority.HIGH)])
    jobs.push([Job(PATH, 2, Priority.HIGH), Job(b"/b", 2, Priority.LOW)])
    assert jobs.lengths() == {"high": 2, "normal": 0, "low": 0, "later": 0, "dead": 0}
    assert {job.path for job in jobs.fetch(10, 0)} == {PATH, b"/b"}


def test_fetch_waits_for_the_first_job(jobs: Jobs, server: RedisServer) -> None:
    started = time.monotonic()
    assert jobs.fetch(1, 0.2) == []
    assert 0.15 < time.monotonic() - started < 2


def test_what_was_begun_is_found_again(jobs: Jobs, server: RedisServer) -> None:
    jobs.push([Job(PATH, 1), Job(b"/b", 1)])
    first, second = jobs.fetch(2, 0)
    restarted = consumer(server, "one")
    assert restarted.unfinished(set()) == [first, second]
    assert restarted.unfinished({first.entry}) == [second]


def test_a_dead_consumer_s_jobs_are_claimed(jobs: Jobs, server: RedisServer) -> None:
    jobs.push([Job(PATH, 1), Job(b"/b", 1)])
    alive, dead = jobs.fetch(2, 0)
    other = consumer(server, "two")
    for _ in range(4):
        time.sleep(0.4)
        jobs.keep_alive([alive])
    assert other.claim(set()) == [dead]
    assert other.claim(set()) == []


def test_put_off(jobs: Jobs) -> None:
    jobs.push([Job(PATH, 1)])
    [job] = jobs.fetch(1, 0)
    jobs.finish([Done(job, job._replace(rested="8-5-3@10", tries=2), after_s=0.3)])
    assert jobs.lengths()["later"] == 1
    assert 0.2 < (jobs.queue_due() or 0) <= 0.3
    assert jobs.fetch(1, 0) == []
    time.sleep(0.31)
    assert jobs.queue_due() is None
    [again] = jobs.fetch(1, 0)
    assert (again.path, again.event_ns, again.rested, again.tries) == (PATH, 1, "8-5-3@10", 2)


def test_a_change_overtakes_what_was_put_off(jobs: Jobs) -> None:
    jobs.push([Job(PATH, 1)])
    [job] = jobs.fetch(1, 0)
    jobs.finish([Done(job, job, after_s=60)])
    assert jobs.push([Job(PATH, 2)]) == 1
    assert jobs.lengths()["later"] == 0
    assert [job.event_ns for job in jobs.fetch(10, 0)] == [2]


def test_a_change_during_the_work_outdoes_a_pause(jobs: Jobs) -> None:
    jobs.push([Job(PATH, 1)])
    [job] = jobs.fetch(1, 0)
    jobs.push([Job(PATH, 2)])
    jobs.finish([Done(job, job, after_s=60)])
    assert [job.event_ns for job in jobs.fetch(10, 0)] == [2]


def test_dead_letters(jobs: Jobs, raw: redis.Redis) -> None:
    jobs.push([Job(PATH, 1)])
    [job] = jobs.fetch(1, 0)
    jobs.finish([Done(job._replace(tries=3), dead="worker crashed")])
    assert jobs.lengths() == {"high": 0, "normal": 0, "low": 0, "later": 0, "dead": 1}
    [(_, letter)] = raw.xrange("webp:dead")
    assert letter == {b"path": PATH, b"event": b"1", b"tries": b"3", b"reason": b"worker crashed"}


def test_nothing_is_left_behind(jobs: Jobs, raw: redis.Redis) -> None:
    jobs.push([Job(b"/%d" % k, k) for k in range(100)])
    while fetched := jobs.fetch(32, 0):
        jobs.finish([Done(job) for job in fetched])
    assert raw.hlen("webp:paths") == 0
    assert all(raw.xlen(f"webp:{priority}") == 0 for priority in Priority)
    assert raw.xpending("webp:normal", GROUP)["pending"] == 0


def test_an_entry_deleted_by_hand_blocks_nothing(jobs: Jobs, raw: redis.Redis) -> None:
    jobs.push([Job(PATH, 1)])
    raw.delete("webp:normal")
    jobs.ensure_group()
    assert jobs.push([Job(PATH, 2)]) == 1
    assert len(jobs.fetch(1, 0)) == 1


def test_a_flush_is_survived(jobs: Jobs, raw: redis.Redis) -> None:
    jobs.push([Job(PATH, 1)])
    raw.flushall()
    with pytest.raises(redis.RedisError):
        jobs.fetch(1, 0)
    jobs.ensure_group()
    assert jobs.push([Job(PATH, 2)]) == 1

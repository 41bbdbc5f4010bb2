from __future__ import annotations

import os
import time

import pytest
import redis
from converter_app.tests.harness import RedisServer

from webp_converter.config import Queue
from webp_converter.queue.jobs import GROUP, Done, Job, Jobs, Letter, Priority, Rest
from webp_converter.variants.store import Identity


@pytest.fixture
def jobs(server: RedisServer, raw: redis.Redis) -> Jobs:
    return consumer(server, "one")


def consumer(server: RedisServer, name: str) -> Jobs:
    jobs = Jobs(Queue(**server.settings("queue"), consumer=name, claim_idle_s=1))
    jobs.ensure_group()
    return jobs


PATH = b"/a/\xff\n photo.jpg"
REST = Rest(Identity(8, -5, 3), 10)


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
    jobs.finish([Done(job, job._replace(rest=REST, tries=2), after_s=0.3)])
    assert jobs.lengths()["later"] == 1
    assert 0.2 < (jobs.queue_due() or 0) <= 0.3
    assert jobs.fetch(1, 0) == []
    time.sleep(0.31)
    assert jobs.queue_due() is None
    [again] = jobs.fetch(1, 0)
    assert (again.path, again.event_ns, again.rest, again.tries) == (PATH, 1, REST, 2)


def test_what_a_picture_was_put_off_for_is_read_as_it_was_written() -> None:
    for rest in (
        REST,
        Rest(Identity(1, 1_764_000_000_123_456_789, 9), 60.5),
        Rest(REST.identity, float("inf")),
    ):
        assert Rest.parse(rest.pack()) == rest
    assert Rest.parse("8-5-3@10") == Rest(Identity(8, 5, 3), 10), "as the last version wrote it"
    assert Rest.parse("") is Rest.parse("8-5@1") is Rest.parse("8-5-3@") is None


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


def given_up(jobs: Jobs, path: bytes = PATH, reason: str = "worker crashed") -> Letter:
    """A dead letter of a path."""
    jobs.push([Job(path, 1)])
    [job] = jobs.fetch(1, 0)
    jobs.finish([Done(job._replace(tries=3), dead=reason, traceback="Traceback:\n  line 1")])
    return jobs.letters()[-1]


def test_dead_letters(jobs: Jobs) -> None:
    before = time.time()
    letter = given_up(jobs)
    assert jobs.lengths() == {"high": 0, "normal": 0, "low": 0, "later": 0, "dead": 1}
    assert letter == Letter(
        id=letter.id,
        path=os.fsdecode(PATH),
        reason="worker crashed",
        tries=3,
        given_up_at=int(letter.id.split("-")[0]) / 1000,
        consumer="one",
        traceback="Traceback:\n  line 1",
        asked_at=1e-9,
    )
    assert before - 1 < letter.given_up_at < time.time() + 1
    assert jobs.letter(letter.id) == letter
    assert (jobs.is_dead(PATH), jobs.is_dead(b"/b")) == (True, False)
    assert jobs.letter("1-1") is None


def test_a_reason_of_any_characters_is_kept(jobs: Jobs) -> None:
    assert given_up(jobs, reason="a\udcff\nb").reason == "a\\udcff\nb"


def test_one_letter_a_path(jobs: Jobs) -> None:
    first, second = given_up(jobs), given_up(jobs, reason="again")
    assert jobs.letters() == [second]
    assert jobs.letter(first.id) is None


def test_letters_page_by_page(jobs: Jobs) -> None:
    ids = [given_up(jobs, b"/%d" % k).id for k in range(5)]
    first = jobs.letters(count=3)
    assert [letter.id for letter in [*first, *jobs.letters(after=first[-1].id)]] == ids


def test_put_back_with_all_tries_anew(jobs: Jobs, raw: redis.Redis) -> None:
    letter = given_up(jobs)
    assert jobs.retry([letter.id, "1-1"]) == 1
    [job] = jobs.fetch(10, 0)
    assert (job.path, job.tries, job.priority) == (PATH, 0, Priority.HIGH)
    assert abs(job.event_ns - time.time_ns()) < 60e9
    assert jobs.letters() == []
    assert raw.hlen("webp:letters") == 0
    assert jobs.retry([letter.id]) == 0


def test_dropped(jobs: Jobs, raw: redis.Redis) -> None:
    letter = given_up(jobs)
    assert jobs.drop([letter.id]) == 1
    assert jobs.drop([letter.id]) == 0
    assert jobs.letters() == []
    assert raw.hlen("webp:letters") == 0
    assert jobs.fetch(1, 0) == []


@pytest.mark.parametrize(("settled", "left"), [(True, 0), (False, 1)])
def test_a_letter_goes_when_its_picture_is_published_after_all(jobs: Jobs, settled: bool, left: int) -> None:
    given_up(jobs)
    jobs.push([Job(PATH, 2)])
    [job] = jobs.fetch(1, 0)
    jobs.finish([Done(job, settled=settled)])
    assert len(jobs.letters()) == left


def test_overview(jobs: Jobs, server: RedisServer) -> None:
    empty = jobs.overview()
    assert {name: (s.length, s.oldest_s) for name, s in empty.streams.items()} == {
        "high": (0, None),
        "normal": (0, None),
        "low": (0, None),
    }
    given_up(jobs, b"/dead")
    jobs.push([Job(PATH, 1), Job(b"/waits", 1), Job(b"/later", 1), Job(b"/low", 1, Priority.LOW)])
    taken, _, later = jobs.fetch(3, 0)
    jobs.finish([Done(later, later._replace(tries=2), after_s=60)])
    consumer(server, "two").fetch(1, 0)
    view = jobs.overview()
    assert {name: (s.length, s.under_way) for name, s in view.streams.items()} == {
        "high": (0, 0),
        "normal": (2, 2),
        "low": (1, 1),
    }
    assert 0 <= (view.streams["normal"].oldest_s or -1) < 60
    assert [(c.name, c.under_way) for c in view.consumers] == [("one", 2), ("two", 1)]
    assert {(job.path, job.priority, job.consumer) for job in view.running} == {
        (os.fsdecode(taken.path), "normal", "one"),
        ("/waits", "normal", "one"),
        ("/low", "low", "two"),
    }
    [put_off] = view.next
    assert (put_off.path, put_off.tries, 50 < put_off.due_s <= 60) == ("/later", 2, True)
    assert (view.later, view.dead) == (1, 1)


def test_overview_before_any_daemon(server: RedisServer, raw: redis.Redis) -> None:
    view = Jobs(Queue(**server.settings("queue"))).overview()
    assert (view.consumers, view.running, view.next, view.dead) == ([], [], [], 0)


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

"""What the dispatcher takes up after an outage of Redis."""

from __future__ import annotations

import threading
from unittest.mock import Mock

import redis

from webp_converter.config import Config
from webp_converter.queue.in_hand import InHand
from webp_converter.queue.jobs import Job
from webp_converter.queue.state import QueueState
from webp_converter.work.dispatcher import Dispatcher


def test_a_job_that_ends_just_when_redis_is_reached_is_taken_up_again() -> None:
    """Redis wasn't told of its end, as it was away still, and it was in hand still when it was asked for."""
    stopping, in_hand, state = threading.Event(), InHand(), QueueState(threading.Event())
    job = Job(b"1.jpg", 0, entry="1-0")
    in_hand.take([job])
    in_hand.waiting.clear()  # a worker has it
    jobs = Mock()

    def unfinished(known: set[str]) -> list[Job]:
        if known:
            in_hand.finished([job])
            state.lost(redis.ConnectionError("it was away when pictures were done"))
            return []
        return [job]

    jobs.unfinished.side_effect = unfinished
    jobs.claim.return_value = []
    jobs.queue_due.return_value = None
    pool = Mock()

    def enough(*_: object) -> int:
        stopping.set()
        return 0

    pool.wait_for_room.side_effect = enough
    Dispatcher(Config(), jobs, state, in_hand, Mock(problem=""), pool).run(stopping)
    assert in_hand.waiting == [job]
    assert not state.problem

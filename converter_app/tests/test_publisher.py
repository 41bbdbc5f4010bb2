"""What the publisher tells the rest of the daemon, and when."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import redis

from webp_converter.base.stopping import Stopping
from webp_converter.config import Config, Store
from webp_converter.queue.in_hand import InHand
from webp_converter.queue.jobs import Job
from webp_converter.queue.outcome import Outcome
from webp_converter.queue.state import QueueState
from webp_converter.work.pool import Answer, Answered, Failure
from webp_converter.work.publisher import Publisher
from webp_converter.work.records import Records
from webp_converter.work.trees import Trees
from webp_converter.work.worker import Report


class World:
    """A publisher among things that are not there."""

    def __init__(self, directory: Path) -> None:
        config = Config(store=Store(root=directory / "upload", temporary=directory / "tmp"))
        self.jobs = Mock()
        self.in_hand = InHand()
        self.state = Mock(spec=QueueState, problem="")
        self.stopping = Stopping()
        self._answers: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self.publisher = Publisher(
            config,
            Mock(spec=Trees, publish=Mock(return_value=[]), originals=Mock(holds=lambda _: False)),
            self.jobs,
            Records(*[Mock()] * 4),
            self._answers,
            self.in_hand,
            self.state,
            Mock(problem=""),
            Mock(),
        )

    def answer(self, answer: Answer) -> None:
        """Has one job answered so, and the publisher run until that is seen to."""
        job = Job(b"1.jpg", 0, entry="1-0")
        self.in_hand.take([job])
        self._answers.put([(job, answer)])
        threading.Timer(0.5, self.stopping.set).start()
        self.publisher.run(self.stopping)


@pytest.mark.parametrize("away", [True, False], ids=["away", "lost amid it"])
def test_jobs_that_redis_did_not_hear_of_are_no_longer_in_hand_when_that_is_told(
    away: bool, tmp_path: Path
) -> None:
    """Else what looks for unfinished jobs at that moment takes them for jobs in hand, and leaves them."""
    world = World(tmp_path)
    world.jobs.finish.side_effect = redis.ConnectionError
    world.state.problem = "Redis is away" if away else ""
    in_hand: list[dict[str, Job]] = []
    world.state.lost = lambda _: in_hand.append(world.in_hand.jobs())
    world.answer(Failure("it was killed", counts=False))
    assert in_hand == [{}]


def test_a_decoder_that_refuses_good_pictures_has_the_daemon_fail(tmp_path: Path) -> None:
    """It counts as a try all the same, and the queue is told."""
    world = World(tmp_path)
    world.answer(Report(Outcome.BROKEN, b"1.jpg", detail="no decoder"))
    assert world.stopping.failed
    [[done]] = [call.args[0] for call in world.jobs.finish.call_args_list]
    assert done.again.tries == 1

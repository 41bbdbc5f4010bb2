"""What the publisher tells the rest of the daemon, and when."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import redis

from webp_converter.config import Config, Store
from webp_converter.queue.jobs import Job
from webp_converter.work.pool import Failure
from webp_converter.work.publisher import DaemonHooks, Publisher, Records, Trees


@pytest.mark.parametrize("away", [True, False], ids=["away", "lost amid it"])
def test_jobs_that_redis_did_not_hear_of_are_no_longer_under_way_when_that_is_told(
    away: bool, tmp_path: Path
) -> None:
    """Else what looks for unfinished jobs at that moment takes them for jobs under way, and leaves them."""
    config = Config(store=Store(root=tmp_path / "upload", temporary=tmp_path / "tmp"))
    jobs, trees = Mock(), Mock(spec=Trees, publish=Mock(return_value=[]))
    jobs.finish.side_effect = redis.ConnectionError
    under_way: list[dict[str, Job]] = []
    hooks = DaemonHooks(
        waiting=lambda: False,
        queue_away=lambda: away,
        disk_full=lambda: False,
        queue_lost=lambda _: under_way.append(publisher.jobs()),
        no_space=Mock(),
        broken=Mock(),
    )
    publisher = Publisher(config, trees, jobs, Records(*[Mock()] * 5), hooks)
    publisher.answered([(Job(b"1.jpg", 0, entry="1-0"), Failure("it was killed", counts=False))])
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    publisher.run(stopping)
    assert under_way == [{}]

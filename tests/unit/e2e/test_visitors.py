"""The share of what visitors ask for that is slow, or fails."""

from __future__ import annotations

from itertools import cycle, islice

import pytest

from tests.e2e.visitors import mixed


@pytest.mark.parametrize("share", [0.0035, 0.3, 0.45, 0.97])
def test_a_share_of_the_paths_is_bad_at_any_time(share: float) -> None:
    bad = 0
    for asked, path in enumerate(islice(mixed(cycle("b"), "g", share), 5000), 1):
        bad += path == "b"
        assert share * asked - 1 <= bad <= share * asked
    assert bad > 0


def test_they_end_with_the_bad_ones_each_asked_for_once() -> None:
    assert [path for path in mixed("abc", "g", 0.5) if path != "g"] == ["a", "b", "c"]

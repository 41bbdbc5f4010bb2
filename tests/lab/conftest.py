"""Labs for tests: names of their own, gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kit.lab import LabDriver


@pytest.fixture(scope="session")
def main_lab() -> Iterator[LabDriver]:
    """The lab that most tests share. Each leaves both hosts running and joined."""
    # The process number keeps two test runs on one machine apart.
    lab = LabDriver(f"test-main-{os.getpid()}")
    lab.run("up")
    yield lab
    lab.run("down")
    assert lab.remains() == []


@pytest.fixture
def new_lab(request: pytest.FixtureRequest) -> Iterator[LabDriver]:
    """A lab of the test's own, not started."""
    lab = LabDriver(f"test-own-{os.getpid()}")
    yield lab
    lab.run("down")
    assert lab.remains() == []

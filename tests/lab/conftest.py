"""Labs for tests: names of their own, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.driver import LabUnderTest


@pytest.fixture(scope="session")
def main_lab() -> Iterator[LabUnderTest]:
    """The lab that most tests share. Each leaves both hosts running and joined."""
    lab = LabUnderTest("main")
    lab.run("up")
    yield lab
    lab.run("down")
    assert lab.remains() == []


@pytest.fixture
def new_lab(request: pytest.FixtureRequest) -> Iterator[LabUnderTest]:
    """A lab of the test's own, not started."""
    lab = LabUnderTest("own")
    yield lab
    lab.run("down")
    assert lab.remains() == []

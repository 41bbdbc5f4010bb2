"""Seeded schedules of faults, and an oracle that is shown to see: bugs are planted into the converter.

A few in `make test`, the others by night, half of them a stage, more by `make oracle`. One is played again by
its number: `python -m tests.oracle --seed N --show`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.oracle.converter import GRACE_S, play
from tests.oracle.schedules import DIRECTORIES, Step, schedule

AT_ONCE = 3
BY_NIGHT = 200

SEEDS = [
    pytest.param(
        seed,
        marks=() if seed <= AT_ONCE else pytest.mark.long,
        id=f"{seed}-{'odd' if seed % 2 else 'even'}",
    )
    for seed in range(1, BY_NIGHT + 1)
]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_nothing_is_lost_and_nobody_gets_another_picture(seed: int, tmp_path: Path) -> None:
    steps = schedule(seed)
    problems = play(steps, tmp_path)
    assert not problems, "\n".join([f"seed {seed}", *problems[:20]])


PICTURE, OTHER = (f"{DIRECTORIES[0]}/{name}.jpg" for name in ("picture", "other"))
WRITTEN = Step("write", PICTURE, version=21930, pause_s=1.5)
ANOTHER = Step("write", OTHER, version=13158, pause_s=0.5)
REWRITTEN = Step("rewrite", PICTURE, version=43605, pause_s=0.5)
REMOVED = Step("remove", PICTURE, pause_s=0.5)

_UNNOTICED = """
real = store.Store.remove_stale
def remove_stale(self, path):
    if os.path.exists(path):
        return real(self, path)
    return store.Stale(False, False, 0)
store.Store.remove_stale = remove_stale
"""
_FOR_EVER = """
store.Store.remove_stale = lambda self, path: store.Stale(
    os.path.exists(path), os.path.exists(path + store.WEBP), 0
)
"""
_MIXED_UP = """
real, before = store.Store.write, []
def write(self, data, *arguments, **options):
    before.append(data or (before or [b""])[0])
    return real(self, before[0] if data else data, *arguments, **options)
store.Store.write = write
"""
_HALF = """
real = store.Store.write
def write(self, data, *arguments, **options):
    return real(self, data[:len(data) // 2], *arguments, **options)
store.Store.write = write
"""
_GREEDY = """
real = store.Store.publish
def publish(self, batch):
    found = real(self, batch)
    for finished in batch:
        os.unlink(finished.path)
    return found
store.Store.publish = publish
"""


@pytest.mark.parametrize(
    ("bug", "steps", "words"),
    [
        pytest.param(_UNNOTICED, [WRITTEN, REMOVED], ["its original is gone"], id="a removal unnoticed"),
        pytest.param(
            _MIXED_UP,
            [WRITTEN, ANOTHER],
            ["which was never there", "made from version"],
            id="another's variant",
        ),
        pytest.param(
            _FOR_EVER,
            [WRITTEN, REWRITTEN, Step("rest", pause_s=GRACE_S)],
            ["describes another original", "due to be gone at"],
            id="a stale variant-odd",
            marks=pytest.mark.long,
        ),
        pytest.param(
            _HALF,
            [WRITTEN],
            ["that is no whole picture", "webp: no whole picture"],
            id="half a variant-odd",
            marks=pytest.mark.long,
        ),
        pytest.param(
            _GREEDY,
            [WRITTEN],
            ["acknowledged and is lost"],
            id="the picture itself-even",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_bug_that_is_planted_is_found(
    bug: str, steps: Sequence[Step], words: Sequence[str], tmp_path: Path
) -> None:
    """Python imports `sitecustomize` before anything else: in the daemon, and in all that it starts."""
    planted = tmp_path / "bug"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(f"import os\nfrom webp_converter.variants import store\n{bug}")
    place = tmp_path / "place"
    place.mkdir()
    path = os.pathsep.join([str(planted), os.environ.get("PYTHONPATH", "")])
    problems = play(steps, place, settled_s=1.5, PYTHONPATH=path)
    for wanted in words:
        assert any(wanted in problem for problem in problems), problems

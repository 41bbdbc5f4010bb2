"""Seeded schedules of faults, and an oracle that is shown to see: bugs are planted into the converter.

A few in `make test`, the others by night, half of them a stage, more by `make oracle`. One is played again by
its number: `python -m tests.oracle --seed N --show`.
"""

from __future__ import annotations

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
LARGE = WRITTEN._replace(number=200)  # AVIF isn't smaller than WebP for a tiny picture
ANOTHER = Step("write", OTHER, version=13158, pause_s=0.5)
REWRITTEN = Step("rewrite", PICTURE, version=43605, pause_s=0.5)
REMOVED = Step("remove", PICTURE, pause_s=0.5)
UP = Step("wait for the daemon")
POWER_LOSS = (Step("cut the power"), Step("start the daemon"), UP)

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
_UNSYNCED = """
real = store.Store._synced
def unsynced(self, finished):
    sync, os.fdatasync = os.fdatasync, lambda fd: None
    try:
        return real(self, finished)
    finally:
        os.fdatasync = sync
store.Store._synced = unsynced
"""
_AVIF_UNSYNCED = _UNSYNCED.replace("._synced", "._sync_avif")
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
            _UNSYNCED,
            [WRITTEN, *POWER_LOSS],
            ["that is no whole picture", "webp: no whole picture"],
            id="a variant that nobody synced",
        ),
        pytest.param(
            _AVIF_UNSYNCED,
            [Step("restart the daemon with AVIF"), UP, LARGE, *POWER_LOSS],
            ["that is no whole picture", "avif: no whole picture"],
            id="AVIF that nobody synced-even",
            marks=pytest.mark.long,
        ),
        pytest.param(
            _FOR_EVER,
            [WRITTEN, REWRITTEN, UP._replace(pause_s=GRACE_S)],
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
    bug = f"import os\nfrom webp_converter.variants import store\n{bug}"
    problems = play(steps, tmp_path, settled_s=1.5, bug=bug)
    for wanted in words:
        assert any(wanted in problem for problem in problems), problems

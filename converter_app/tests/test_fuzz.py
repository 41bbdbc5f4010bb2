"""A short run of the fuzzer, and proof that it finds what there is to find."""

from __future__ import annotations

import ctypes
import io
import os
import time
from pathlib import Path

import pytest
from dev.fuzz import Fuzzer, image_path, mutant, originals, repaired
from PIL import Image

from webp_converter.config import Encoding

EXECUTIONS = 1000


def test_nothing_is_found_in_a_short_run() -> None:
    fuzzer = Fuzzer(seed=3)
    fuzzer.run(seconds=600, executions=EXECUTIONS, processes=2)
    assert fuzzer.findings == []
    assert sum(fuzzer.outcomes.values()) == EXECUTIONS
    # It gets as far as the encoder, and past the header's checks.
    assert fuzzer.outcomes["variant"] > EXECUTIONS / 100
    assert fuzzer.outcomes["damaged"] > EXECUTIONS / 100


def test_originals_are_whole_pictures_of_every_format() -> None:
    formats = {Image.open(io.BytesIO(data)).format for data in originals().values()}
    assert formats == {"JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"}
    assert image_path(originals()["jpeg"], Encoding()) == "variant"


def test_a_mutant_is_the_same_each_time_and_like_no_other() -> None:
    mutants = [mutant(5, number).data for number in range(50)]
    assert mutants == [mutant(5, number).data for number in range(50)]
    assert len(set(mutants)) > 45
    assert mutants != [mutant(6, number).data for number in range(50)]


def test_checksums_are_repaired() -> None:
    whole = originals()["png"]
    assert repaired(whole) == whole
    broken = whole[:29] + b"\0\0\0\0" + whole[33:]
    assert repaired(broken) == whole


def misbehave(data: bytes, encoding: Encoding) -> str:
    """What a decoder with a bug might do, now and then."""
    kind = sum(data) % 40
    if kind == 1:
        ctypes.string_at(0)
    if kind == 2:
        time.sleep(60)
    if kind == 3:
        os._exit(7)
    if kind == 4:
        raise KeyError("a decoder's own mistake")
    if kind == 5:
        bytearray(2 << 30)
    return "fine"


@pytest.fixture(scope="module")
def found() -> Fuzzer:
    fuzzer = Fuzzer(seed=1, target=misbehave, limit_s=0.2)
    fuzzer.run(seconds=600, executions=300, processes=2)
    return fuzzer


@pytest.mark.parametrize(
    "outcome", ["SIGSEGV", "not done after 0.2 s", "exit status 7", "KeyError", "MemoryError"]
)
def test_every_kind_of_misbehaviour_is_a_finding(found: Fuzzer, outcome: str) -> None:
    number = {"SIGSEGV": 1, "not done after 0.2 s": 2, "exit status 7": 3, "KeyError": 4, "MemoryError": 5}
    findings = [finding for finding in found.findings if finding.outcome.startswith(outcome)]
    expected = [k for k in range(300) if sum(mutant(1, k).data) % 40 == number[outcome]]
    assert expected
    assert sorted(finding.number for finding in findings) == expected


def test_a_finding_can_be_repeated(found: Fuzzer, tmp_path: Path) -> None:
    finding = next(finding for finding in found.findings if finding.outcome.startswith("KeyError"))
    path = found.save(finding, tmp_path / "findings")
    assert path.read_bytes() == mutant(1, finding.number).data
    text = path.with_name(path.name + ".txt").read_text()
    assert f"--seed 1 --only {finding.number}" in text
    assert "a decoder's own mistake" in text

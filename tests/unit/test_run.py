"""The test command: its stages, and the one summary of all of them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import run
from tests.kit.deployment import ROOT
from tests.kit.support import wait_until

GOOD = """
def test_good(record_testsuite_property):
    record_testsuite_property('figure', 'one: 7 s (figure: 9)')
"""
BAD = "def test_bad():\n    assert 1 == 2, 'two is not one'\n"
BROKEN = """
import pytest
@pytest.fixture
def hosts():
    raise RuntimeError('no hosts')
def test_it(hosts):
    pass
"""
DIES = "import os\ndef test_that_kills():\n    os._exit(7)\n"


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of these tests need none, and load faster without."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def stage(place: Path, name: str, text: str) -> run.Stage:
    file = place / f"test_{name}.py"
    file.write_text(text)
    return run.Stage(name, f"what is {name}", 1, (str(file), "-p", "no:cacheprovider", f"--rootdir={place}"))


def finished(place: Path, capsys: pytest.CaptureFixture[str], **tests: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a run of these."""
    status = run._run([stage(place, name, text) for name, text in tests.items()], 2, place)
    return status, capsys.readouterr().out.splitlines()


def test_all_good_ends_with_pytests_own_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = finished(tmp_path, capsys, one=GOOD, two=GOOD)
    assert status == 0
    assert re.fullmatch(r"=+ 2 passed in \d+\.\d\ds \(0:00:\d\d\) =+", lines[-1]), lines[-1]
    assert lines.count("one: 7 s (figure: 9)") == 2
    assert any("10 slowest of 2" in line for line in lines)
    assert any(line.startswith("one | begins: what is one; about 1 min") for line in lines)
    assert any("2 of 2 stages" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "counts", "line"),
    [
        (BAD, "1 failed, 1 passed", r"FAILED wrong: .*test_wrong::test_bad - .*two is not one"),
        (BROKEN, "1 passed, 1 error", r"ERROR wrong: .*test_wrong::test_it - .*no hosts.*"),
        (DIES, "1 passed, 1 error", r"ERROR wrong: pytest ended with status 7"),
        ("", "1 passed, 1 error", r"ERROR wrong: pytest ended with status 5"),
    ],
    ids=["failed", "a fixture", "died", "no tests"],
)
def test_what_goes_wrong_in_any_stage_is_the_end_of_all(
    text: str, counts: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = finished(tmp_path, capsys, right=GOOD, wrong=text)
    assert status == 1
    assert f" {counts} in " in lines[-1]
    assert re.fullmatch(line, lines[-2]), lines[-2]


def test_what_ails_all_tests_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = BROKEN + "".join(f"def test_{number}(hosts): pass\n" for number in range(40))
    _, lines = finished(tmp_path, capsys, wrong=text)
    assert " 41 errors in " in lines[-1]
    [line] = [line for line in lines if line.startswith("ERROR wrong")]
    assert line.endswith("(and 40 more)")


def test_a_report_of_an_earlier_run_is_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished(tmp_path, capsys, one=GOOD)[0] == 0
    status, lines = finished(tmp_path, capsys, one=DIES)
    assert status == 1
    assert " 1 error in " in lines[-1]


def test_interrupted_it_ends_its_stages_first(tmp_path: Path) -> None:
    text = f"""
import pathlib, pytest, time
place = pathlib.Path({str(tmp_path)!r})
@pytest.fixture
def hosts():
    (place / "begun").touch()
    yield
    (place / "removed").touch()
def test_slow(hosts):
    time.sleep(600)
"""
    code = (
        f"import pathlib\nfrom tests import run\nplace = pathlib.Path({str(tmp_path)!r})\n"
        f"raise SystemExit(run._run([run.{stage(tmp_path, 'slow', text)!r}], 1, place))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_until("the test", (tmp_path / "begun").exists, timeout=60)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "removed").exists()
    assert " in " in output.splitlines()[-1]


def test_every_test_is_in_a_stage_of_test_all() -> None:
    """Each directory, and each marker that another stage leaves out."""
    every = run.stages(None, every=True)
    named = {argument for stage in every for argument in stage.arguments}
    directories = {f"tests/{path.parent.name}" for path in ROOT.glob("tests/*/test_*.py")}
    # `make upgrade-test` has two releases, and what `molecule` does around it.
    assert directories - named == {"tests/upgrade"}
    apart = {argument.removeprefix("--ignore=") for argument in named if argument.startswith("--ignore=")}
    # `make soak`.
    assert apart - named == {"tests/e2e/test_soak.py"}
    assert {
        stage.arguments[stage.arguments.index("-m") + 1] for stage in every if "-m" in stage.arguments
    } == {
        "not long and not edges",
        "long",
        "edges",
    }


@pytest.mark.parametrize("every", [False, True])
def test_what_takes_longest_begins_first(every: bool) -> None:
    minutes = [stage.minutes for stage in run.stages(None, every=every)]
    assert minutes == sorted(minutes, reverse=True)


def test_labs_have_names_of_their_own() -> None:
    every = [stage.name for stage in run.stages(None, every=True)]
    assert len(set(every)) == len(every)


def test_make_test_grows_no_further() -> None:
    """The goal is 25 minutes; by the stages as they were measured it takes 27."""
    assert run.expected_minutes(run.stages(None, every=False), 3) <= 27


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "unti"], "there is no stage unti: the stages are"),
        (["--jobs", "0"], "1 or more"),
        (["--suite", "woody"], "trixie"),
    ],
)
def test_a_wrong_command_is_one_line(arguments: list[str], says: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert says in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr

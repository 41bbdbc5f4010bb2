"""`make test`: pytest in stages, some side by side, and one summary of all of them.

A stage is one pytest process. Those with hosts wait most of their time, so that the others can compute
meanwhile. Each has labs of another name, thus none depends on another, nor on what an earlier run has left.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dev.lab import layout, state
from dev.lab.errors import LabError

ROOT = Path(__file__).parent.parent
SLOWEST = 10
_MANY = 5
_WIDTH = 100
_PR_SET_PDEATHSIG = 1
_INTERRUPTED = 130


@dataclass(frozen=True)
class Stage:
    """One pytest process."""

    name: str
    what: str
    minutes: float
    """How long it takes beside the others on two idle cores."""

    arguments: tuple[str, ...]
    lab: bool = False
    """It boots hosts: these are called `run-NAME-SUITE`."""


def stages(suite: str | None, *, every: bool) -> list[Stage]:
    """The stages in the order in which they begin: those that take longest first.

    :param suite: the only suite; None: both, of which `make test` runs the second in short.
    :param every: also those that take too long for `make test`.
    """
    suites = [suite] if suite else ["trixie", "bookworm"]
    found = [stage for name in (suites if every else suites[:1]) for stage in _hosts(name, every=every)]
    if every:
        found += [stage for name in suites for stage in _by_night(name)]
    elif not suite:
        chosen = ("-m", "both and not edges", "--suite", "bookworm", "--odd")
        what = "Debian 12, odd hosts: the deploy, again, the checks of all roles, one test of each promise"
        found.append(Stage("bookworm", what, 12.5, ("tests/testinfra", "tests/e2e", *chosen), lab=True))
    found += [
        Stage(
            "converter",
            "the daemon",
            13,
            ("converter_app/tests", "tests/oracle", "-m", "not long and not edges"),
        ),
        Stage("lab", "the lab itself", 2.5, ("tests/lab",), lab=True),
        Stage("unit", "what needs no host", 9, ("tests/unit",)),
    ]
    return sorted(found, key=lambda stage: stage.minutes, reverse=True)


_CHANGES = ("deploy", "releases", "drift", "adopt", "acme", "alerts", "bitrixvm", "backup")
"""Tests that deploy again and again, on their own hosts. The last resets one of them."""

_REPEATED = (
    "tests/e2e/test_backup.py::test_a_path_and_no_pictures",
    "tests/e2e/test_deploy.py::test_bare_hosts_can_be_rehearsed",
)
"""What other tests show as well, or on Debian 12: by night only."""


def _hosts(suite: str, *, every: bool) -> list[Stage]:
    debian = _DEBIAN[suite]
    chosen = ("-m", "not long and not edges", "--suite", suite)
    apart = [f"--ignore=tests/e2e/test_{name}.py" for name in (*_CHANGES, "outages", "soak", "removal")]
    asked = ("tests/testinfra", "tests/e2e", *apart, *chosen)
    repeated = () if every else tuple(f"--deselect={test}" for test in _REPEATED)
    changed = (*(f"tests/e2e/test_{name}.py" for name in _CHANGES), *chosen, *repeated)
    what = "two bare hosts, the deploy"
    again = "again, accidents of deploys, adopting, a host put back from its backup"
    return [
        Stage(f"changes-{suite}", f"{debian}: {what}, {again}", 22, changed, lab=True),
        Stage(suite, f"{debian}: {what}; the checks of all roles, every promise", 17.5, asked, lab=True),
    ]


def _by_night(suite: str) -> list[Stage]:
    debian = _DEBIAN[suite]
    edges = ("tests/edges", "tests/rollout", "tests/testinfra", "-m", "edges", "--suite", suite)
    removal = ("tests/e2e/test_removal.py", "--suite", suite)
    outages = ("tests/e2e/test_outages.py", "--suite", suite)
    alerts = ("tests/e2e", "--ignore=tests/e2e/test_outages.py", "-m", "long", "--suite", suite)
    audit = ("tests/audit", "--suite", suite)
    return [
        Stage(f"audit-{suite}", f"{debian}, five hosts: what known tools say of them", 15, audit, lab=True),
        Stage(
            f"alerts-{suite}",
            f"{debian}: each alert rung by its fault, and what else takes long",
            85,
            alerts,
            lab=True,
        ),
        Stage(f"edges-{suite}", f"{debian}, five hosts: edges, and rollouts killed", 60, edges, lab=True),
        Stage(f"removal-{suite}", f"{debian}: hosts as they were before", 12, removal, lab=True),
        Stage(f"outages-{suite}", f"{debian}: the faults between the hosts", 15, outages, lab=True),
        Stage(f"oracle-{suite}", "the daemon: schedules of faults, by their seeds", 15, _oracle(suite)),
    ]


def _oracle(suite: str) -> tuple[str, ...]:
    """Half of the schedules: they are not about a release of Debian, and at night each stage has a runner."""
    return ("tests/oracle", "-m", "long", "-k", "odd" if suite == "trixie" else "even")


_DEBIAN = {"trixie": "Debian 13", "bookworm": "Debian 12"}


@dataclass
class Result:
    """What became of a stage, as far as its report tells."""

    counts: Counter[str] = field(default_factory=Counter)
    """`passed`, `failed`, `error` and `skipped`."""

    wrong: list[str] = field(default_factory=list)
    durations: list[tuple[float, str]] = field(default_factory=list)
    """Seconds of each test, what it set up and took down included."""

    figures: list[str] = field(default_factory=list)


def read(report: Path, stage: str, status: int) -> Result:
    """Reads a report of pytest, in the form of JUnit.

    :param status: what pytest ended with; when that isn't what the report tells, it is a separate error.
    """
    result = Result()
    try:
        tree = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError):
        tree = ElementTree.Element("testsuites")
    for case in tree.iter("testcase"):
        test = "::".join([case.get("classname", "").replace(".", "/"), case.get("name", "")])
        result.durations.append((float(case.get("time", "0")), f"{stage}: {test}"))
        found = "passed"
        for kind, word in (("skipped", "skipped"), ("failure", "failed"), ("error", "error")):
            for element in case.iter(kind):
                found = word
                if word != "skipped":
                    why = (element.get("message") or "").strip().partition("\n")[0][:160]
                    result.wrong.append(
                        f"{'FAILED' if word == 'failed' else 'ERROR'} {stage}: {test} - {why}"
                    )
        result.counts[found] += 1
    result.figures = [one.get("value", "") for one in tree.iter("property") if one.get("name") == "figure"]
    if status != 0 and not result.wrong:
        result.counts["error"] += 1
        result.wrong.append(f"ERROR {stage}: pytest ended with status {status}")
    return result


def summary(results: Sequence[Result], seconds: float) -> list[str]:
    """The lines at the end: what was measured, was slow, failed, and the counts as pytest has them."""
    lines = []
    figures = [line for result in results for line in result.figures]
    durations = sorted((one for result in results for one in result.durations), reverse=True)
    wrong = [line for result in results for line in _alike(result.wrong)]
    if figures:
        lines += [" figures ".center(_WIDTH, "="), *figures]
    if durations:
        lines.append(f" {SLOWEST} slowest of {len(durations)} ".center(_WIDTH, "="))
        lines += [f"{taken:7.1f} s  {test}" for taken, test in durations[:SLOWEST]]
    if wrong:
        lines += [" what failed ".center(_WIDTH, "="), *wrong]
    counts = sum((result.counts for result in results), Counter[str]())
    words = [
        f"{counts[kind]} {kind}{'s' if kind == 'error' and counts[kind] > 1 else ''}"
        for kind in ("failed", "passed", "skipped", "error")
        if counts[kind]
    ]
    clock = f"{int(seconds // 3600)}:{int(seconds // 60) % 60:02}:{int(seconds) % 60:02}"
    last = f" {', '.join(words) or 'no tests ran'} in {seconds:.2f}s ({clock}) "
    return [*lines, last.center(_WIDTH, "=")]


def _alike(wrong: Sequence[str]) -> list[str]:
    """The same for many tests, such as hosts that didn't come up, is told of the first one."""
    reasons = Counter(line.partition(" - ")[2] for line in wrong)
    told: Counter[str] = Counter()
    found = []
    for line in wrong:
        reason = line.partition(" - ")[2]
        told[reason] += 1
        if told[reason] == 1 or reasons[reason] <= _MANY:
            more = reasons[reason] - 1
            found.append(line if more < _MANY else f"{line} (and {more} more)")
    return found


class Run:
    """Stages being run, a few at a time."""

    def __init__(self, chosen: Sequence[Stage], jobs: int, reports: Path) -> None:
        self._waiting = list(chosen)
        self._chosen = list(chosen)
        self._jobs = jobs
        self._reports = reports
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._started: dict[str, float] = {}
        self._readers: list[threading.Thread] = []
        self._begun = time.monotonic()
        self.results: list[Result] = []

    def finish(self) -> None:
        """Runs all; interrupted, ends what runs and waits until its hosts are gone."""
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._jobs:
                    self._start(self._waiting.pop(0))
                self._collect()
                time.sleep(0.2)
        except KeyboardInterrupt:
            self._waiting.clear()
            print("interrupted: the hosts are being removed", flush=True)
            for process in self._running.values():
                process.send_signal(signal.SIGINT)
            while self._running:
                self._collect()
                time.sleep(0.2)
            raise
        finally:
            for reader in self._readers:
                reader.join()

    def _start(self, stage: Stage) -> None:
        self._say(stage.name, f"begins: {stage.what}; about {stage.minutes:g} min")
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", *stage.arguments, "--color=no"),
                f"--junitxml={self._report(stage.name)}",
                *(("--prefix", f"run-{stage.name.partition('-')[0]}") if stage.lab else ()),
            ],
            cwd=ROOT,
            # Where Python is told to keep no bytecode, each of the many processes would compile all that it
            # imports, and pytest what it rewrites: 2 s each.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._running[stage.name] = process
        self._started[stage.name] = time.monotonic()
        reader = threading.Thread(target=self._pass_on, args=(stage.name, process))
        reader.start()
        self._readers.append(reader)

    def _report(self, name: str) -> Path:
        return self._reports / f"{name}.xml"

    def _pass_on(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.rstrip():
                self._say(name, text)

    def _say(self, name: str, text: str) -> None:
        print(f"{name:<{max(len(stage.name) for stage in self._chosen)}} | {text}", flush=True)

    def _collect(self) -> None:
        for name, process in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            del self._running[name]
            result = read(self._report(name), name, status)
            self.results.append(result)
            took = (time.monotonic() - self._started[name]) / 60
            [expected] = [stage.minutes for stage in self._chosen if stage.name == name]
            left = len(self._running) + len(self._waiting)
            since = (time.monotonic() - self._begun) / 60
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(result.counts.items()))
            self._say(name, f"ended: {counts or 'nothing ran'}, in {took:.1f} min (expected: {expected:g})")
            self._say(
                name, f"{len(self.results)} of {len(self._chosen)} stages after {since:.1f} min, {left} left"
            )


def _die_with_parent() -> None:
    # What is started in the background has it ignored, and would hand that on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def expected_minutes(chosen: Sequence[Stage], jobs: int) -> float:
    """How long all of them take: each begins when one of the `jobs` before it has ended."""
    ends = [0.0] * jobs
    for stage in chosen:
        ends[ends.index(min(ends))] += stage.minutes
    return max(ends)


def clear_leftovers() -> None:
    """Removes the hosts that runs of before left, which were killed and didn't do so themselves."""
    for place in sorted(layout.state_root().glob("[!.]*")):
        owner = re.fullmatch(r"test-(?:main|own)-(\d+)", place.name)
        if place.name.startswith("run-") or (owner and not Path(f"/proc/{owner[1]}").exists()):
            print(f"removing the lab {place.name} that an earlier run left", flush=True)
            subprocess.run(
                [sys.executable, "-m", "dev.lab", "down"],
                cwd=ROOT,
                env={**os.environ, "LAB_NAME": place.name},
                check=False,
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.run", description="Runs the tests in stages.")
    parser.add_argument("--suite", choices=sorted(_DEBIAN), help="this suite of Debian alone, whole")
    parser.add_argument("--all", action="store_true", help="also what takes too long for `make test`")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="these stages alone")
    parser.add_argument("--jobs", type=int, default=3, help="stages at once (default: 3)")
    parser.add_argument("--list", action="store_true", help="print the names of the stages, and run nothing")
    parser.add_argument(
        "--reports", type=Path, help="keep pytest's reports (JUnit, one a stage) in this directory"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages and returns the exit status: 0 when all passed, 1 when not, 2 for a wrong command."""
    parser = _parser()
    options = parser.parse_args(arguments)
    chosen = stages(options.suite, every=options.all)
    if unknown := set(options.only) - {stage.name for stage in chosen}:
        names = ", ".join(stage.name for stage in chosen)
        parser.error(f"there is no stage {', '.join(sorted(unknown))}: the stages are {names}")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: 1 or more is needed")
    chosen = [stage for stage in chosen if not options.only or stage.name in options.only]
    total = expected_minutes(chosen, options.jobs)
    print(f"{len(chosen)} stages, {options.jobs} at a time; about {total:.0f} minutes on two cores:")
    for stage in chosen:
        print(f"  {stage.name:<18} {stage.minutes:3.0f} min  {stage.what}")
    sys.stdout.flush()
    if options.list:
        return 0
    with ExitStack() as held:
        if any(stage.lab for stage in chosen):
            try:
                held.enter_context(state.locked(layout.state_root() / ".tests.lock", timeout=0))
            except (LabError, OSError) as error:
                print(f"tests: another run has the hosts, or this account may not: {error}", file=sys.stderr)
                return 2
            clear_leftovers()
        reports = options.reports or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="tests-")))
        reports.mkdir(parents=True, exist_ok=True)
        return _run(chosen, options.jobs, reports.resolve())


def _run(chosen: Sequence[Stage], jobs: int, reports: Path) -> int:
    for stage in chosen:
        # Of an earlier run: a stage that dies must not be judged by it.
        (reports / f"{stage.name}.xml").unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    run = Run(chosen, jobs, reports)
    interrupted = False
    try:
        run.finish()
    except KeyboardInterrupt:
        interrupted = True
    print("\n".join(summary(run.results, time.monotonic() - started)), flush=True)
    if interrupted:
        return _INTERRUPTED
    return 1 if any(result.wrong for result in run.results) else 0


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())

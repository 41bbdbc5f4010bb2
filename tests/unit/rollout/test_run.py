"""What a rollout does when, on hosts that only remember what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bitrix_cdn.fleet import HostError
from bitrix_cdn.rollout.rates import Count, Counters
from bitrix_cdn.rollout.record import Record
from bitrix_cdn.rollout.run import Found, Options, Rollout

BATCHES = [("edge1",), ("edge2",), ("cdn",), ("bitrix",), ("balancer",)]
EVERYONE = [host for batch in BATCHES for host in batch]
CHANGED = {"edge1", "edge2", "cdn"}
"""The hosts that the new state differs for."""


class Killed(BaseException):
    """SIGKILL: nothing catches it, nothing is tidied up."""


@dataclass
class Fake:
    """Hosts as the real ones behave, as far as a rollout sees it."""

    fails: str = ""
    """A step and a host, such as `smoke edge1`, that fails."""
    dies: int = -1
    """The number of the action before which the rollout is killed."""
    log: list[str] = field(default_factory=list)
    has_new: set[str] = field(default_factory=set)
    journals: dict[str, bool] = field(default_factory=dict)
    """By host with an open journal, whether it had the new state before."""
    drained: dict[str, str] = field(default_factory=dict)
    errs: dict[str, bool] = field(default_factory=dict)
    """By host, whether it fails its visitors when it has the new state."""
    clock: float = 0.0
    tried: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    served: int = 2
    """The fewest edges that visitors ever had."""

    def act(self, what: str, host: str) -> None:
        if self.dies == len(self.log):
            raise Killed
        self.log.append(f"{what} {host}")
        if self.fails == f"{what} {host}":
            raise HostError(f"{host}: {what} fails")

    def find(self, host: str) -> Found:
        return Found(host in self.journals, self.drained.get(host, ""))

    def can_be_drained(self, host: str) -> bool:
        return host.startswith("edge")

    def rehearse(self, hosts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {host: ["Write it"] if host in CHANGED - self.has_new else [] for host in hosts}

    def others_serve(self, batch: Sequence[str]) -> None:
        if not {"edge1", "edge2"} - set(batch) - set(self.drained):
            raise HostError(f"{', '.join(batch)}: can't be drained")

    def drain(self, host: str) -> None:
        self.act("drain", host)
        self.drained.setdefault(host, "rollout")
        self.served = min(self.served, 2 - len(self.drained))

    def wait_until_idle(self, host: str) -> None:
        self.act("idle", host)
        assert host in self.drained

    def begin(self, host: str) -> None:
        self.act("begin", host)
        self.journals.setdefault(host, host in self.has_new)

    def deploy(self, hosts: Sequence[str]) -> Mapping[str, Sequence[str]]:
        for host in hosts:
            assert host in self.journals
            assert not self.can_be_drained(host) or host in self.drained
            if host in CHANGED:
                self.has_new.add(host)
            self.act("deploy", host)
        return {host: ["Write it"] for host in hosts}

    def smoke(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            self.act("smoke", host)

    def undrain(self, host: str) -> None:
        self.act("undrain", host)
        self.drained.pop(host, None)

    def wait_until_back(self, host: str) -> None:
        self.act("back", host)
        assert host not in self.drained

    def kinds(self, host: str) -> Sequence[str]:
        return [] if host in {"bitrix", "balancer"} else ["requests"]

    def counters(self, host: str) -> Counters:
        if host in {"bitrix", "balancer"}:
            return {}
        return {"requests": Count(self.tried.get(host, 0), self.failed.get(host, 0))}

    def commit(self, host: str) -> None:
        self.act("commit", host)
        self.journals.pop(host, None)

    def undo(self, host: str) -> str:
        self.act("undo", host)
        if not self.journals.pop(host):
            self.has_new.discard(host)
        return "put back 1 paths"

    def wait_until_healthy(self, host: str) -> None:
        self.act("healthy", host)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        for host in {"edge1", "edge2", "cdn"} - set(self.drained):
            requests = round(seconds * 100)
            self.tried[host] = self.tried.get(host, 0) + requests
            if self.errs.get(host) and host in self.has_new:
                self.failed[host] = self.failed.get(host, 0) + requests

    def now(self) -> float:
        return self.clock


Start = Callable[..., Rollout]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Begins a run, with a record as on the operator's disk; that of the run before is let go."""
    records: list[Record] = []
    said: list[str] = []

    def begin(fake: Fake, *, state: str = "new", again: bool = False) -> Rollout:
        for record in records:
            record.close()
        record = Record("inventories/shop.py", tmp_path)
        record.open(state, said.append)
        records.append(record)
        options = Options(watch=30, again=again)
        return Rollout(fake, record, said.append, options, sleep=fake.sleep, clock=fake.now)

    yield begin
    for record in records:
        record.close()


def test_each_host_goes_through_all_steps_before_the_next(start: Start) -> None:
    fake = Fake()
    assert start(fake).run(BATCHES)
    edge = ["drain", "idle", "begin", "deploy", "smoke", "undrain", "back", "commit"]
    assert fake.log == [
        *(f"{step} edge1" for step in edge),
        *(f"{step} edge2" for step in edge),
        *(f"{step} cdn" for step in ("begin", "deploy", "smoke", "commit")),
    ]
    assert fake.has_new == CHANGED
    assert fake.served == 1


def test_hosts_without_a_change_are_not_touched(start: Start) -> None:
    fake = Fake(has_new=set(CHANGED))
    rollout = start(fake)
    assert rollout.run(BATCHES)
    assert fake.log == []
    assert rollout.summary.lines == dict.fromkeys(EVERYONE, "had nothing to change")


def test_they_are_where_it_is_asked_for(start: Start) -> None:
    fake = Fake(has_new=set(CHANGED))
    assert start(fake, again=True).run(BATCHES)
    assert [line for line in fake.log if line.startswith("deploy")] == [f"deploy {host}" for host in EVERYONE]


def test_a_host_of_a_batch_without_a_change_is_left_out(start: Start) -> None:
    fake = Fake(has_new={"edge1"})
    assert start(fake).run([("edge1", "edge2"), ("cdn",)])
    assert not any("edge1" in line for line in fake.log)


def test_all_edges_at_once_are_refused_where_nobody_else_serves(start: Start) -> None:
    fake = Fake()
    rollout = start(fake)
    assert not rollout.run([("edge1", "edge2"), ("cdn",)])
    assert "can't be drained" in rollout.summary.failure
    assert (fake.has_new, fake.drained, fake.journals, fake.served) == (set(), {}, {}, 2)


@pytest.mark.parametrize("step", ["idle", "begin", "deploy", "smoke", "back", "commit"])
@pytest.mark.parametrize("host", ["edge1", "edge2", "cdn"])
def test_a_failure_stops_it_and_only_its_batch_is_undone(start: Start, step: str, host: str) -> None:
    if host == "cdn" and step in {"idle", "back"}:
        pytest.skip("it can't be drained")

    class Once(Fake):
        """The second time, when it is undone, the balancer has it back."""

        def act(self, what: str, host: str) -> None:
            try:
                super().act(what, host)
            finally:
                if self.fails == f"{what} {host}":
                    self.fails = ""

    fake = Once(fails=f"{step} {host}")
    rollout = start(fake)
    assert not rollout.run(BATCHES)
    assert rollout.summary.failure == f"{host}: {step} fails"
    before = set(EVERYONE[: EVERYONE.index(host)])
    assert fake.has_new == before & CHANGED
    assert (fake.drained, fake.journals) == ({}, {})
    assert rollout.summary.half == []
    for later in EVERYONE[EVERYONE.index(host) + 1 :]:
        assert not any(later in line for line in fake.log)
        assert later not in rollout.summary.lines
    assert rollout._record.progress.batch == []


def test_more_errors_than_before_are_a_failure(start: Start) -> None:
    fake = Fake(errs={"edge2": True})
    rollout = start(fake)
    assert not rollout.run(BATCHES)
    assert rollout.summary.failure.startswith(
        "edge2: requests that failed: 3,000 of 3,000 (100.00%), before 0 of"
    )
    assert fake.has_new == {"edge1"}
    # Visitors are led away before it is undone, and come back after it works.
    assert fake.log[-6:] == [
        f"{step} edge2" for step in ("drain", "idle", "undo", "healthy", "undrain", "back")
    ]


def test_a_host_that_can_not_be_watched_is_said(tmp_path: Path) -> None:
    class Silent(Fake):
        def counters(self, host: str) -> Counters:
            return {}

    said: list[str] = []
    record = Record("inventories/shop.py", tmp_path)
    record.open("new", said.append)
    fake = Silent()
    assert Rollout(fake, record, said.append, Options(), sleep=fake.sleep, clock=fake.now).run(BATCHES)
    assert "edge1: reports no requests, which can't be watched" in said
    record.close()


def test_errors_that_were_there_before_are_none_of_its_fault(start: Start) -> None:
    class Failing(Fake):
        def counters(self, host: str) -> Counters:
            return {"requests": Count(self.tried.get(host, 0), self.tried.get(host, 0) // 5)}

    assert start(Failing()).run(BATCHES)


@pytest.mark.parametrize("what", ["undo", "healthy"])
def test_a_host_that_can_not_be_undone_stays_drained_and_is_said(start: Start, what: str) -> None:
    class Failing(Fake):
        def smoke(self, hosts: Sequence[str]) -> None:
            raise HostError("edge1: smoke fails")

    fake = Failing(fails=f"{what} edge1")
    rollout = start(fake)
    assert not rollout.run(BATCHES)
    assert fake.drained == {"edge1": "rollout"}
    assert rollout.summary.half == ["edge1"]
    text = rollout.summary.text(EVERYONE, "bitrix-cdn rollout start", "bitrix-cdn rollout undo")
    assert text[0] == "stopped: edge1: smoke fails"
    assert text[1].split() == f"edge1 NOT UNDONE, stays drained: edge1: {what} fails".split()
    assert text[2].split() == ["edge2", "not", "touched"]
    assert "`bitrix-cdn rollout undo`" in text[-1]
    # So that no other operator deploys onto it meanwhile.
    assert rollout._record.progress.batch == ["edge1"]


def test_killed_before_any_action_and_started_again_it_finishes(start: Start) -> None:
    whole = Fake()
    start(whole).run(BATCHES)
    for moment in range(len(whole.log)):
        fake = Fake(dies=moment)
        with pytest.raises(Killed):
            start(fake, state=f"killed at {moment}").run(BATCHES)
        fake.dies = -1
        finished = list(fake.has_new - set(fake.journals))
        done = len(fake.log)
        assert start(fake, state=f"killed at {moment}").run(BATCHES), fake.log
        assert (fake.has_new, fake.drained, fake.journals) == (CHANGED, {}, {}), fake.log
        assert fake.served == 1, fake.log
        # What was finished isn't done again.
        for host in finished:
            assert not any(host in line for line in fake.log[done:]), fake.log


def test_killed_while_it_undoes_and_started_again_it_comes_to_an_end(start: Start) -> None:
    failing = Fake(errs={"edge1": True})
    start(failing, state="0").run(BATCHES)
    for moment in range(len(failing.log)):
        fake = Fake(dies=moment, errs={"edge1": True})
        with pytest.raises(Killed):
            start(fake, state=f"undo {moment}").run(BATCHES)
        fake.dies = -1
        assert not start(fake, state=f"undo {moment}").run(BATCHES), fake.log
        assert (fake.has_new, fake.drained, fake.journals) == (set(), {}, {}), fake.log


def test_another_edge_is_not_drained_while_one_is_left_drained(start: Start) -> None:
    fake = Fake(dies=4)
    with pytest.raises(Killed):
        start(fake).run(BATCHES)
    assert fake.drained == {"edge1": "rollout"}
    fake.dies = -1
    # With another canary than the first time.
    assert start(fake).run([("edge2",), ("edge1",), ("cdn",)])
    assert fake.served == 1


def test_what_is_left_can_be_taken_back_instead(start: Start) -> None:
    fake = Fake(dies=4)
    with pytest.raises(Killed):
        start(fake).run(BATCHES)
    fake.dies = -1
    rollout = start(fake)
    assert rollout.undo(EVERYONE)
    assert (fake.has_new, fake.drained, fake.journals) == (set(), {}, {})
    assert rollout.summary.lines == {
        **dict.fromkeys(EVERYONE, "nothing was left half changed"),
        "edge1": "undone (put back 1 paths), works as before",
    }


def test_a_host_that_an_operator_drained_is_changed_and_stays_drained(start: Start) -> None:
    fake = Fake(drained={"edge1": "operator"})
    assert start(fake).run([("edge1",)])
    assert fake.drained == {"edge1": "operator"}
    assert fake.has_new == {"edge1"}
    assert not any(line.startswith(("drain", "undrain")) for line in fake.log)


def test_a_finished_host_that_was_changed_since_is_done_again(start: Start) -> None:
    fake = Fake(fails="smoke cdn")
    assert not start(fake).run(BATCHES)
    fake.fails = ""
    fake.has_new.discard("edge1")
    assert start(fake).run(BATCHES)
    assert fake.has_new == CHANGED


def test_a_rollout_that_can_not_be_planned_touches_nothing(start: Start) -> None:
    class Away(Fake):
        def rehearse(self, hosts: Sequence[str]) -> Mapping[str, Sequence[str]]:
            raise HostError("cdn: can't be reached")

    fake = Away()
    with pytest.raises(HostError, match="can't be reached"):
        start(fake).run(BATCHES)
    assert fake.log == []


def test_after_the_end_the_next_one_begins_anew(start: Start) -> None:
    fake = Fake()
    assert start(fake).run(BATCHES)
    rollout = start(fake)
    assert rollout._record.progress.finished == {}

"""A rollout from beginning to end: its steps, and what happens when one fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from bitrix_cdn.fleet import HostError
from bitrix_cdn.rollout import rates
from bitrix_cdn.rollout.errors import RolloutError
from bitrix_cdn.rollout.rates import Count, Counters
from bitrix_cdn.rollout.record import Record


@dataclass(frozen=True)
class Found:
    """How a host was found."""

    journal: bool = False
    """A rollout began to change it and has neither finished nor undone that."""
    drained: str = ""
    """Who drained the host: `rollout` or `operator`; empty: it isn't drained."""

    @property
    def left(self) -> str:
        """What an earlier rollout left there, in words; empty: nothing."""
        words = ["half changed"] * self.journal + ["drained"] * (self.drained == "rollout")
        return " and ".join(words)


class Hosts(Protocol):
    """What a rollout does to hosts. All of it may raise HostError."""

    def find(self, host: str) -> Found: ...
    def can_be_drained(self, host: str) -> bool: ...
    def rehearse(self, hosts: Sequence[str]) -> Mapping[str, Sequence[str]]: ...
    def others_serve(self, batch: Sequence[str]) -> None: ...
    def drain(self, host: str) -> None: ...
    def wait_until_idle(self, host: str) -> None: ...
    def begin(self, host: str) -> None: ...
    def deploy(self, hosts: Sequence[str]) -> Mapping[str, Sequence[str]]: ...
    def smoke(self, hosts: Sequence[str]) -> None: ...
    def undrain(self, host: str) -> None: ...
    def wait_until_back(self, host: str) -> None: ...
    def kinds(self, host: str) -> Sequence[str]: ...
    def counters(self, host: str) -> Counters: ...
    def commit(self, host: str) -> None: ...
    def undo(self, host: str) -> str: ...
    def wait_until_healthy(self, host: str) -> None: ...


@dataclass(frozen=True)
class Options:
    """What an operator can choose."""

    watch: float = 30.0
    """Seconds for which a host's errors are watched afterwards, and at least before."""
    again: bool = False
    """Hosts are deployed even where nothing is to be changed."""


@dataclass
class Summary:
    """What became of each host, in the order of the rollout."""

    lines: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    """Why the rollout stopped."""
    half: list[str] = field(default_factory=list)
    """Hosts that could neither be finished nor undone."""

    def text(self, hosts: Sequence[str], command: str, undo: str) -> list[str]:
        """What an operator must know at the end, a line each."""
        width = max(map(len, hosts), default=0)
        lines = [f"stopped: {self.failure}"] if self.failure else []
        lines += [f"  {host:{width}}  {self.lines.get(host, 'not touched')}" for host in hosts]
        if self.half:
            lines.append(
                f"{', '.join(self.half)}: stays locked for you; put it right, then run `{command}` again, "
                f"or take it back with `{undo}`"
            )
        elif self.failure:
            lines.append(f"when the cause is put right: `{command}`")
        return lines


class Rollout:
    """Goes through the batches."""

    def __init__(
        self,
        hosts: Hosts,
        record: Record,
        say: Callable[[str], object],
        options: Options,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = hosts
        self._record = record
        self._say = say
        self._options = options
        self._sleep = sleep
        self._clock = clock
        self._since = 0.0
        self._first: dict[str, Counters] = {}
        self.summary = Summary()

    def run(self, batches: Sequence[Sequence[str]]) -> bool:
        """Brings all batches to the state, up to the first failure; returns whether all have it.

        :raises HostError: it could not begin; nothing was changed.
        """
        everyone = [host for batch in batches for host in batch]
        found = {host: self._hosts.find(host) for host in everyone}
        self._since = self._clock()
        self._first = {host: self._hosts.counters(host) for host in everyone}
        planned = self._hosts.rehearse(everyone)
        self._tell_plan(everyone, found, planned)
        # What an earlier run left half done comes first: until then its visitors are led past it.
        left = [host for host in everyone if found[host].left]
        rest = [tuple(host for host in batch if host not in left) for batch in batches]
        for batch in filter(None, [tuple(left), *rest]):
            wanted = [host for host in batch if self._wanted(host, found[host], planned[host])]
            # What is done to other hosts may have changed what there is to do here.
            if len(wanted) < len(batch) and self.summary.seconds:
                try:
                    again = self._hosts.rehearse([host for host in batch if host not in wanted])
                except HostError as error:
                    self.summary.failure = str(error)
                    return False
                wanted = [host for host in batch if host in wanted or again.get(host)]
            self._leave_alone([host for host in batch if host not in wanted])
            if wanted and not self._batch(wanted, found):
                return False
        self._record.end()
        return True

    def _tell_plan(
        self, everyone: Sequence[str], found: Mapping[str, Found], planned: Mapping[str, Sequence[str]]
    ) -> None:
        for host in everyone:
            if silent := [kind for kind in self._hosts.kinds(host) if kind not in self._first[host]]:
                self._say(f"{host}: reports no {' and '.join(silent)}, which can't be watched")
            operations = planned[host]
            what = (
                f"{len(operations)} to change: {', '.join(operations)}" if operations else "nothing to change"
            )
            when = self._record.progress.finished.get(host)
            if when and operations:
                what = f"was finished at {when} and differs since; {what}"
            elif when:
                what = f"finished at {when}"
            if found[host].left:
                what = f"left {found[host].left} by an earlier run; {what}"
            if found[host].drained == "operator":
                what = f"drained by hand, and stays so; {what}"
            self._say(f"{host}: {what}")

    def _wanted(self, host: str, found: Found, operations: Sequence[str]) -> bool:
        return bool(operations or found.left or self._options.again)

    def _leave_alone(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            when = self._record.progress.finished.get(host)
            self.summary.lines[host] = f"finished at {when}" if when else "had nothing to change"
        if hosts:
            self._record.finish(host for host in hosts if host not in self._record.progress.finished)

    def _batch(self, batch: Sequence[str], found: Mapping[str, Found]) -> bool:
        """Changes one batch; returns whether it worked. If not, it has what it had before."""
        hosts, started = self._hosts, self._clock()
        drained = [host for host in batch if hosts.can_be_drained(host) and found[host].drained != "operator"]
        self._say(f"--> {', '.join(batch)}")
        try:
            for step, work in self._steps(batch, drained, found):
                self._record.enter(batch, step)
                work()
        except HostError as error:
            self._undo(batch, drained, error)
            return False
        self._record.finish(batch)
        for host in batch:
            self.summary.seconds[host] = self._clock() - started
            self.summary.lines[host] = f"finished, in {self.summary.seconds[host]:.0f} s"
        return True

    def _steps(
        self, batch: Sequence[str], drained: Sequence[str], found: Mapping[str, Found]
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        hosts = self._hosts
        counted = [host for host in batch if self._first[host]]
        before: dict[str, Counters] = {}
        after: dict[str, Counters] = {}

        def each(work: Callable[[str], object], some: Sequence[str]) -> Callable[[], object]:
            return lambda: [work(host) for host in some]

        yield "before", lambda: self._count_before(counted, found, before)
        if drained:
            yield "drain", lambda: self._drain(batch, drained)
            yield "idle", each(hosts.wait_until_idle, drained)
        yield "begin", each(hosts.begin, batch)
        yield "deploy", lambda: self._deploy(batch)
        yield "smoke", lambda: self._smoke(batch)
        if drained:
            yield "undrain", each(hosts.undrain, drained)
            yield "back", each(hosts.wait_until_back, drained)
        if counted:
            yield "watch", lambda: self._watch(counted, before, after)
        yield "commit", each(hosts.commit, batch)

    def _count_before(
        self, hosts: Sequence[str], found: Mapping[str, Found], before: dict[str, Counters]
    ) -> None:
        # What a half changed host does now is not what is usual: the run that began to change it knew that.
        known = self._record.progress.before
        known = {host: known[host] for host in hosts if found[host].left and host in known}
        for host, kinds in known.items():
            before[host] = {kind: Count(*count) for kind, count in kinds.items()}
        hosts = [host for host in hosts if host not in known]
        rest = self._options.watch - (self._clock() - self._since)
        if hosts and rest > 0:
            self._say(f"counting the usual errors for {rest:.0f} s first")
            self._sleep(rest)
        for host in hosts:
            now = self._hosts.counters(host)
            before[host] = {
                kind: rates.since(self._first[host][kind], count)
                for kind, count in now.items()
                if kind in self._first[host]
            }
        self._record.progress.before = {
            host: {kind: (count.tried, count.failed) for kind, count in kinds.items()}
            for host, kinds in before.items()
        }

    def _drain(self, batch: Sequence[str], drained: Sequence[str]) -> None:
        self._hosts.others_serve(batch)
        for host in drained:
            self._say(f"{host}: draining")
            self._hosts.drain(host)

    def _deploy(self, batch: Sequence[str]) -> None:
        self._say(f"{', '.join(batch)}: deploying")
        for host, operations in self._hosts.deploy(batch).items():
            self._say(f"{host}: changed: {', '.join(operations) or 'nothing'}")

    def _smoke(self, batch: Sequence[str]) -> None:
        self._say(f"{', '.join(batch)}: testing")
        self._hosts.smoke(batch)

    def _watch(
        self, hosts: Sequence[str], before: Mapping[str, Counters], after: dict[str, Counters]
    ) -> None:
        begin = {host: self._hosts.counters(host) for host in hosts}
        self._say(f"{', '.join(hosts)}: watching its errors for {self._options.watch:.0f} s")
        self._sleep(self._options.watch)
        for host in hosts:
            now = self._hosts.counters(host)
            if missing := sorted(set(before[host]) - set(now)):
                raise RolloutError(f"{host}: reports no {' and '.join(missing)} any more")
            after[host] = {
                kind: rates.since(begin[host].get(kind, rates.NOTHING), count) for kind, count in now.items()
            }
            self._compare_errors(host, before[host], after[host])

    def _compare_errors(self, host: str, before: Counters, after: Counters) -> None:
        for kind, count in after.items():
            had = before.get(kind, rates.NOTHING)
            told = f"{host}: {kind} that failed: {rates.described(count)}, before {rates.described(had)}"
            if rates.worse(had, count):
                raise RolloutError(told)
            self._say(told)

    def _undo(self, batch: Sequence[str], drained: Sequence[str], error: HostError) -> None:
        """Gives a batch back what it had; visitors come to a host again only when it works."""
        self.summary.failure = str(error)
        self._say(f"failed: {error}")
        for line in error.more if isinstance(error, RolloutError) else ():
            self._say(f"    {line}")
        self._record.enter(batch, "undo")
        for host in batch:
            try:
                self._undo_host(host, drain=host in drained)
            except HostError as worse:
                self.summary.half.append(host)
                left = "stays drained" if host in drained else "stays as it is"
                self.summary.lines[host] = f"NOT UNDONE, {left}: {worse}"
        if not self.summary.half:
            self._record.enter((), "")

    def _undo_host(self, host: str, *, drain: bool) -> None:
        hosts = self._hosts
        if not hosts.find(host).journal:
            if drain:
                hosts.undrain(host)
            self.summary.lines[host] = "not changed"
            return
        if drain:
            hosts.drain(host)
            # Whoever is still there may lose what he loads; but a host that fails them waits no longer.
            with suppress(HostError):
                hosts.wait_until_idle(host)
        self._say(f"{host}: undoing")
        undone = hosts.undo(host)
        hosts.wait_until_healthy(host)
        if drain:
            hosts.undrain(host)
            hosts.wait_until_back(host)
        self.summary.lines[host] = f"undone ({undone}), works as before"

    def undo(self, hosts: Sequence[str]) -> bool:
        """Takes back what an interrupted rollout left half done; returns whether all of it is."""
        for host in hosts:
            found = self._hosts.find(host)
            if not found.left:
                self.summary.lines[host] = "nothing was left half changed"
                continue
            try:
                self._undo_host(host, drain=found.drained == "rollout")
            except HostError as error:
                self.summary.half.append(host)
                self.summary.failure = str(error)
                self.summary.lines[host] = f"NOT UNDONE: {error}"
        if not self.summary.half:
            self._record.end()
        return not self.summary.half

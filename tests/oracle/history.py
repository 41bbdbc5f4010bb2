"""What a shop was told is done, and what may therefore be seen: of the pictures, and of what is made of them.

Nothing here touches a disk or a clock. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Span(NamedTuple):
    """A version at a path, for as long as somebody may have seen it there."""

    version: int
    begin: float
    """When the write began that made it."""

    whole: float
    """When that was acknowledged; infinite: it never was, and there may be any part of it."""

    end: float = math.inf
    """When the change was acknowledged that ended it."""


class Seen(NamedTuple):
    """What a visitor got."""

    path: str
    begin: float
    end: float
    variant: bool
    """Whether it was made by the converter."""

    version: int | None
    """None: the bytes are no whole picture."""

    size: int


class Lying(NamedTuple):
    """What lies at a path in the end."""

    version: int | None
    size: int


class Decision(NamedTuple):
    """What the converter decided on an original."""

    original: str
    name: str
    """Of the file that says so."""

    described: bool
    """Whether its mark describes the original that is there now."""

    version: int | None
    """Of a variant; None: its bytes are no whole picture."""

    variant: bool = True
    """Or else the verdict that the original is best."""

    decides: bool = True
    """Or else it only goes with the file that does."""


@dataclass
class History:
    """All changes to a tree of pictures, in the order of their acknowledgements."""

    sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of each version."""

    spans: dict[str, list[Span]] = field(default_factory=dict)

    def begin(self, path: str, version: int, size: int, now: float) -> None:
        """A picture is being written: from now on it may be seen, as a whole or in part."""
        self.sizes[version] = size
        self.spans.setdefault(path, []).append(Span(version, now, math.inf))

    def acknowledge(self, path: str, now: float) -> None:
        """What was written last at a path is whole, and what was there before is no longer."""
        *before, last = self.spans[path]
        self.spans[path] = [*(_ended(span, now) for span in before), last._replace(whole=now)]

    def remove(self, path: str, now: float) -> None:
        """A removal was acknowledged."""
        self.spans[path] = [_ended(span, now) for span in self.spans.get(path, [])]

    def move(self, path: str, to: str, begin: float, now: float) -> None:
        """A rename was acknowledged; what was at its target is no longer there."""
        last = self.spans[path][-1]
        self.remove(path, now)
        self.remove(to, now)
        whole = now if last.whole < math.inf else math.inf
        self.spans.setdefault(to, []).append(Span(last.version, begin, whole))

    def move_all(self, directory: str, to: str, begin: float, now: float) -> None:
        """The same of a directory, which takes what was made of its pictures with it, out of date or not."""
        for path, _ in list(self.present()):
            if path.startswith(f"{directory}/"):
                target = to + path.removeprefix(directory)
                before = [span._replace(end=now) for span in self.spans[path] if span.end < math.inf]
                self.move(path, target, begin, now)
                self.spans[target] = [*before, *self.spans[target]]

    def doubt(self, since: float) -> list[tuple[str, int]]:
        """The paths, with their versions, that were written since a moment: no longer sure to be whole."""
        doubted = []
        for path, now in self.present():
            if any(since <= span.whole < math.inf for span in now):
                doubted.append((path, now[-1].version))
                before = [span for span in self.spans[path] if span.end < math.inf]
                self.spans[path] = [*before, *(span._replace(whole=math.inf) for span in now)]
        return doubted

    def present(self) -> Iterator[tuple[str, list[Span]]]:
        """The paths that have a picture now, with the versions that it may be."""
        for path, spans in self.spans.items():
            if open_ones := [span for span in spans if span.end == math.inf]:
                yield path, open_ones


def _ended(span: Span, now: float) -> Span:
    return span if span.end < math.inf else span._replace(end=now)


class Health:
    """When the converter was there to do something about what changed."""

    def __init__(self) -> None:
        self._from: list[float] = []
        self._until: list[float] = []

    def up(self, now: float) -> None:
        self._from.append(now)
        self._until.append(math.inf)

    def down(self, now: float) -> None:
        if self._until and self._until[-1] == math.inf:
            self._until[-1] = now

    def deadline(self, changed: float, grace_s: float) -> float:
        """Until when nobody need have done anything about a change: it takes the converter `grace_s` at a
        stretch, as one that begins anew begins with all."""
        first = max(0, bisect.bisect_right(self._from, changed) - 1)
        for begin, end in zip(self._from[first:], self._until[first:], strict=True):
            due = max(begin, changed) + grace_s
            if due <= end:
                return due
        return math.inf


def lost(history: History, tree: Mapping[str, Lying]) -> list[str]:
    """What the shop was told is done and isn't, and what nobody did."""
    found = []
    expected = dict(history.present())
    for path, spans in expected.items():
        allowed = {span.version for span in spans}
        certain = any(span.whole < math.inf for span in spans)
        there = tree.get(path)
        if there is None:
            if certain:
                found.append(f"{path}: version {spans[0].version} was acknowledged and is lost")
        elif there.version is None:
            if all(span.whole < math.inf for span in spans):
                found.append(f"{path}: {there.size} bytes that are no picture")
        elif there.version not in allowed:
            found.append(f"{path}: version {there.version} instead of {sorted(allowed)}")
        elif len(spans) == 1 and certain and there.size != history.sizes[there.version]:
            found.append(f"{path}: {there.size} bytes of {history.sizes[there.version]}")
    found += [f"{path}: was removed and is back" for path in tree if path not in expected]
    return found


def misjudged(tree: Mapping[str, Lying], decisions: Iterable[Decision]) -> list[str]:
    """Decisions at rest that aren't about the picture they stand beside; and pictures without one."""
    found = []
    decided: dict[str, int] = {}
    for one in decisions:
        original = tree.get(one.original)
        if original is None:
            found.append(f"{one.name}: its original is gone")
            continue
        decided[one.original] = decided.get(one.original, 0) + one.decides
        if not one.described:
            found.append(f"{one.name}: its mark describes another original")
        elif one.variant and one.version is None:
            found.append(f"{one.name}: no whole picture")
        elif one.variant and one.version != original.version:
            found.append(f"{one.name}: made from version {one.version}, not {original.version}")
    counts = {path: decided.get(path, 0) for path in tree}
    return [*found, *(f"{path}: {count} decisions" for path, count in counts.items() if count != 1)]


def served_wrong(history: History, health: Health, seen: Iterable[Seen], grace_s: float) -> list[str]:
    """What visitors should never have got: another picture, half a variant, one that was long out of date."""
    found = []
    for one in seen:
        when = f"{one.path} at {one.begin:.3f} s"
        spans = history.spans.get(one.path, [])
        if one.variant:
            if one.version is None:
                found.append(f"{when}: a variant of {one.size} bytes that is no whole picture")
                continue
            own = [span for span in spans if span.version == one.version and span.begin <= one.end]
            if not own:
                found.append(f"{when}: a variant of version {one.version}, which was never there")
            elif one.begin > (due := max(health.deadline(span.end, grace_s) for span in own)):
                found.append(f"{when}: a variant of version {one.version}, due to be gone at {due:.3f} s")
            continue
        then = [span for span in spans if span.begin <= one.end and span.end >= one.begin]
        if not then:
            found.append(f"{when}: {one.size} bytes where nothing was")
        elif one.version is None:
            if all(span.whole < one.begin and span.end > one.end for span in then):
                found.append(f"{when}: {one.size} bytes that are no picture")
        elif one.version not in {span.version for span in then}:
            found.append(f"{when}: version {one.version}, not {sorted({span.version for span in then})}")
    return found

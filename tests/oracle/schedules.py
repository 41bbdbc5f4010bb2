"""What happens to a shop and to its converter, all of it chosen by a seed before anything happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

CHANGES = 45
DIRECTORIES = tuple(f"iblock/{k:03x}/200_200_1" for k in range(4))
BIG = 300
"""Pixels of what Bitrix lays at the place of a picture before it resizes it."""


class Step(NamedTuple):
    """One thing that the shop does, or that happens to a part."""

    what: str
    path: str = ""
    to: str = ""
    version: int = 0
    number: int = 0
    """Of whatever kind: pixels, seconds, bytes, a place in a list."""

    pause_s: float = 0
    """Until the next step."""

    def __str__(self) -> str:
        told = [word for word in (self.path, self.to and f"-> {self.to}") if word]
        told += [f"version {self.version}"] if self.version else []
        told += [str(self.number)] if self.number else []
        return f"{self.what} {' '.join(told)}".strip() + f", {self.pause_s * 1000:.0f} ms"


# Each fault with what ends it, and what it takes from the others: of one part, one fault at a time.
FAULTS = {
    "kill the daemon": ("start the daemon", "daemon"),
    "freeze the daemon": ("thaw the daemon", "daemon"),
    "cut the power": ("start the daemon", "daemon"),
    "restart the daemon": ("", "daemon"),
    "restart the daemon with AVIF": ("", "daemon"),
    "kill a worker": ("", "daemon"),
    "kill Redis": ("start Redis", "redis"),
    "cut Redis' power": ("start Redis", "redis"),
    "freeze Redis": ("thaw Redis", "redis"),
    "flush Redis": ("", "redis"),
    "fill the disk": ("free the disk", "disk"),
    "ask for a scan": ("", "scan"),
}


class _Model:
    """The tree as it will be when all steps succeed."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.paths: list[str] = []
        self._names = 0
        self._versions = chance.randrange(1 << 16)

    def version(self) -> int:
        """A version that was never there."""
        self._versions += 1
        return self._versions * 40503 % ((1 << 16) - 1) + 1  # far from its neighbours

    def new(self, directory: str = "") -> str:
        self._names += 1
        return f"{directory or self.chance.choice(DIRECTORIES)}/{self._names}.jpg"

    def known(self) -> str:
        return self.chance.choice(self.paths)

    def changes(self) -> Iterator[Step]:
        """One change of any kind, in one step or more."""
        kinds = ["write"] * 4
        if self.paths:
            kinds += ["rewrite", "replace", "remove", "rename", "rename over", "resize again"]
            kinds += ["rewrite", "rewrite in the same size", "date", "write and remove", "move a directory"]
        kinds += ["resize", "many"]
        kind = self.chance.choice(kinds)
        if kind == "many":
            directory = f"iblock/many{self._names}/200_200_1"
            for _ in range(self.chance.randrange(3, 8)):
                yield self._written("write", self.new(directory))
        elif kind in ("write", "resize"):
            yield self._written(kind, self.new())
        elif kind == "write and remove":
            path = self.new()
            yield self._written("write", path)._replace(pause_s=self.chance.uniform(0, 0.08))
            self.paths.remove(path)
            yield Step("remove", path)
        elif kind == "remove":
            path = self.known()
            self.paths.remove(path)
            yield Step("remove", path)
        elif kind in ("rename", "rename over"):
            path = self.known()
            to = self.new() if kind == "rename" or len(self.paths) == 1 else self.known()
            if to != path:
                self.paths.remove(path)
                if to not in self.paths:
                    self.paths.append(to)
                yield Step("rename", path, to)
        elif kind == "move a directory":
            directory = self.known().rpartition("/")[0]
            self._names += 1
            to = f"iblock/moved{self._names}/200_200_1"
            self.paths = [path.replace(f"{directory}/", f"{to}/") for path in self.paths]
            yield Step("move a directory", directory, to)
        elif kind == "date":
            # As an archive that is unpacked, or a clock that was wrong.
            date = self.chance.choice((1_000_000_000, 1_900_000_000)) + self.chance.randrange(10_000)
            yield self._written("write", self.known())._replace(what="date", number=date)
        else:
            yield self._written({"resize again": "resize"}.get(kind, kind), self.known())

    def _written(self, what: str, path: str) -> Step:
        if path not in self.paths:
            self.paths.append(path)
        return Step(what, path, version=self.version())


def schedule(seed: int) -> list[Step]:
    """The steps of a seed: always the same."""
    chance = random.Random(seed)
    model = _Model(chance)
    steps: list[Step] = []
    ends: dict[str, tuple[int, str]] = {}
    """Of each part that is at fault: after which change that ends, and how."""

    at = {chance.randrange(CHANGES): chance.choice(list(FAULTS)) for _ in range(chance.randrange(2, 6))}
    for number in range(CHANGES):
        for part, (due, end) in list(ends.items()):
            if due <= number:
                del ends[part]
                steps.append(Step(end, pause_s=chance.uniform(0, 0.2)))
        fault = at.get(number)
        if fault and FAULTS[fault][1] not in ends:
            end, part = FAULTS[fault]
            steps.append(Step(fault, number=chance.randrange(1, 1 << 16), pause_s=chance.uniform(0, 0.1)))
            if end:
                ends[part] = number + chance.randrange(1, 9), end
        for step in model.changes():
            pause_s = step.pause_s or chance.choice((0, 0, 0.005, 0.02, 0.05, 0.1, chance.uniform(0, 0.4)))
            steps.append(step._replace(pause_s=pause_s))
    steps += [Step(end) for _, end in ends.values()]
    return steps

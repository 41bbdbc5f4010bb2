"""Decides what to do with a file of the spool: a function of what is known of it, without I/O."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self


@dataclass(frozen=True)
class Identity:
    """What changes whenever a local file does: even a write that keeps size and mtime moves ctime."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Remote:
    """The file of that name on the other host; its mtime has whole seconds."""

    size: int
    mtime: int


@dataclass(frozen=True)
class Pushed:
    """What a push left on the other host."""

    size: int
    mtime: int
    sha256: str


class Verdict(Enum):
    DROP = auto()
    """The other host has it: the spool's copy goes."""
    COMPARE = auto()
    """The other host has one: if its bytes are the same it is as good as pushed, else the spool wins."""
    CREATE = auto()
    """The other host has none: push, but don't replace what the site may write there meanwhile."""


def decide(
    spooled: Identity, done: Identity | None, pushed: Pushed | None, remote: Remote | None, bound: int | None
) -> Verdict:
    """Decides about a file that no process has open for writing.

    :param done: the spool's file when it was last found to be on the other host.
    :param pushed: what was pushed then, if anything was.
    :param bound: the other host's own clock, in seconds, just before the mount was laid over the spool;
        None: not yet. Two times of one clock are compared, never those of two hosts.
    """
    if spooled == done:
        # Whatever is there now is what the site has made of it since.
        return Verdict.DROP
    if remote is None:
        return Verdict.CREATE
    ours = pushed is not None and (remote.size, remote.mtime) == (pushed.size, pushed.mtime)
    if bound is not None and remote.mtime >= bound and not ours:
        # Written through the mount since, and later than the spool's.
        return Verdict.DROP
    return Verdict.COMPARE


@dataclass
class Journal:
    """What pushes have done to the other host and to the spool, so that a later run knows which files
    the *site* has removed from the spool: those that were pushed, are gone, and weren't dropped by us.

    One JSON list a line; the last line may be cut off by a kill.
    """

    pushed: dict[str, Pushed] = field(default_factory=dict)

    @staticmethod
    def push_line(path: str, pushed: Pushed) -> str:
        return json.dumps(["push", path, pushed.size, pushed.mtime, pushed.sha256]) + "\n"

    @staticmethod
    def drop_line(path: str) -> str:
        return json.dumps(["drop", path]) + "\n"

    @classmethod
    def read(cls, lines: Iterable[str]) -> Self:
        journal = cls()
        for line in lines:
            try:
                match json.loads(line):
                    case ["push", str(path), int(size), int(mtime), str(sha256)]:
                        journal.pushed[path] = Pushed(size, mtime, sha256)
                    case ["drop", str(path)]:
                        journal.pushed.pop(path, None)
            except ValueError:
                continue
        return journal

    def removed(self, present: Iterable[str]) -> dict[str, Pushed]:
        """What the site has removed from the spool after it was pushed."""
        return {path: self.pushed[path] for path in self.pushed.keys() - set(present)}

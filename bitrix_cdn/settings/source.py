"""Finds the line of a setting in an inventory, for error messages."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

# The argument of `groups`, then keys, each inside the one before it.
Place = tuple[int | str, ...]


@dataclass(frozen=True)
class Source:
    """The file that calls `groups`."""

    file: str
    line: int
    """The line of the call."""

    tree: ast.Module

    @classmethod
    def of_caller(cls, frame: FrameType) -> Source:
        """The file whose code runs in a frame; one that can't be read has no lines but that of the call."""
        file = str(frame.f_globals.get("__file__", frame.f_code.co_filename))
        try:
            tree = ast.parse(Path(file).read_bytes())
        except (OSError, SyntaxError, ValueError):
            tree = ast.Module([], [])
        with suppress(ValueError):
            file = str(Path(file).relative_to(Path.cwd()))
        return cls(file, frame.f_lineno, tree)

    def lines(self, mistakes: Sequence[tuple[Place, str]]) -> list[str]:
        """Each mistake behind its file and line, in the order of the file."""
        placed = sorted((self._line(place), text) for place, text in mistakes)
        return [f"{self.file}:{line}: {text}" for line, text in dict.fromkeys(placed)]

    def repeated(self, arguments: Collection[str]) -> Iterator[tuple[str, str]]:
        """Keys that stand twice in the literal of an argument, of which Python keeps the last alone."""
        for argument in arguments:
            literal = self._value(self._argument(argument))
            keys = [str(key.value) for key in getattr(literal, "keys", ()) if isinstance(key, ast.Constant)]
            yield from ((argument, key) for key in dict.fromkeys(keys) if keys.count(key) > 1)

    def _line(self, place: Place) -> int:
        """The line of the innermost part of a place that the file has in words."""
        node = self._argument(str(place[0]))
        line = self.line if node is None else node.lineno
        for part in place[1:]:
            literal = self._value(node)
            if not isinstance(literal, ast.Dict):
                break
            found = [
                (key, value)
                for key, value in zip(literal.keys, literal.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == part
            ]
            if not found:
                break
            key, node = found[-1]
            line = key.lineno
        return line

    def _argument(self, name: str) -> ast.expr | None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and node.lineno <= self.line <= (node.end_lineno or 0):
                for keyword in node.keywords:
                    if keyword.arg == name:
                        return keyword.value
        return None

    def _value(self, node: ast.expr | None) -> ast.expr | None:
        """A literal itself, in place of the name that it was given above."""
        if isinstance(node, ast.Name):
            for statement in self.tree.body:
                if isinstance(statement, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == node.id for target in statement.targets
                ):
                    return statement.value
        return node

"""Keeps secrets out of the output. Pure."""

from __future__ import annotations

import difflib
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from urllib.parse import quote

MASK = "******"
SHORTEST = 4
"""Characters of the shortest secret that is looked for everywhere; a shorter one only its place masks."""

LONGEST = 200
"""Lines of a diff that are shown."""

_NAMES = "passw(?:or)?d|passphrase|requirepass|masterauth|secret|token|api[_-]?key|credentials?"
_NAMED = re.compile(
    rf"(?i)((?<![a-z])[\w.-]*(?:{_NAMES})"
    r"(?!s|[_-]?file|[_-]?path)[\w.-]*[\"']?\s*[:=\s]\s*)(\S.*)"
)
_USER_OF_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@")
_BOT = re.compile(r"\b[0-9]{6,12}:[A-Za-z0-9_-]{30,}")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_KEY = re.compile(r"(\s*(?:- )?[\"']?)([A-Za-z_][\w.-]*)([\"']?\s*[:=]\s+|=|\s+)(?=\S)")


class Redaction:
    """Takes secrets out of texts: those that are known, and what looks like one."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        known = {form for one in secrets if one and len(one) >= SHORTEST for form in _forms(one)}
        # The longest first: one may be part of another.
        longest_first = sorted(known, key=lambda one: (-len(one), one))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def text(self, text: str) -> str:
        """A text of which only what isn't secret is left, and only what can be printed."""
        text = _PEM.sub(MASK, text)
        text = "\n".join(_NAMED.sub(rf"\g<1>{MASK}", line) for line in text.split("\n"))
        text = _BOT.sub(MASK, _USER_OF_URL.sub(rf"\g<1>{MASK}@", text))
        return _printable(self._without_known(text))

    def _without_known(self, text: str) -> str:
        return self._known.sub(MASK, text) if self._known else text

    def diff(
        self,
        path: str,
        there: str,
        wanted: str,
        *,
        public: Collection[str] | None = None,
        reveal: bool = False,
    ) -> list[str]:
        """A unified diff from a file as it is on a host to the file as it must be.

        :param public: None: the file is for everybody to read. Else it holds secrets: of each line only a
            name that is among these is shown, and that the line differs.
        :param reveal: shows such a file too, but for what stands on the host where a secret must be.
        """
        private = {
            line for text in (there, wanted) for block in _PEM.findall(text) for line in block.splitlines()
        }
        lines = list(
            difflib.unified_diff(
                there.splitlines(),
                wanted.splitlines(),
                f"{path} on the host",
                f"{path} as it must be",
                n=2,
                lineterm="",
            )
        )
        hidden = range(len(lines)) if not reveal else self._replaced(lines)
        return list(self._masked(lines, private, public, hidden))

    def _replaced(self, lines: Sequence[str]) -> set[int]:
        """The numbers of the lines on the host that a known secret, or one by its name, replaces."""
        found: set[int] = set()
        starts = [number for number, line in enumerate(lines) if line.startswith("@@")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            if any(self.text(line[1:]) != line[1:] for line in lines[start + 1 : end] if line[:1] == "+"):
                found.update(number for number in range(start + 1, end) if lines[number][:1] == "-")
        return found

    def _masked(
        self,
        lines: Iterable[str],
        private: Collection[str],
        public: Collection[str] | None,
        hidden: Collection[int],
    ) -> Iterator[str]:
        for number, line in enumerate(lines):
            if number == LONGEST:
                yield "... and more"
                return
            sign, rest = line[:1], line[1:]
            if number < 2 or sign == "@":
                yield self.text(line)
            elif rest in private:
                yield sign + MASK
            elif public is not None and number in hidden:
                yield sign + self._without_known(_structure(rest, public))
            else:
                yield sign + self.text(rest)


def _structure(line: str, public: Collection[str]) -> str:
    """What may be shown of a line of a file that holds secrets."""
    if not line.strip():
        return ""
    found = _KEY.match(line)
    if found and found[2] in public:
        return f"{found[1]}{found[2]}{found[3].rstrip() or ''} {MASK}"
    return line[: len(line) - len(line.lstrip())] + MASK


def _forms(secret: str) -> set[str]:
    """A secret as configuration files may write it."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        re.sub(r"[<>&']", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(secret)[1:-1]),
        html.escape(secret),
        quote(secret, safe=""),
        quote(secret),
        secret.replace("'", "''"),
        secret.replace("'", "'\"'\"'"),
    }


def _printable(text: str) -> str:
    """Without what could move a terminal's cursor or break XML."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def words(source: str) -> set[str]:
    """The words of a template, which is public."""
    return set(re.findall(r"[A-Za-z_][\w.-]*", source))

"""Writes an inventory from the answers."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bitrix_cdn.fleet import UsageError, load
from bitrix_cdn.new.questions import QUESTIONS, Answers, words

_TEMPLATE = "inventory.py.j2"


def given(file: Path | None, pairs: Sequence[str]) -> Answers:
    """The answers in a file of TOML, and of options such as `cdn_host=cdn.example.com`.

    :raises UsageError: the file can't be read, or there is no such question.
    """
    answers: Answers = {}
    if file:
        try:
            answers = {key: str(value) for key, value in tomllib.loads(file.read_text()).items()}
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"{file}: {error}") from None
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: KEY=ANSWER is allowed")
        answers[key] = value
    known = [question.key for question in QUESTIONS]
    if unknown := sorted(set(answers) - set(known)):
        raise UsageError(f"{', '.join(unknown)}: there is no such question; there are: {', '.join(known)}")
    for question in QUESTIONS:
        if question.key in answers and (fault := question.fault(answers[question.key].strip())):
            raise UsageError(f"{question.key} = {answers[question.key]!r}: {fault}")
    return answers


def text(answers: Answers, file: Path) -> str:
    """The inventory."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 -- Python, whose strings are quoted by the filter
    )
    environment.filters |= {
        "quoted": _quoted,
        "listed": lambda value: f"[{', '.join(map(_quoted, words(value)))}]",
        "numbers": lambda value: f"[{', '.join(words(value))}]",
    }
    return environment.get_template(_TEMPLATE).render(a=answers, file=file)


def write(answers: Answers, file: Path) -> None:
    """Writes the inventory where there is none, and checks it whole.

    :raises UsageError: there is one, or these answers don't go together.
    """
    try:
        with file.open("x") as target:
            target.write(text(answers, file))
    except FileExistsError:
        raise UsageError(f"{file}: is there already; name another file, or move it away") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    try:
        load(str(file))
    except BaseException:
        file.unlink()
        raise


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)

"""docs/settings.md, made from the model; `bitrix-cdn docs` writes it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from webp_converter.base.docstrings import attribute_docstrings

from bitrix_cdn.settings.model import HostEntry, Settings

INTRODUCTION = """\
# Settings

Made from `bitrix_cdn/settings/` by `bitrix-cdn docs`; a test compares them.

An inventory gives `groups(settings={...})` what differs from the defaults below, nested like the headings:
`settings={"redis": {"cache_maxmemory": "1gb"}}`. A key that isn't here, a value of another type and a
combination that can't work are refused, all at once, each in a line with its place in the inventory, before
any host is connected to.
"""


def page() -> str:
    """The page."""
    lines = [INTRODUCTION, "## Hosts\n"]
    lines.append(
        "What stands after a host's name in `bitrix={...}`, `cdn={...}`, `edge={...}` and `balancer={...}`.\n"
    )
    lines += _table(HostEntry)
    for heading, model in _sections(Settings, ""):
        lines += [f"\n## {heading}\n", f"{_sentence(inspect.getdoc(model))}\n", *_table(model)]
    return "\n".join(lines) + "\n"


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """All sections below a model that have settings of their own, in the order of the model."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            path = f"{prefix}{name}"
            if any(_is_setting(inner) for inner in kind.model_fields.values()):
                yield path, kind
            yield from _sections(kind, f"{path}.")


def _is_setting(field: FieldInfo) -> bool:
    return not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    meanings = attribute_docstrings(model)
    for name, field in model.model_fields.items():
        if _is_setting(field):
            value = field.get_default(call_default_factory=True)
            default = "required" if field.is_required() else f"`{_literal(value)}`"
            meaning = _sentence(meanings[name]).replace("|", "\\|")
            yield f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |"


def _type(kind: object) -> str:
    """The type as an administrator reads it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if arguments:
        return " or ".join(_type(argument) for argument in arguments if argument is not type(None))
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no", "Path": "path"}
    return names.get(getattr(kind, "__name__", ""), str(kind))


def _literal(value: object) -> str:
    """A default as an inventory would write it."""
    return repr(value if value is None or isinstance(value, bool | int | float | list) else str(value))


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())

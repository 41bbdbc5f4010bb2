"""The common base of all sections of the settings, and the types of their values."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pyinfra.api.exceptions import PyinfraError


class SettingsError(PyinfraError):
    """A setting that can't be. Its text is one line: where, what was given, what is allowed."""


class InventoryError(SystemExit):
    """An inventory that can't be: prints a line for each mistake, and ends the program with status 2.

    pyinfra would put its own words around an error of any other kind, and end with 1.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(2)
        self.lines = tuple(lines)
        print("\n".join(lines), file=sys.stderr)


def _clean_absolute(path: str) -> str:
    # These paths go into shell commands, unit files and nginx's configuration, each with quoting of
    # its own; and a trailing slash changes what rename, bind mounts and `location` mean.
    if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", path) or ".." in PurePosixPath(path).parts:
        raise ValueError(
            "an absolute path of letters, digits and . _ + - is allowed, without a trailing slash"
        )
    return path


def _account(name: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name):
        raise ValueError("a Unix account name is allowed: a-z 0-9 _ -, at most 32 characters")
    return name


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("an address or a network such as 192.0.2.0/24 is allowed") from None
    return text


AbsolutePath = Annotated[str, AfterValidator(_clean_absolute)]
Network = Annotated[str, AfterValidator(_network)]
Account = Annotated[str, AfterValidator(_account)]
Port = Annotated[int, Field(ge=1, le=65535)]
Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*(kb|mb|gb)$")]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, types are not guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def mebibytes(memory: Memory) -> int:
    """A setting such as `1gb` in MiB, rounded down."""
    return int(memory[:-2]) * {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}[memory[-2:]] >> 20

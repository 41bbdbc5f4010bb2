"""Inventories that pyinfra can't read, told in one line.

Importing this module makes it so; `config.py` does, which pyinfra reads before the inventory. Without hosts
pyinfra would do nothing and call that a success, and it shows a traceback for each mistake in Python.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pyinfra_cli.cli  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api import Inventory
from pyinfra.api.exceptions import PyinfraError
from pyinfra_cli.exceptions import CliError, UnexpectedExternalError  # type: ignore[import-untyped]


def _told(read: Callable[..., Inventory]) -> Callable[..., Inventory]:
    """Has the function that reads an inventory end the program with one line and status 2 where it can't."""

    @functools.wraps(read)
    def told(inventory: str, *args: Any, **kwargs: Any) -> Inventory:
        path = Path(inventory)
        if path.suffix == ".py" and not path.is_file():
            _end(f"{inventory}: no such file; {_beside(path)}")
        before = logger.disabled
        logger.disabled = before or not path.exists()  # what pyinfra says of a name is said better below
        try:
            found = read(inventory, *args, **kwargs)
        except (PyinfraError, CliError):
            raise
        except Exception as error:
            _end(mistake(error, inventory))
        finally:
            logger.disabled = before
        if not len(found):
            if path.is_file():
                _end(f"{inventory}: has no hosts; make it like inventories/production.py")
            _end(f"{inventory}: no inventory and no host is called so; {_beside(path)}")
        return found

    return told


def mistake(error: Exception, inventory: str) -> str:
    """What is wrong with a file of Python, in one line with the place in it."""
    if isinstance(error, UnexpectedExternalError):
        inventory, error = error.filename, error.exception
    if isinstance(error, SyntaxError) and error.filename:
        file, line, why = error.filename, error.lineno, error.msg
    else:
        trace = getattr(error, "_traceback", error.__traceback__)
        lines = [at.lineno for at in traceback.extract_tb(trace) if at.filename == inventory]
        file, line, why = inventory, lines[-1] if lines else None, str(error)
    with suppress(ValueError):
        file = str(Path(file).relative_to(Path.cwd()))
    place = file if line is None else f"{file}:{line}"
    return f"{place}: {type(error).__name__}: {' '.join(why.split())}"


def _beside(path: Path) -> str:
    """The files that may have been meant."""
    return f"files of that kind there: {', '.join(sorted(map(str, path.parent.glob('*.py')))) or 'none'}"


def _end(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(2)


if not hasattr(pyinfra_cli.cli.make_inventory, "__wrapped__"):
    pyinfra_cli.cli.make_inventory = _told(pyinfra_cli.cli.make_inventory)

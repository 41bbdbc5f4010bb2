"""Reports inventories that pyinfra can't read in one line.

Importing this module makes it so for pyinfra's command too; `config.py` does, which pyinfra reads before the
inventory. Without hosts pyinfra would do nothing and call that a success, and it shows a traceback for each
mistake in Python.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api import Inventory
from pyinfra.api.exceptions import PyinfraError
from pyinfra_cli.exceptions import CliError, UnexpectedExternalError  # type: ignore[import-untyped]
from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

from bitrix_cdn.engine import patches
from bitrix_cdn.fleet.errors import UsageError


def read(inventory: str, *args: Any, **kwargs: Any) -> Inventory:
    """Reads an inventory as pyinfra does.

    :raises UsageError: it can't be read, or has no hosts.
    """
    path = Path(inventory)
    if path.suffix == ".py" and not path.is_file():
        raise UsageError(f"{inventory}: no such file; {_beside(path)}")
    before = logger.disabled
    logger.disabled = before or not path.exists()  # what pyinfra says of a name is said better below
    try:
        found: Inventory = make_inventory(inventory, *args, **kwargs)
    except (PyinfraError, CliError):
        raise
    except Exception as error:
        raise UsageError(mistake(error, inventory)) from None
    finally:
        logger.disabled = before
    if not len(found):
        if path.is_file():
            raise UsageError(f"{inventory}: has no hosts; make it like inventories/production.py")
        raise UsageError(f"{inventory}: no inventory and no host is called so; {_beside(path)}")
    return found


def _read_or_end(*args: Any, **kwargs: Any) -> Inventory:
    """The same for pyinfra's own command, which would show a traceback."""
    try:
        return read(*args, **kwargs)
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


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


patches.command("make_inventory", _read_or_end)

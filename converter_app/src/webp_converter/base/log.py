"""The log: one JSON object a line, each an event with its fields."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import UTC, datetime

_log = logging.getLogger("webp_converter")

EACH, MINUTE_S = 20, 60.0

Field = str | bytes | int | float | bool | None

_minutes: dict[str, tuple[float, int]] = {}
"""Of each event that is told sparingly, when its minute began, and how many there were."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Field] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        for key, value in getattr(record, "fields", {}).items():
            line[key] = os.fsdecode(value) if isinstance(value, bytes) else value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII only, so that names that are not UTF-8 survive as well


def configure(level: str) -> None:
    """Sends everything that is logged to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What these say of themselves is no event of ours.
    for name in ("uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def debug(event: str, **fields: Field) -> None:
    _log.debug(event, extra={"fields": fields})


def info(event: str, **fields: Field) -> None:
    _tell_rest()
    _log.info(event, extra={"fields": fields})


def warning(event: str, **fields: Field) -> None:
    _tell_rest()
    _log.warning(event, extra={"fields": fields})


def sparing(event: str, **fields: Field) -> None:
    """A warning of what the site can cause as often as it likes.

    Of an event the first 20 in a minute are told. Of the others it is told how many they were, as `more`,
    with whatever is logged next when the minute is over.
    """
    _tell_rest()
    started, count = _minutes.get(event, (time.monotonic(), 0))
    _minutes[event] = (started, count + 1)
    if count < EACH:
        _log.warning(event, extra={"fields": fields})


def error(event: str, *, traceback: bool = False, **fields: Field) -> None:
    _tell_rest()
    _log.error(event, extra={"fields": fields}, exc_info=traceback)


def _tell_rest() -> None:
    for event, (started, count) in [*_minutes.items()]:
        if time.monotonic() - started < MINUTE_S:
            continue
        # Another thread may have told it meanwhile.
        is_ours = _minutes.pop(event, None) is not None
        if is_ours and count > EACH:
            _log.warning(event, extra={"fields": {"more": count - EACH}})

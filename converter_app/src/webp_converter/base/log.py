"""The log: one JSON object a line, each an event with its fields."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime

_log = logging.getLogger("webp_converter")

Field = str | bytes | int | float | bool | None


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
    _log.info(event, extra={"fields": fields})


def warning(event: str, **fields: Field) -> None:
    _log.warning(event, extra={"fields": fields})


def error(event: str, *, traceback: bool = False, **fields: Field) -> None:
    _log.error(event, extra={"fields": fields}, exc_info=traceback)

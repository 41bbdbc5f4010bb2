"""Where a dry run tells whoever asks what it found, in full.

The asker passes the descriptor of a file without a name in the environment: what is told holds secrets, and
so never gets a name on a disk, a place in a log, or one in a list of processes.
"""

from __future__ import annotations

import json
import os
from typing import Any

ENVIRONMENT = "BITRIX_CDN_DIFFERENCES"


def wanted() -> bool:
    """Whether somebody asks."""
    return ENVIRONMENT in os.environ


def write(record: dict[str, Any]) -> None:
    """Tells one thing, as a line of JSON."""
    rest = json.dumps(record).encode() + b"\n"
    while rest:
        rest = rest[os.write(int(os.environ[ENVIRONMENT]), rest) :]

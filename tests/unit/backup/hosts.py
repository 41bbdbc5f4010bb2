"""A host that is backed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from host_agent.backup.config import Config


def config(place: Path, **values: Any) -> Config:
    """A host whose directories are all below a place."""
    nothing: dict[str, Any] = {
        "host": "cdn", "repository": "", "password_file": "", "sftp_command": "", "public_key": "",
        "state": str(place / "state"), "cache": "", "metrics": str(place / "told"),
        "bandwidth_kib_s": 0, "keep_daily": 1, "keep_weekly": 0,
        "keep_monthly": 0, "check_percent": 0, "identity": [], "configuration": [],
        "excluded": [], "with_pictures": False, "pictures": [], "spool": "", "redis": [], "prometheus": "",
        "alertmanager": "", "grafana": "", "picture_users": [], "data_users": [], "services": [],
    }  # fmt: skip
    return Config(**{**nothing, **values})

"""The rules and alerts as they are deployed by default, for tests that ask about all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from bitrix_cdn.engine.files import rendered
from bitrix_cdn.settings import Settings

ALERTS = "/etc/prometheus/rules/alerts.yml"
RECORDING = "/etc/prometheus/rules/recording.yml"

WATCHDOG = "Watchdog"
"""Always fires: it has no end."""


@dataclass(frozen=True)
class Alert:
    """One rule: an alert may have several, of different severities."""

    name: str
    severity: str
    seconds: int
    """How long it must be so before it fires."""

    text: str


def settings_with(
    alertmanager: dict[str, Any] | None = None,
    levels: dict[str, Any] | None = None,
    language: str = "en",
    **others: Any,
) -> Settings:
    """Settings that differ from the defaults in these."""
    monitoring = {"alertmanager": alertmanager or {}, "levels": levels or {}, "language": language}
    # Its alerts are there only where backups are made.
    backup = {"repository": "/srv/backups", "password": "env:BACKUP_PASSWORD"}
    return Settings.model_validate({"monitoring": monitoring, "backup": backup, **others})


def rules(settings: Settings | None = None, *, balanced: bool = False) -> dict[str, str]:
    """The rendered files by name, the recording rules first.

    :param balanced: there is a balancer to be asked.
    """
    files = rendered(
        "prometheus",
        only=[RECORDING, ALERTS],
        settings=settings or settings_with(),
        balanced=balanced,
        shield="cdn",
    )
    return {file.path.rpartition("/")[2]: file.content for file in reversed(files)}


@cache
def alerts() -> list[Alert]:
    """All alerts, in the order of the file."""
    found = []
    for text in re.split(r"^ {6}- alert: ", rules()["alerts.yml"], flags=re.MULTILINE)[1:]:
        severity = re.search(r"^ {8}labels: \{severity: (\w+)[,}]", text, re.MULTILINE)
        wait = re.search(r"^ {8}for: (\d+)([smh])$", text, re.MULTILINE)
        seconds = int(wait[1]) * {"s": 1, "m": 60, "h": 3600}[wait[2]] if wait else 0
        found.append(Alert(text.split()[0], severity[1] if severity else "", seconds, text))
    return found


def names() -> list[str]:
    """The names of all alerts, each once."""
    return list(dict.fromkeys(alert.name for alert in alerts()))

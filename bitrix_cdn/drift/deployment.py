"""The facts about the whole deployment that the checking process reports once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pyinfra import host, inventory
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.drift.run import Deployment
from bitrix_cdn.engine import differences
from bitrix_cdn.settings.alerting import secret
from roles.preflight import settings_of


@functools.cache
def report_deployment() -> None:
    """Tells where metrics belong, and the secrets that must not show."""
    settings = settings_of(host)
    logins = (one.data.get(key) for one in inventory for key in ("ssh_password", "ssh_key_password"))
    secrets = (*_secrets(settings.model_dump(mode="json")), *logins)
    differences.report(Deployment(settings.mounts.metrics, tuple(filter(None, secrets))))


def _secrets(value: Any) -> Iterator[str]:
    """All secrets whose places the settings name."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _secrets(one)
    elif isinstance(value, list):
        for one in value:
            yield from _secrets(one)
    elif isinstance(value, str) and value.startswith(("file:", "env:")):
        try:
            yield secret(value)
        except PyinfraError:
            return  # the role that needs it says so

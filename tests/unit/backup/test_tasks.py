"""What is refused before any host is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from bitrix_cdn.backup import tasks
from bitrix_cdn.backup.fleet import Fleet, Member
from bitrix_cdn.fleet.progress import Display
from bitrix_cdn.settings import Settings
from host_agent.backup.errors import BackupError, Status


def test_a_password_that_others_may_read_is_a_mistake_of_the_settings(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x\n")
    password.chmod(0o644)
    settings = Settings.model_validate({"backup": {"repository": "/srv/b", "password": f"file:{password}"}})
    member = Member("cdn", ("cdn",), cast(Any, SimpleNamespace()))
    everything = Fleet("shop.py", settings, {"cdn": member})
    with pytest.raises(BackupError, match="others may read it") as caught:
        tasks.put_back(
            everything,
            None,
            Display(Console()),
            snapshot="latest",
            pictures=True,
            fingerprint=None,
            force=False,
        )
    assert caught.value.status == Status.USAGE

"""The units of the machine that the operator deploys from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitrix_cdn.drift import timer
from bitrix_cdn.drift.report import DriftError
from bitrix_cdn.drift.timer import install, units
from bitrix_cdn.fleet.deploys import ROOT
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.drift import DriftSettings


def made(tmp_path: Path) -> dict[str, str]:
    return units(Path("/etc/shop.py"), "root", tmp_path, "*-*-* 05:00:00")


def test_the_service_checks_and_publishes_as_the_account_that_may(tmp_path: Path) -> None:
    service = made(tmp_path)["bitrix-cdn-drift.service"].splitlines()
    assert f"ExecStart={sys.executable} -m bitrix_cdn drift check -i /etc/shop.py --publish" in service
    assert f"WorkingDirectory={ROOT}" in service
    assert "User=root" in service
    # Differences are a result; what could not be checked is tried again.
    assert {"SuccessExitStatus=3", "Restart=on-failure"} <= set(service)
    lines = made(tmp_path)["bitrix-cdn-drift.timer"].splitlines()
    assert {"OnCalendar=*-*-* 05:00:00", "Persistent=true"} <= set(lines)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd says what is right")
def test_systemd_agrees_with_the_units(tmp_path: Path) -> None:
    for name, content in made(tmp_path).items():
        (tmp_path / name).write_text(content)
    result = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.glob("bitrix-cdn-drift.*"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_only_root_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(DriftError, match="only root"):
        install("inventories/production.py", "root")


def test_an_unknown_account_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(timer, "SYSTEMD", tmp_path)
    monkeypatch.setattr(timer, "PLACE", tmp_path)
    with pytest.raises(DriftError, match="no account nobody-of-that-name"):
        install("inventories/production.py", "nobody-of-that-name")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd says what a calendar is")
def test_a_calendar_that_is_none_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(timer, "SYSTEMD", tmp_path)
    monkeypatch.setattr(timer, "PLACE", tmp_path)
    settings = Settings(drift=DriftSettings(calendar="whenever"))
    monkeypatch.setattr(timer, "load", lambda _: SimpleNamespace(settings=settings))
    with pytest.raises(DriftError, match="whenever"):
        install("inventories/production.py", "root")
    assert list(tmp_path.iterdir()) == []

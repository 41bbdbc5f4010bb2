"""Where backups go and what opens them is judged before any host is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.backup import BackupSettings, SftpTarget, password_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOWxm4Fqu"


def settings(**values: Any) -> BackupSettings:
    return BackupSettings.model_validate({"password": "file:/somewhere", **values})


def test_none_are_made_by_default() -> None:
    assert Settings().backup.repository == ""


def test_a_path_and_an_sftp_server_are_repositories() -> None:
    assert settings(repository="/mnt/disk/backups").sftp is None
    found = settings(repository="sftp:shop-1@vault.example.com:/srv/backups", sftp_host_key=KEY)
    assert found.sftp == SftpTarget("shop-1", "vault.example.com", "/srv/backups")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"repository": "backups"}, "sftp:user@host:/path is allowed"),
        ({"repository": "/backups/"}, "without a trailing slash"),
        ({"repository": "/srv/../etc"}, "is allowed"),
        ({"repository": "/srv/$(reboot)"}, "is allowed"),
        ({"repository": "sftp:vault:/srv"}, "is allowed"),
        ({"repository": "sftp:a@-oProxyCommand=x:/srv", "sftp_host_key": KEY}, "is allowed"),
        ({"repository": "s3:bucket"}, "is allowed"),
        ({"repository": "sftp:a@vault:/srv"}, "needs sftp_host_key"),
        ({"repository": "sftp:a@vault:/srv", "sftp_host_key": "AAAA"}, "sftp_host_key"),
        ({"repository": "/srv", "password": ""}, "repository needs password"),
        ({"repository": "/srv", "password": "secret"}, "file:PATH or env:NAME is allowed"),
        ({"repository": "/srv", "at": "24:00"}, "at"),
        ({"repository": "/srv", "keep_daily": 0}, "keep_daily"),
        ({"repository": "/srv", "check_percent": 101}, "check_percent"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**values)
    assert words in str(caught.value)


def test_a_password_that_others_may_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    own = settings(repository="/srv", password=f"file:{file}")
    for mode in (0o644, 0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(PyinfraError, match=r"others may read it; chmod 600") as caught:
            password_of(own)
        assert "secret" not in str(caught.value)
    file.chmod(0o600)
    assert password_of(own) == "secret"


def test_a_missing_password_file_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(PyinfraError, match="bitrix-cdn backup init"):
        password_of(settings(repository="/srv", password=f"file:{tmp_path}/none"))


def test_a_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_PASSWORD", "secret")
    assert password_of(settings(repository="/srv", password="env:BACKUP_PASSWORD")) == "secret"

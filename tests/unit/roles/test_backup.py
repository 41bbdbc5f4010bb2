"""What is saved of which host, and what of that is whose secret."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bitrix_cdn.engine.files import File
from bitrix_cdn.settings import Settings
from host_agent.backup.config import Config, load
from host_agent.backup.errors import BackupError
from roles.backup import CONFIG, PASSWORD, SSH_CONFIG, command_files, configuration

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOWxm4Fqu"
SFTP = {"repository": "sftp:a@vault:/srv/backups", "sftp_host_key": KEY}


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_PASSWORD", "a secret")


def settings(backup: dict[str, Any], **others: Any) -> Settings:
    return Settings.model_validate({"backup": {"password": "env:BACKUP_PASSWORD", **backup}, **others})


def written(backup: dict[str, Any], *groups: str) -> dict[str, File]:
    return {file.path: file for file in command_files(settings(backup), groups[0], groups)}


@pytest.mark.parametrize("groups", [("bitrix",), ("cdn",), ("cdn", "monitoring"), ("edge",)], ids="-".join)
@pytest.mark.parametrize("backup", [{"repository": "/srv"}, SFTP], ids=["path", "sftp"])
def test_the_host_reads_what_the_deploy_writes(
    backup: dict[str, Any], groups: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(written(backup, *groups)[CONFIG].content)
    config = load(file)
    assert isinstance(config, Config)
    assert config.repository == f"{backup['repository']}/{groups[0]}"
    assert [one.name for one in config.redis] == (["cache", "queue"] if "cdn" in groups else [])
    assert bool(config.prometheus) == ("monitoring" in groups)
    assert bool(config.sftp_command) == (backup is SFTP)


def test_a_configuration_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    content = written({"repository": "/srv"}, "cdn")[CONFIG].content
    # The last lines are those of a table; the first are not.
    for changed in ("unheard_of = 1\n" + content, content + "unheard_of = 1\n"):
        file.write_text(changed)
        with pytest.raises(BackupError, match=r"unheard_of.*; deploy again"):
            load(file)
    with pytest.raises(BackupError, match="No such file"):
        load(tmp_path / "none.toml")


def test_the_password_is_in_its_file_and_nowhere_else() -> None:
    for backup in ({"repository": "/srv"}, SFTP):
        files = written(backup, "cdn", "monitoring")
        assert [path for path, file in files.items() if "a secret" in file.content] == [PASSWORD]
        assert files[PASSWORD].mode == "600"
        assert "a secret" not in repr(files)


def test_what_opens_the_backups_is_no_part_of_them() -> None:
    values = configuration(settings(SFTP), "cdn", ("cdn",))
    assert str(Path(PASSWORD).parent) in values["excluded"]


@pytest.mark.parametrize(
    ("tls", "paths"),
    [
        ({"mode": "self-signed"}, {"/etc/nginx/tls"}),
        (
            {"mode": "files", "certificate": "/etc/ssl/a.pem", "key": "/etc/ssl/a.key"},
            {"/etc/ssl/a.pem", "/etc/ssl/a.key"},
        ),
        ({"mode": "acme"}, {"/etc/letsencrypt", "/etc/nginx/tls"}),
    ],
    ids=lambda value: value.get("mode") if isinstance(value, dict) else "",
)
def test_keys_and_certificates_come_before_the_deploy(tls: dict[str, Any], paths: set[str]) -> None:
    found = settings({"repository": "/srv"}, tls=tls, nginx={"server_names": ["cdn.example.com"]})
    identity = set(configuration(found, "cdn", ("cdn",))["identity"])
    assert paths | {"/etc/ssh/ssh_host_*", "/etc/bitrix-cdn", "/etc/webp-converter/api-token"} <= identity


def test_of_the_shops_host_only_what_is_ours_is_saved() -> None:
    values = configuration(settings({"repository": "/srv", "pictures": True}), "shop", ("bitrix",))
    ours = ("/etc/bitrix-cdn", "/etc/mount-guard", "/etc/ssh/", "/var/log/bitrix-cdn")
    assert all(path.startswith(ours) for path in values["identity"] + values["configuration"])
    assert values["pictures"] == []
    assert not values["with_pictures"]
    assert values["picture_users"] == values["data_users"] == []


def test_pictures_are_saved_where_they_are_wanted() -> None:
    trees = ["/var/www/cdn/upload/resize_cache", "/var/cache/webp"]
    for wanted in (False, True):
        values = configuration(settings({"repository": "/srv", "pictures": wanted}), "cdn", ("cdn",))
        assert values["with_pictures"] is wanted
        # Where they are restored to is known even if they are no longer saved.
        assert values["pictures"] == trees


def test_a_path_needs_no_network_and_a_server_is_known_by_its_key() -> None:
    unit = "/etc/systemd/system/bitrix-cdn-backup.service"
    alone, over_sftp = written({"repository": "/srv"}, "cdn"), written(SFTP, "cdn")
    assert "RestrictAddressFamilies=AF_UNIX\n" in alone[unit].content
    assert "AF_INET6" in over_sftp[unit].content
    assert SSH_CONFIG not in alone
    assert "StrictHostKeyChecking yes" in over_sftp[SSH_CONFIG].content
    assert KEY in over_sftp["/etc/bitrix-cdn/backup/known_hosts"].content
    assert tomllib.loads(over_sftp[CONFIG].content)["sftp_command"].endswith("-s repository sftp")

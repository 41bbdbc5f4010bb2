"""`bitrix-cdn new`: what it asks, what it refuses at once, and what it writes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bitrix_cdn.cli import main
from bitrix_cdn.cli.exits import Exit
from bitrix_cdn.fleet import load
from bitrix_cdn.new.questions import QUESTIONS
from bitrix_cdn.new.russian import RUSSIAN
from tests.kit.deployment import ROOT

Captured = pytest.CaptureFixture[str]

LEAST = ["--set", "site_host=shop.acme.test", "--set", "cdn_host=cdn.acme.test"]
FULL = """
site_host = "shop.acme.test"
site_address = "10.1.0.2"
site_user = "deploy"
site_port = 2222
cdn_host = "cdn.acme.test"
cdn_address = "10.1.0.3"
root = "/home/bitrix/www"
php_user = "bitrix"
names = "cdn.acme.test, img.acme.test"
tls = "files"
certificate = "/etc/ssl/shop.pem"
key = "/etc/ssl/shop.key"
language = "ru"
email = "a@acme.test, b@acme.test"
sender = "cdn@acme.test"
smarthost = "smtp.acme.test:587"
smtp_user = "it's \\"me\\""
smtp_password = "env:SMTP_PASSWORD"
telegram = "-100123, 45"
telegram_token = "env:TELEGRAM_TOKEN"
backup = "sftp:backups@vault.acme.test:/srv/backups"
backup_host_key = "ssh-ed25519 AAAA"
backup_password = "env:BACKUP_PASSWORD"
"""


def test_two_names_are_enough_and_check_accepts_it(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "shop.py"
    assert main(["new", str(file), "--json", *LEAST]) == Exit.FINE, capsys.readouterr()
    assert main(["check", "-i", str(file)]) == Exit.FINE
    found = load(str(file))
    assert (found.settings.tls.mode, found.settings.nginx.server_names) == ("acme", ["cdn.acme.test"])
    assert (found.groups["bitrix"], found.groups["cdn"]) == (("shop.acme.test",), ("cdn.acme.test",))
    assert file.read_text().count("# ") > 20


def test_each_answer_comes_to_its_setting(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SMTP_PASSWORD", "TELEGRAM_TOKEN", "BACKUP_PASSWORD"):
        monkeypatch.setenv(name, "a secret")
    answers, file = tmp_path / "answers.toml", tmp_path / "shop.py"
    answers.write_text(FULL)
    assert main(["new", str(file), "--answers", str(answers)]) == Exit.FINE, capsys.readouterr()
    found = load(str(file))
    settings, alerts = found.settings, found.settings.monitoring.alertmanager
    shop = next(entry.data for entry in found.entries if entry.name == "shop.acme.test")
    assert (shop["address"], shop["ssh_port"], shop["ssh_user"]) == ("10.1.0.2", 2222, "deploy")
    assert (settings.site.root, settings.site.user, settings.site.group) == (
        "/home/bitrix/www",
        "bitrix",
        "bitrix",
    )
    assert settings.nginx.server_names == ["cdn.acme.test", "img.acme.test"]
    assert (settings.tls.mode, settings.tls.certificate) == ("files", "/etc/ssl/shop.pem")
    assert settings.monitoring.language == "ru"
    assert (alerts.email.to, alerts.email.username) == (["a@acme.test", "b@acme.test"], 'it\'s "me"')
    assert alerts.telegram.chats == [-100123, 45]
    assert settings.backup.repository == "sftp:backups@vault.acme.test:/srv/backups"


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("site_host=shop.example.com", "it is the example's"),
        ("site_host=a b", "an address or a host's name is allowed"),
        ("cdn_address=127.0.0.1", "the other hosts can't reach it"),
        ("root=/var/www/", "without a trailing slash"),
        ("php_user=Bitrix!", "a Unix account name is allowed"),
        ("tls=on", "acme, files, self-signed, off is allowed"),
        ("site_port=0", "1 to 65535"),
        ("telegram=@shop", "numbers of chats are allowed"),
        ("telegram_token=123:abc", "file:PATH or env:NAME is allowed"),
        ("backup=backups", "/path or sftp:user@host:/path is allowed"),
        ("email=nobody", "should match pattern"),
        ("nosuch=1", "there is no such question"),
        ("tls", "KEY=ANSWER is allowed"),
    ],
)
def test_a_wrong_answer_is_one_line_and_writes_nothing(
    pair: str, said: str, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "shop.py"
    assert main(["new", str(file), "--json", *LEAST, "--set", pair]) == Exit.USAGE
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not file.exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "shop.py"
    file.write_text("mine")
    assert main(["new", str(file), "--json", *LEAST]) == Exit.USAGE
    assert "is there already" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_what_must_be_answered_is_said_where_nobody_is_asked(tmp_path: Path, capsys: Captured) -> None:
    assert main(["new", str(tmp_path / "shop.py"), "--json", *LEAST[:2]]) == Exit.USAGE
    assert "cdn_host: an answer is needed" in capsys.readouterr().err


@pytest.mark.parametrize("language", ["C.UTF-8", "ru_RU.UTF-8"])
def test_on_a_terminal_a_wrong_answer_is_asked_for_again(tmp_path: Path, language: str) -> None:
    file = tmp_path / "shop.py"
    leader, follower = pty.openpty()
    # Two answers, of which the first is wrong at first; for all else the default.
    typed = ["shop.example.com", "shop.acme.test", "", "", "", "cdn.acme.test", *[""] * 20]
    os.write(leader, "".join(f"{one}\n" for one in typed).encode())
    done = subprocess.run(
        [sys.executable, "-m", "bitrix_cdn", "new", str(file)],
        cwd=ROOT,
        stdin=follower,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LC_ALL": "", "LANG": language},
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 0, done.stderr
    assert "'shop.example.com': it is the example's" in done.stderr
    assert bool(re.search(r"[\u0430-\u044f]", done.stderr)) == language.startswith("ru")
    assert list(load(str(file)).hosts) == ["shop.acme.test", "cdn.acme.test"]


def test_an_end_of_the_answers_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    done = subprocess.run(
        [sys.executable, "-m", "bitrix_cdn", "new", str(file)],
        cwd=ROOT,
        input="shop.acme.test\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.USAGE
    assert "nothing was written" in done.stderr
    assert not file.exists()


def test_each_question_is_there_in_both_languages() -> None:
    assert [*RUSSIAN] == [question.key for question in QUESTIONS]
    assert all(re.search(r"[\u0430-\u044f]", text) for text in RUSSIAN.values())

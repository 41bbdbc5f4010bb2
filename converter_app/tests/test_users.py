"""On a Redis that asks for passwords the daemon does all its work as users who may nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from converter_app.tests.harness import DaemonProcess, RedisServer, command, decided, wait_until
from tests.kit import pictures

from webp_converter.config import ConfigError, load


def test_it_converts_and_comes_back_when_the_passwords_are_others(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", users=True)
    server.start()
    sections: dict[str, Any] = {name: server.settings(name) for name in ("queue", "cache")}
    daemon = DaemonProcess(tmp_path / "cdn", server.url, **sections)
    try:
        daemon.start()
        first, second = (daemon.root / name for name in ("first.jpg", "second.jpg"))
        first.write_bytes(pictures.jpeg())
        wait_until(lambda: decided(first))
        for words in (["queue"], ["stats"], ["dead", "list"], ["status"]):
            assert command(*words, "--config", daemon.config_file).returncode == 0, words
        refused: Any = server.operator().acl_log()
        assert not refused

        server.kill()
        server.passwords = "another-{}"
        for name in ("queue", "cache"):
            server.settings(name)
        server.start()
        second.write_bytes(pictures.jpeg())
        wait_until(lambda: decided(second))
    finally:
        daemon.kill()
        server.kill()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("user = 'converter'", "user and password_file need each other"),
        ("password_file = '/etc/x'", "user and password_file need each other"),
        ("user = 'converter'\npassword_file = 'x'", "an absolute path"),
        ("user = 'a b'\npassword_file = '/etc/x'", "queue.user"),
        ("url = 'redis://a:b@host:1/0'\nuser = 'c'\npassword_file = '/etc/x'", "not in both"),
    ],
)
def test_half_a_user_is_refused(tmp_path: Path, section: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[queue]\n{section}\n")
    with pytest.raises(ConfigError, match=said):
        load(file)

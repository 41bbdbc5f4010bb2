"""What a look prints, read; and its command, run here on a tree of our own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bitrix_cdn.drift.inspection import Account, Inspection, Key, Socket, seen
from bitrix_cdn.engine.keys import fingerprint

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1OtNnWvxYkJLKxjPSJGmHPRBDzVwMHiwMSMbbLkWmE"


def test_sockets_of_all_forms_are_read() -> None:
    found = seen(
        [
            ":sockets",
            'udp UNCONN 0 0 198.19.0.3%host0:68 0.0.0.0:* users:(("systemd-network",pid=1,fd=3))',
            'tcp LISTEN 0 511 [::1]:6379 [::]:* users:(("redis-server",pid=1,fd=9),("x",pid=2,fd=9))',
            "udp UNCONN 0 0 *:51820 *:*",
            'tcp LISTEN 0 5 [fe80::1]%eth0:8000 [::]:* users:(("python3",pid=3,fd=3))',
        ]
    )
    assert found.sockets == [
        Socket("udp", "198.19.0.3", 68, "systemd-network"),
        Socket("tcp", "::1", 6379, "redis-server"),
        Socket("udp", "*", 51820, ""),
        Socket("tcp", "fe80::1", 8000, "python3"),
    ]
    assert [one.local for one in found.sockets] == [False, True, False, False]


def test_a_udp_socket_that_is_gone_half_a_second_later_does_not_count() -> None:
    stays, goes = "0.0.0.0:40001 0.0.0.0:*", "0.0.0.0:40002 0.0.0.0:*"
    found = seen(
        [
            ":sockets",
            f"udp UNCONN 0 0 {stays}",
            f"udp UNCONN 0 0 {goes}",
            "tcp LISTEN 0 5 0.0.0.0:40003 0.0.0.0:*",
            ":again",
            f"UNCONN 0 0 {stays}",
        ]
    )
    assert {(one.protocol, one.port) for one in found.sockets} == {("udp", 40001), ("tcp", 40003)}


def test_accounts_are_read_with_the_kind_of_their_password() -> None:
    found = seen(
        [
            ":accounts",
            "root:x:0:0:root:/root:/bin/bash",
            "eve:x:1000:1000:,,,:/home/eve:",
            "a line that is broken",
            ":passwords",
            "root set",
            "eve empty",
            ":members",
            "sudo:x:27:eve,mallory",
            "disk:x:6:",
        ]
    )
    assert found.accounts == [
        Account("root", 0, "/root", "/bin/bash", "set"),
        Account("eve", 1000, "/home/eve", "", "empty"),
    ]
    assert found.members == {"sudo": ["eve", "mallory"]}


def test_keys_are_read_with_options_and_without() -> None:
    found = seen(
        [
            ":keys",
            "root # a comment",
            f"root {PUBLIC} laptop",
            f'eve command="echo ssh-rsa no",restrict {PUBLIC}',
            "eve nonsense",
        ]
    )
    print_of = fingerprint(PUBLIC)
    assert found.keys == [Key("root", print_of, "laptop"), Key("eve", print_of, ""), Key("eve", "", "")]


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen says what is right")
def test_a_fingerprint_is_that_of_ssh_keygen(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", tmp_path / "key"], check=True
    )
    public = tmp_path / "key.pub"
    shown = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout
    assert fingerprint(public.read_text()) == shown.split()[1]


def test_what_a_package_brought_is_not_told() -> None:
    found = seen(
        [
            ":entries",
            "f 440 root root 1068 2024-06-01 /etc/sudoers.d/README",
            "l 777 root root 11 2026-01-01 /etc/nginx/sites-enabled/with a blank",
            ":packaged",
            "sudo: /etc/sudoers.d/README",
        ]
    )
    [entry] = found.entries
    assert (entry.path, entry.kind) == ("/etc/nginx/sites-enabled/with a blank", "l")


@pytest.mark.skipif(os.geteuid() != 0, reason="/etc/shadow is root's")
def test_the_command_tells_unknown_files_and_no_known_one(tmp_path: Path) -> None:
    deep, flat = tmp_path / "it's deep", tmp_path / "flat"
    (deep / "below").mkdir(parents=True)
    (flat / "below").mkdir(parents=True)
    for path in (deep / "known", deep / "below" / "a\nb", flat / "unit", flat / "below" / "not looked at"):
        path.write_text("x")
    (flat / "masked").symlink_to("/dev/null")
    command = Inspection().command([str(deep), "/nonexistent"], [str(flat)], [str(deep / "known")], [53])
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = seen(result.stdout.splitlines())
    assert [one.path for one in found.entries] == [str(flat / "unit"), str(deep / "below" / "a?b")]
    assert "root" in {one.name for one in found.accounts}
    assert shlex.quote(str(deep)) in command

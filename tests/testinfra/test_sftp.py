"""Role sftp: each host reaches the other's files, and nothing else there."""

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.nginx import REFUSED
from roles.sftp import KEY

SSH = "-F /etc/mount-guard/ssh_config peer"


def sftp(host: Host, *commands: str) -> tuple[int, str]:
    """Runs commands in one sftp session from a host to its peer; exit status and all that was printed."""
    script = "\\n".join(commands)
    # testinfra takes 255 for a failure of the connection.
    result = host.run(f"printf '{script}\\n' | sftp -b - {SSH} || exit 1")
    return result.rc, result.stdout + result.stderr


def test_each_host_reaches_what_the_other_shows_it(bitrix: Host, cdn: Host) -> None:
    assert "/resize_cache" in sftp(bitrix, "ls /")[1]
    assert "/upload" in sftp(cdn, "ls /")[1]


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_the_key_never_left_the_host(group: str, bitrix: Host, cdn: Host) -> None:
    host, other = (bitrix, cdn) if group == "bitrix" else (cdn, bitrix)
    assert host.file(KEY).mode == 0o600
    assert host.file(KEY).user == "root"
    assert host.file(KEY).content_string != other.file(KEY).content_string


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_no_shell_command_no_forwarding(group: str, bitrix: Host, cdn: Host) -> None:
    host = bitrix if group == "bitrix" else cdn
    asked = host.run(f"ssh {SSH} id || exit 1")
    assert asked.rc != 0
    assert "allows sftp connections only" in asked.stdout
    # -W asks the other host to connect to its own SSH port for us.
    forwarded = host.run(
        f"timeout 10 ssh -o ClearAllForwardings=no -W 127.0.0.1:22 {SSH} </dev/null || exit 1"
    )
    assert "SSH-2.0" not in forwarded.stdout


def test_originals_are_read_only_on_the_server(cdn: Host, bitrix: Host, settings: Settings) -> None:
    # Even where www-data itself may write, and root owns nothing.
    for command in ("mkdir /upload/iblock/intruder", "put /etc/hostname /upload/iblock/intruder.jpg"):
        status, said = sftp(cdn, command)
        assert status != 0, said
        assert "ermission denied" in said
    assert not bitrix.file(f"{settings.site.upload}/iblock/intruder").exists
    assert not bitrix.file(f"{settings.site.upload}/iblock/intruder.jpg").exists


def test_the_export_does_not_show_the_cdns_own_mount(bitrix: Host, settings: Settings) -> None:
    # It would be a loop through both hosts.
    export = f"{settings.sftp.export}/upload"
    exported = bitrix.check_output("findmnt -R -n -o TARGET --list %s", export)
    assert sorted(exported.split()) == sorted([export, *(f"{export}/{hidden}" for hidden in REFUSED)])


def test_chroots_hide_the_rest_of_the_host(cdn: Host, bitrix: Host) -> None:
    for host in (bitrix, cdn):
        status, said = sftp(host, "ls /etc")
        assert status != 0
        assert "not found" in said


def test_another_host_key_is_refused(bitrix: Host) -> None:
    lines = bitrix.file("/etc/bitrix-cdn/ssh/known_hosts").content_string.split()
    wrong = bitrix.check_output(
        "d=$(mktemp -d); ssh-keygen -q -t ed25519 -N '' -f $d/k; "
        f"printf '{lines[0]} ' > $d/hosts; cut -d' ' -f1,2 $d/k.pub >> $d/hosts; echo $d/hosts"
    )
    asked = bitrix.run(f"sftp -b /dev/null -o UserKnownHostsFile={wrong} {SSH} || exit 1")
    assert asked.rc != 0
    assert "IDENTIFICATION HAS CHANGED" in asked.stderr

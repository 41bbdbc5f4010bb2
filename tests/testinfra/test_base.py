"""Role base: what every host has."""

from testinfra.host import Host


def test_sshfs_is_there(bitrix: Host, cdn: Host) -> None:
    for host in (bitrix, cdn):
        assert host.run("sshfs --version").rc == 0


def test_nothing_has_failed(bitrix: Host, cdn: Host) -> None:
    for host in (bitrix, cdn):
        assert host.check_output("systemctl --failed --plain --no-legend") == ""

"""Role baseline: what protects a host whatever runs on it."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from roles.baseline import CLOCKS, INTEGRITY, SYSCTL


def test_security_updates_alone_are_installed_by_themselves(cdn: Host) -> None:
    said = cdn.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in said
    origins = [line for line in said.splitlines() if line.startswith("Unattended-Upgrade::Origins-Pattern::")]
    assert len(origins) == 2
    assert all("label=Debian-Security" in line for line in origins)
    # Its own reading of that.
    read = cdn.run("unattended-upgrade --dry-run --debug")
    allowed = [line for line in (read.stdout + read.stderr).splitlines() if "Allowed origins are" in line]
    assert read.rc == 0, read
    assert allowed
    assert allowed[0].count("label=Debian-Security") == 2
    assert allowed[0].count("origin=") == 2


def test_one_program_sets_the_clock(cdn: Host) -> None:
    shown = "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' %s 2>/dev/null || true"
    there = [line for line in cdn.check_output(shown % " ".join(CLOCKS)).splitlines() if "not" not in line]
    assert len([line for line in there if line.startswith("installed ")]) == 1
    # In a container the clock is the machine's: the unit doesn't start there.
    assert cdn.service("systemd-timesyncd").is_enabled


def test_the_kernel_takes_no_redirects_and_tells_nothing_of_itself(cdn: Host) -> None:
    written = cdn.file(SYSCTL).content_string
    settings = dict(line.split(" = ") for line in written.splitlines() if " = " in line)
    assert {"kernel.kptr_restrict", "net.ipv4.conf.all.accept_redirects"} <= settings.keys()
    for key, value in settings.items():
        file = f"/proc/sys/{key.replace('.', '/')}"
        # In a container, what isn't the network's belongs to the machine below.
        if cdn.run("test -w %s", file).rc == 0:
            assert cdn.file(file).content_string.strip() == value, key
    assert cdn.file("/proc/sys/net/ipv4/conf/all/accept_redirects").content_string.strip() == "0"


@pytest.mark.smoke
def test_the_programs_are_as_their_packages_brought_them(cdn: Host) -> None:
    unit = f"{INTEGRITY}.service"
    assert cdn.service(f"{INTEGRITY}.timer").is_running
    checked = cdn.run("systemctl start %s", unit)
    assert checked.rc == 0, cdn.check_output("journalctl -u %s -n 20 --no-pager -o cat", unit)
    cdn.check_output("cp -p /usr/bin/less /root/less && echo >> /usr/bin/less")
    try:
        assert cdn.run("systemctl start %s", unit).rc != 0
        # What ServiceFailed rings for.
        assert cdn.check_output("systemctl is-failed %s", unit) == "failed"
        said = cdn.check_output("journalctl -u %s -n 5 --no-pager -o cat", unit)
        assert "/usr/bin/less is not as its package brought it" in said
    finally:
        cdn.check_output("mv /root/less /usr/bin/less && systemctl reset-failed %s", unit)


def test_the_shops_host_is_left_alone(bitrix: Host) -> None:
    assert not bitrix.package("unattended-upgrades").is_installed
    assert not bitrix.file(f"/etc/systemd/system/{INTEGRITY}.timer").exists

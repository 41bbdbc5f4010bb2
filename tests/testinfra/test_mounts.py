"""Role mounts: each host sees the other's files where the contract says."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.originals import ACCOUNT as READER
from tests.kit.inventory import Inventory
from tests.kit.support import wait_until


@pytest.mark.smoke
@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_the_mount_is_there_and_answers(group: str, inventory: Inventory, settings: Settings) -> None:
    host = inventory.host(group)
    path = settings.site.resize_cache if group == "bitrix" else settings.cdn.originals
    assert host.check_output("findmnt -n -o FSTYPE --mountpoint %s", path) == "fuse.sshfs"
    assert host.run("timeout 5 stat -f %s", path).rc == 0


def test_what_php_writes_belongs_to_www_data_on_the_cdn_host(
    bitrix: Host, cdn: Host, settings: Settings
) -> None:
    name = f"testinfra-{uuid4().hex}.txt"
    here, there = f"{settings.site.resize_cache}/{name}", f"{settings.cdn.resize_cache}/{name}"
    bitrix.check_output("runuser -u %s -- sh -c 'umask 022; echo picture > %s'", settings.site.user, here)
    try:
        found = cdn.file(there)
        assert found.content_string == "picture\n"
        assert (found.user, found.group, found.mode) == ("www-data", "www-data", 0o644)
        assert bitrix.file(here).user == settings.site.user
    finally:
        bitrix.check_output("rm %s", here)


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_nothing_of_the_other_host_is_run_with_rights_or_at_all(
    group: str, inventory: Inventory, settings: Settings
) -> None:
    host = inventory.host(group)
    path = settings.site.resize_cache if group == "bitrix" else settings.cdn.originals
    options = host.check_output("findmnt -n -o OPTIONS --mountpoint %s", path).split(",")
    assert {"nosuid", "nodev", "noexec"} <= {*options}


def test_a_program_in_the_place_of_a_picture_does_not_run(bitrix: Host, settings: Settings) -> None:
    place = f"{settings.site.resize_cache}/testinfra-{uuid4().hex}"
    write = f"cp /usr/bin/id {place} && chmod 6777 {place}"
    bitrix.check_output("runuser -u %s -- sh -c %s", settings.site.user, write)
    try:
        assert bitrix.file(place).mode == 0o6777
        tried = bitrix.run("runuser -u nobody -- %s", place)
        assert tried.rc != 0
        assert "Permission denied" in tried.stderr
    finally:
        bitrix.check_output("rm %s", place)


def test_originals_can_be_read_but_not_written(cdn: Host, settings: Settings) -> None:
    assert cdn.run("runuser -u %s -- ls %s", READER, settings.cdn.originals).rc == 0
    assert cdn.run("touch %s/x", settings.cdn.originals).rc != 0
    assert "ro" in cdn.check_output("findmnt -n -o OPTIONS --mountpoint %s", settings.cdn.originals).split(
        ","
    )


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_a_killed_sshfs_comes_back(group: str, bitrix: Host, cdn: Host, settings: Settings) -> None:
    host, path, name = (
        (bitrix, settings.site.resize_cache, "resize-cache")
        if group == "bitrix"
        else (cdn, settings.cdn.originals, "originals")
    )
    before = host.check_output("pgrep -x sshfs")
    guard = host.check_output("systemctl show -p MainPID --value %s", f"mount-guard@{name}")
    host.check_output("kill -KILL %s", before)

    def back() -> bool:
        return (
            host.run("pgrep -x sshfs").stdout.strip() not in {before, ""}
            and host.run(f"mountpoint -q {path} && stat -f {path}").rc == 0
        )

    wait_until(f"{path} mounted again", back, bool, timeout=20)
    # It is the guard that brought it back, not a restart of the guard.
    assert guard == host.check_output("systemctl show -p MainPID --value %s", f"mount-guard@{name}")


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_a_mount_that_is_gone_before_it_is_bound_leaves_nothing_over_the_real_path(
    group: str, bitrix: Host, cdn: Host, settings: Settings
) -> None:
    host, path, name = (
        (bitrix, settings.site.resize_cache, "resize-cache")
        if group == "bitrix"
        else (cdn, settings.cdn.originals, "originals")
    )
    flickering = (Path(__file__).parent / "flickering_sshfs.py").read_text()
    seen = f"for i in $(seq 40); do findmnt -n -o FSTYPE --mountpoint {path}; sleep 0.1; done; true"
    try:
        host.check_output("printf %%s %s > /usr/local/bin/sshfs; chmod 755 /usr/local/bin/sshfs", flickering)
        host.check_output("systemctl restart %s", f"mount-guard@{name}")
        # A spool that is pushed into the bare directory would be gone.
        if group == "bitrix":
            host.check_output("runuser -u %s -- sh -c 'echo picture > %s/waits'", settings.site.user, path)
        assert set(host.check_output(seen).split()) <= {"fuse.sshfs"}
        host.check_output("rm /usr/local/bin/sshfs; systemctl kill -s HUP %s", f"mount-guard@{name}")
        wait_until(f"{path} mounted", lambda: host.run("mount-guard status").rc, (0).__eq__, timeout=30)
        over = "awk -v p=%s '$5 == p' /proc/self/mountinfo"
        assert len(host.check_output(over, host.check_output("realpath %s", path)).splitlines()) == 1
        if group == "bitrix":
            wait_until(
                "pushed", lambda: cdn.file(f"{settings.cdn.resize_cache}/waits").exists, bool, timeout=20
            )
    finally:
        host.run("rm -f /usr/local/bin/sshfs %s/waits", path)
        host.check_output("systemctl restart %s", f"mount-guard@{name}")
    wait_until(f"{path} mounted", lambda: host.run("mount-guard status").rc, (0).__eq__, timeout=30)


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_the_guard_says_the_same_to_people_programs_and_prometheus(
    group: str, bitrix: Host, cdn: Host, settings: Settings
) -> None:
    host, name = (bitrix, "resize-cache") if group == "bitrix" else (cdn, "originals")
    assert f"{name}: mounted for" in host.check_output("mount-guard status")
    [status] = json.loads(host.check_output("mount-guard status --json"))
    assert (status["name"], status["state"], status["spool_files"]) == (name, "mounted", 0)
    metrics = host.file(f"{settings.mounts.metrics}/mount_guard_{name}.prom").content_string
    assert f'mount_guard_up{{mount="{name}"}} 1.0' in metrics
    shown = host.check_output("systemctl show -p StatusText --value %s", f"mount-guard@{name}")
    assert shown.startswith(f"{name}: mounted for")


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_a_stopped_guard_leaves_an_ordinary_directory_and_no_process(
    group: str, bitrix: Host, cdn: Host, settings: Settings
) -> None:
    host, path, name = (
        (bitrix, settings.site.resize_cache, "resize-cache")
        if group == "bitrix"
        else (cdn, settings.cdn.originals, "originals")
    )
    host.check_output("systemctl stop %s", f"mount-guard@{name}")
    try:
        assert host.run("mountpoint -q %s", path).rc != 0
        owner = settings.site.user if group == "bitrix" else READER
        assert host.check_output("stat -c %%U %s", path) == owner
        assert host.run("pgrep -x sshfs").stdout == ""
        assert host.run("mount-guard status").rc != 0
        assert "/run/mount-guard" not in host.check_output("cat /proc/mounts")
    finally:
        host.check_output("systemctl start %s", f"mount-guard@{name}")
    wait_until(f"{path} mounted", lambda: host.run("mount-guard status").rc, (0).__eq__, timeout=20)


def test_an_account_that_gets_another_number_while_it_is_mounted_can_go_on_writing(
    bitrix: Host, cdn: Host, settings: Settings
) -> None:
    user, path = settings.site.user, settings.site.resize_cache
    write = f"umask 022; echo picture > {path}/number && rm {path}/number"
    before = bitrix.check_output("id -u %s", user)
    try:
        bitrix.check_output("sed -i 's/^%s:x:[0-9]*:/%s:x:4321:/' /etc/passwd", user, user)
        wait_until(
            "it writes through the mount",
            lambda: (
                bitrix.run("runuser -u %s -- sh -c %s", user, write).rc,
                bitrix.run("mount-guard status").rc,
                bitrix.run("stat -c %%u %s", path).stdout.strip(),
            ),
            (0, 0, "4321").__eq__,
            timeout=30,
        )
    finally:
        bitrix.check_output("sed -i 's/^%s:x:[0-9]*:/%s:x:%s:/' /etc/passwd", user, user, before)
        wait_until(
            "as before", lambda: bitrix.check_output("stat -c %%u %s", path), before.__eq__, timeout=30
        )


def test_a_mount_that_the_account_cannot_write_to_is_none(
    bitrix: Host, cdn: Host, settings: Settings
) -> None:
    user, path = settings.site.user, settings.site.resize_cache
    cdn.check_output("chown root %s", settings.cdn.resize_cache)
    try:
        bitrix.check_output("systemctl restart mount-guard@resize-cache")
        status = bitrix.run("mount-guard status")
        assert status.rc == 1
        assert "not writable: the other host refuses" in status.stdout
        # It goes on, into its spool.
        bitrix.check_output("runuser -u %s -- sh -c 'echo picture > %s/unwritable'", user, path)
        assert bitrix.run("findmnt -n --mountpoint %s", path).rc == 1
        metrics = bitrix.file(f"{settings.mounts.metrics}/mount_guard_resize-cache.prom").content_string
        assert 'mount_guard_refused{mount="resize-cache",reason="access"} 1.0' in metrics
    finally:
        cdn.check_output("chown www-data %s", settings.cdn.resize_cache)
        bitrix.check_output("systemctl kill -s HUP mount-guard@resize-cache")
    pushed = f"{settings.cdn.resize_cache}/unwritable"
    wait_until("pushed", lambda: cdn.file(pushed).exists, bool, timeout=30)
    bitrix.check_output("rm %s/unwritable", path)


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_everybody_may_ask_for_the_status_whatever_the_umask(group: str, inventory: Inventory) -> None:
    host = inventory.host(group)
    assert "mounted for" in host.check_output("umask 077; runuser -u nobody -- mount-guard status")
    refused = host.run("runuser -u nobody -- mount-guard detach originals")
    assert (refused.rc, refused.stderr) == (2, "mount-guard: detach is for root alone\n")


def test_all_processes_of_the_host_see_the_mount(bitrix: Host, settings: Settings) -> None:
    # A service in a private mount namespace sees it come, too.
    seen = "systemd-run -q --wait --pipe -p PrivateTmp=yes findmnt -n -o FSTYPE --mountpoint %s"
    assert bitrix.check_output(seen, settings.site.resize_cache) == "fuse.sshfs"

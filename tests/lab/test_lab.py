"""The lab's promises, each tried on real hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.lab import guest, layout, network, packages, state
from dev.lab.errors import LabError
from dev.lab.layout import Layout
from tests.kit.lab import LabDriver

GREETING = "exec 3<>/dev/tcp/{to}/22; head -c4 <&3"
TIMED_OUT = 124  # of timeout(1): neither refused nor unreachable, just silence


# Hosts as an administrator gets them


def test_up_gives_two_bare_debian_hosts(main_lab: LabDriver) -> None:
    hosts = main_lab.status()
    assert list(hosts) == ["bitrix", "cdn"]
    for name, host in hosts.items():
        assert set(host) == {"name", "address", "state", "suite"}
        assert (host["state"], host["suite"]) == ("running", "trixie")
        assert main_lab.ssh(name, "hostname; . /etc/os-release; echo $VERSION_CODENAME").split() == [
            name,
            "trixie",
        ]
        assert main_lab.ssh(name, "systemctl is-system-running") == "running\n"
    assert main_lab.shell("cdn", "command -v python3 || dpkg -l | grep -c libpam-systemd", status=1) == "0\n"


def test_what_programs_see_is_what_the_command_line_says(main_lab: LabDriver) -> None:
    lab = state.load(main_lab.name)
    assert {host.name: vars(host) for host in lab.hosts} == main_lab.status()
    assert lab.ssh_key.stat().st_mode & 0o777 == 0o600
    assert lab.host("cdn").address in lab.known_hosts.read_text()
    with pytest.raises(LabError, match="no host 'edge'"):
        lab.host("edge")


def test_hosts_find_each_other_by_name(main_lab: LabDriver) -> None:
    for here, there in (("bitrix", "cdn"), ("cdn", "bitrix")):
        assert main_lab.shell(here, GREETING.format(to=there)) == "SSH-"


def test_ssh_is_not_slow(main_lab: LabDriver) -> None:
    started = time.monotonic()
    main_lab.ssh("cdn", "true")
    # 0.2 s when idle; a session that waits for PAM or for a reverse lookup takes 5 to 100.
    assert time.monotonic() - started < 4


def test_hosts_have_fuse_inotify_nftables_and_relatime(main_lab: LabDriver) -> None:
    # An unprivileged user may open it, as on any Debian.
    assert main_lab.shell("cdn", "setpriv --reuid 33 --clear-groups head -c0 /dev/fuse; echo $?") == "0\n"
    assert int(main_lab.shell("cdn", "cat /proc/sys/fs/inotify/max_user_watches")) >= 1_048_576
    main_lab.shell(
        "cdn", "nft add table inet probe && nft list tables | grep probe && nft delete table inet probe"
    )
    script = """
        mkdir -p /var/www && cd /var/www && findmnt -no OPTIONS -T .
        echo x > picture && touch -d '3 days ago' picture && cat picture > /dev/null
        [ "$(stat -c %X picture)" -gt "$(stat -c %Y picture)" ] && echo atime kept
    """
    answer = main_lab.shell("cdn", script)
    assert "noatime" not in answer
    assert "atime kept" in answer
    script = """
        systemd-run --quiet --path-property=PathChanged=/root/watched --unit=probe touch /root/noticed
        echo x > /root/watched
        for i in $(seq 50); do [ -e /root/noticed ] && exit 0; sleep 0.1; done; exit 1
    """
    main_lab.shell("cdn", script)


def test_a_host_mounts_another_hosts_files_and_its_packages_are_kept(main_lab: LabDriver) -> None:
    main_lab.shell("bitrix", "mkdir -p /srv/shared && echo picture > /srv/shared/file")
    install = "env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends sshfs"
    main_lab.ssh("cdn", f"{install} >/dev/null 2>&1")
    main_lab.ssh(
        "cdn", "mkdir -p /root/.ssh /mnt/shared && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519"
    )
    key = main_lab.shell("cdn", "cat /root/.ssh/id_ed25519.pub")
    main_lab.run("exec", "bitrix", "--", "sh", "-c", "cat >> /root/.ssh/authorized_keys", stdin=key)
    pinned = state.load(main_lab.name).known_hosts.read_text()
    main_lab.run("exec", "cdn", "--", "sh", "-c", "cat > /root/.ssh/known_hosts", stdin=pinned)
    main_lab.ssh("cdn", "sshfs bitrix:/srv/shared /mnt/shared && cat /mnt/shared/file && umount /mnt/shared")

    main_lab.run("reset", "cdn")
    assert list(packages.pool("trixie").glob("sshfs_*.deb"))
    # No network and no new lists: what an earlier host downloaded is enough.
    main_lab.run("partition", "cdn")
    try:
        main_lab.shell("cdn", f"timeout 60 {install} >/dev/null 2>&1 && sshfs --version")
    finally:
        main_lab.run("heal", "cdn")


# up


def test_up_again_is_quiet_and_leaves_hosts_alone(main_lab: LabDriver) -> None:
    before = [main_lab.boot_id(host) for host in ("bitrix", "cdn")]
    again = main_lab.run("up")
    assert again.stdout + again.stderr == ""
    assert [main_lab.boot_id(host) for host in ("bitrix", "cdn")] == before


def test_up_of_another_suite_is_refused(main_lab: LabDriver) -> None:
    refused = main_lab.run("up", "--suite", "bookworm", status=1)
    assert refused.stderr == f"lab: lab {main_lab.name} is of trixie: run `python -m dev.lab down` first\n"


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.3])
def test_a_killed_up_is_adopted(new_lab: LabDriver, seconds: float) -> None:
    process = new_lab.popen("up")
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    new_lab.run("up")
    assert {host["state"] for host in new_lab.status().values()} == {"running"}
    for host in ("bitrix", "cdn"):
        new_lab.ssh(host, "true")
        own = f"--directory={new_lab.files.host(host).root}\0".encode()
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert len([c for c in commands if c.startswith(b"systemd-nspawn\0") and own in c]) == 1


def test_a_lab_whose_record_is_lost_is_cleared(new_lab: LabDriver) -> None:
    new_lab.run("up")
    new_lab.shell("cdn", "touch /root/of-the-former-lab")
    new_lab.files.record.unlink()
    new_lab.run("status", status=1)
    new_lab.run("up")
    new_lab.shell("cdn", "[ ! -e /root/of-the-former-lab ]")
    new_lab.files.record.write_text("{")
    assert "lab down" in new_lab.run("up", status=1).stderr
    # The fixture's `down` now has neither record nor index to go by.


def test_further_hosts_join_a_running_lab(main_lab: LabDriver) -> None:
    lab = LabDriver(f"test-edge-{os.getpid()}")
    try:
        lab.run("up")
        before = lab.boot_id("cdn")
        lab.run("up", "--host", "edge1")
        assert list(lab.status()) == ["bitrix", "cdn", "edge1"]
        assert lab.boot_id("cdn") == before
        assert lab.shell("cdn", GREETING.format(to="edge1")) == "SSH-"
        assert lab.shell("edge1", GREETING.format(to="cdn")) == "SSH-"
        # The other lab has hosts of the same names, elsewhere and out of reach.
        theirs = {host["address"] for host in lab.status().values()}
        assert theirs.isdisjoint(host["address"] for host in main_lab.status().values())
        cdn = main_lab.status()["cdn"]["address"]
        lab.shell("edge1", f"timeout 1 bash -c '{GREETING.format(to=cdn)}'", status=TIMED_OUT)
    finally:
        lab.run("down")
    assert lab.remains() == []
    assert main_lab.ssh("cdn", "hostname") == "cdn\n"


def test_bookworm_beside_trixie(main_lab: LabDriver, new_lab: LabDriver) -> None:
    new_lab.run("up", "--suite", "bookworm")
    assert {host["suite"] for host in new_lab.status().values()} == {"bookworm"}
    assert new_lab.ssh("cdn", ". /etc/os-release; echo $VERSION_CODENAME") == "bookworm\n"
    assert new_lab.ssh("cdn", "systemctl is-system-running") == "running\n"
    assert main_lab.ssh("cdn", ". /etc/os-release; echo $VERSION_CODENAME") == "trixie\n"
    started = time.monotonic()
    new_lab.run("down")
    assert time.monotonic() - started < 5
    assert new_lab.remains() == []


def test_a_firewall_that_forwards_nothing_does_not_stop_the_lab(new_lab: LabDriver) -> None:
    # In a separate network namespace: the machine's other labs are not to be cut.
    firewall = "table inet wall { chain forward { type filter hook forward priority 0; policy drop; }; }"
    script = f"""
        set -e
        ip link set lo up
        nft '{firewall}'
        "$@" up
        "$@" exec bitrix -- timeout 5 bash -c '{GREETING.format(to="cdn")}'
        "$@" down
        nft list ruleset
    """
    process = new_lab.popen(prefix=("unshare", "--net", "bash", "-c", script, "bash"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "\nSSH-" in out
    # Ours left the firewall as it was.
    assert "bxlab" not in out
    assert "policy drop" in out


def test_a_host_that_cannot_boot_is_one_line_that_names_its_console_log(new_lab: LabDriver) -> None:
    new_lab.run("up")
    new_lab.run("kill", "cdn")
    where = new_lab.files.host("cdn")
    for init in ("usr/sbin/init", "usr/lib/systemd/systemd"):
        path = where.upper / init
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no program")
    started = time.monotonic()
    failed = new_lab.run("start", "cdn", status=1)
    assert time.monotonic() - started < 20
    assert failed.stderr.startswith("lab: cdn ended while booting: ")
    assert failed.stderr.endswith(f"(console: {where.console_log})\n")
    assert failed.stderr.count("\n") == 1
    new_lab.run("reset", "cdn")


def test_a_state_directory_on_overlayfs_is_refused(new_lab: LabDriver, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    script = """
        mount -t overlay -o "lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work" overlay "$0/merged"
        LAB_STATE=$0/merged/state exec "$@"
    """
    prefix = ("unshare", "--mount", "sh", "-c", script, str(tmp_path))
    refused = new_lab.run("up", prefix=prefix, status=2)
    assert refused.stderr.startswith("lab: ")
    assert "set LAB_STATE" in refused.stderr
    assert refused.stderr.count("\n") == 1


# exec


def test_exec_passes_streams_and_status_through(main_lab: LabDriver) -> None:
    result = main_lab.run(
        "exec", "cdn", "--", "sh", "-c", "cat; echo out; echo err >&2; exit 7", stdin="in\n", status=7
    )
    assert (result.stdout, result.stderr) == ("in\nout\n", "err\n")


def test_exec_takes_arguments_as_they_are(main_lab: LabDriver) -> None:
    assert (
        main_lab.run("exec", "cdn", "--", "printf", "%s|", "a b", "$HOME", "--json").stdout
        == "a b|$HOME|--json|"
    )


def test_exec_of_what_is_not_there(main_lab: LabDriver) -> None:
    assert "no-such-command" in main_lab.run("exec", "cdn", "--", "no-such-command", status=127).stderr
    assert "no host 'edge'" in main_lab.run("exec", "edge", "--", "true", status=1).stderr


def test_exec_is_a_process_of_the_host(main_lab: LabDriver) -> None:
    assert main_lab.shell("cdn", "hostname; ls /proc/1/root/root/.ssh; cat /proc/1/comm").split() == [
        "cdn",
        "authorized_keys",
        "systemd",
    ]
    assert main_lab.shell("cdn", "grep ^0: /proc/self/cgroup") == "0::/init.scope\n"


# partition and heal


@pytest.fixture
def outside(main_lab: LabDriver) -> Iterator[str]:
    """The address of something beyond the lab that listens on port 22: a namespace behind the machine."""
    index = network.choose_index("outside", [r.index for r in state.all_records()], network.routed_networks())
    near, far, name = network.address(index, 1), network.address(index, 2), f"outside{os.getpid()}"
    inside = ("ip", "netns", "exec", name)
    listen = "import socket; s = socket.create_server(('', 22))\nwhile True: s.accept()[0].sendall(b'SSH-')"
    try:
        for command in (
            ("ip", "netns", "add", name),
            ("ip", "link", "add", "outside0", "type", "veth", "peer", "name", "eth0", "netns", name),
            ("ip", "address", "add", f"{near}/24", "dev", "outside0"),
            ("ip", "link", "set", "outside0", "up"),
            (*inside, "ip", "address", "add", f"{far}/24", "dev", "eth0"),
            (*inside, "ip", "link", "set", "eth0", "up"),
        ):
            subprocess.run(command, check=True)
        with subprocess.Popen([*inside, "python3", "-c", listen]) as server:
            deadline = time.monotonic() + 10
            while not guest.answers_ssh(far) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield far
            server.kill()
    finally:
        subprocess.run(("ip", "netns", "delete", name), check=False)


def test_a_partitioned_host_is_cut_silently_from_all_but_the_machine(
    main_lab: LabDriver, outside: str
) -> None:
    ways = [("bitrix", "cdn"), ("cdn", "bitrix"), ("cdn", outside)]
    for here, there in ways:
        assert main_lab.shell(here, GREETING.format(to=there)) == "SSH-"
    main_lab.run("partition", "cdn")
    main_lab.run("partition", "cdn")
    try:
        assert main_lab.status()["cdn"]["state"] == "partitioned"
        assert main_lab.status()["bitrix"]["state"] == "running"
        for here, there in ways:
            main_lab.shell(here, f"timeout 1 bash -c '{GREETING.format(to=there)}'", status=TIMED_OUT)
        assert main_lab.shell("bitrix", GREETING.format(to=outside)) == "SSH-"
        assert main_lab.ssh("cdn", "hostname") == "cdn\n"
        assert main_lab.shell("cdn", "hostname") == "cdn\n"
    finally:
        main_lab.run("heal", "cdn")
        main_lab.run("heal", "cdn")
    for here, there in ways:
        assert main_lab.shell(here, GREETING.format(to=there)) == "SSH-"
    assert main_lab.status()["cdn"]["state"] == "running"


def test_a_connection_survives_a_partition(main_lab: LabDriver) -> None:
    """No RST and no ICMP reach either end: TCP retransmits and goes on where it was."""
    script = r"""
        rm -f /run/connected /run/cut
        exec 3<>/dev/tcp/cdn/22; read -r banner <&3; touch /run/connected
        until [ -e /run/cut ]; do sleep 0.05; done
        printf 'no SSH client\r\n' >&3; read -r answer <&3; echo "$answer"
    """
    process = main_lab.popen("exec", "bitrix", "--", "bash", "-c", script, stdin=subprocess.DEVNULL)
    main_lab.shell("bitrix", "until [ -e /run/connected ]; do sleep 0.05; done")
    main_lab.run("partition", "cdn")
    try:
        main_lab.shell("bitrix", "touch /run/cut")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    finally:
        main_lab.run("heal", "cdn")
    out, err = process.communicate(timeout=20)
    assert "Invalid SSH identification string" in out, err


# kill, start, reset, reboot


def test_a_killed_host_keeps_its_files(main_lab: LabDriver) -> None:
    before, address = main_lab.boot_id("cdn"), main_lab.status()["cdn"]["address"]
    main_lab.shell("cdn", "echo kept > /root/kept; systemd-run --quiet sleep 1000")
    main_lab.run("kill", "cdn")
    main_lab.run("kill", "cdn")
    assert main_lab.status()["cdn"]["state"] == "stopped"
    assert not guest.answers_ssh(address)
    assert "lab start cdn" in main_lab.run("exec", "cdn", "--", "true", status=1).stderr
    main_lab.run("start", "cdn")
    assert main_lab.ssh("cdn", "cat /root/kept") == "kept\n"
    assert main_lab.boot_id("cdn") != before
    assert main_lab.status()["cdn"]["address"] == address
    assert main_lab.shell("bitrix", GREETING.format(to="cdn")) == "SSH-"
    again = main_lab.run("start", "cdn")
    assert again.stdout + again.stderr == ""


def test_a_killed_host_starts_over_the_interface_that_it_left(main_lab: LabDriver) -> None:
    main_lab.run("kill", "cdn")
    record = state.existing(Layout(main_lab.name))
    left = network.port(record.index, record.host("cdn").number)
    # The kernel takes a killed host's away when it comes to it.
    subprocess.run(["ip", "link", "delete", "dev", left], check=False, capture_output=True)
    subprocess.run(["ip", "link", "add", "name", left, "type", "veth"], check=True)
    main_lab.run("start", "cdn")
    assert main_lab.shell("bitrix", GREETING.format(to="cdn")) == "SSH-"


def test_up_powers_stopped_hosts_on(main_lab: LabDriver) -> None:
    before = main_lab.boot_id("bitrix")
    main_lab.shell("cdn", "touch /root/kept-too")
    main_lab.shell("cdn", "systemctl poweroff --no-block")
    deadline = time.monotonic() + 30
    while main_lab.status()["cdn"]["state"] != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    main_lab.run("up")
    assert main_lab.ssh("cdn", "ls /root/kept-too") == "/root/kept-too\n"
    assert main_lab.boot_id("bitrix") == before


def test_a_host_that_reboots_comes_back(main_lab: LabDriver) -> None:
    before = main_lab.boot_id("cdn")
    main_lab.shell("cdn", "touch /root/before-reboot; systemctl reboot --no-block")
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        if main_lab.status()["cdn"]["state"] == "running" and main_lab.boot_id("cdn") != before:
            break
    assert main_lab.shell("bitrix", GREETING.format(to="cdn")) == "SSH-"
    main_lab.shell("cdn", "[ -e /root/before-reboot ]")


def test_a_reset_host_is_bare_at_the_same_address(main_lab: LabDriver) -> None:
    address = main_lab.status()["cdn"]["address"]
    main_lab.shell("cdn", "touch /root/gone /var/www-gone; rm /etc/issue")
    main_lab.shell("bitrix", "touch /root/stays")
    main_lab.run("reset", "cdn")
    assert main_lab.status()["cdn"]["address"] == address
    main_lab.ssh("cdn", "[ ! -e /root/gone ] && [ ! -e /var/www-gone ] && [ -e /etc/issue ]")
    main_lab.shell("bitrix", "[ -e /root/stays ]")
    assert main_lab.shell("bitrix", GREETING.format(to="cdn")) == "SSH-"


# down


def test_down_leaves_nothing_and_is_quiet_when_there_is_nothing(new_lab: LabDriver) -> None:
    new_lab.run("up")
    # What looks for remains sees them while there are some.
    remains = "\n".join(new_lab.remains())
    for trace in (
        "systemd-nspawn",
        "table ip ",
        "table bridge ",
        "alias",
        "cgroup",
        str(layout.state_root()),
    ):
        assert trace in remains
    index = state.existing(Layout(new_lab.name)).index
    new_lab.run("down")
    assert new_lab.remains() == []
    assert network.bridge(index) not in {entry["ifname"] for entry in network._links()}
    again = new_lab.run("down")
    assert again.stdout + again.stderr == ""
    assert "there is no lab" in new_lab.run("status", status=1).stderr


def test_down_after_its_hosts_were_killed_from_outside(new_lab: LabDriver) -> None:
    new_lab.run("up")
    record = state.existing(new_lab.files)
    pid = guest.leader(new_lab.files, record.host("cdn"))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    new_lab.run("up")
    assert {host["state"] for host in new_lab.status().values()} == {"running"}

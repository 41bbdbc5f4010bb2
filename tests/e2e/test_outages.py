"""The network and the hosts fail while the shop is used; each test prints what that cost.

`FAULTS=full` (`make faults`) makes the cuts as long and the kills as many as the promises say; without it
the same tests take minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dev.lab import state
from tests.e2e.traffic import traffic
from tests.kit.deployment import pyinfra
from tests.kit.hosts import Cdn, Shop
from tests.kit.lab import lab_command, partitioned
from tests.kit.mounts import _TREE, delayed, guard_pid, mounted_since, spool_files, spooled
from tests.kit.support import Figure, Remote, wait_until

FULL = os.environ.get("FAULTS") == "full"


STALL = 5.0
"""Seconds that a request may wait, once, when the other host vanishes."""
BACK = 10.0
"""Seconds from the end of a fault to the mount."""


def scaled(full: int, quick: int) -> int:
    return full if FULL else quick


def reconnects(remote: Remote, name: str) -> int:
    return int(
        remote.python(
            f'import json; result = json.load(open("/run/mount-guard/{name}/status.json"))["reconnects"]'
        )
    )


@pytest.fixture(autouse=True)
def both_mounted(shop: Shop, cdn: Cdn, bitrix: Remote) -> Iterator[None]:
    """Each test begins and ends with both mounts up and an empty spool."""
    yield
    for remote, name in ((bitrix, "resize-cache"), (cdn.remote, "originals")):
        mounted_since(remote, name, 0, 60)
    wait_until("an empty spool", lambda: spooled(bitrix), lambda files: not files, timeout=60)


def test_a_cdn_host_that_vanishes_from_the_network_stalls_the_site_once_and_loses_nothing(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    length = scaled(60, 15)
    with traffic(shop) as seen:
        time.sleep(4)
        cut = time.time()
        with partitioned("cdn"):
            time.sleep(length)
            again = seen.made_again
        healed = time.time()
        mounted = mounted_since(bitrix, "resize-cache", cut + 1)
        back = mounted - healed
        time.sleep(4)
    cdn.remote.disconnect()
    usual, stall = seen.usual(cut), seen.stall(cut - STALL, cut + 2 * STALL)
    later = seen.stall(cut + 2 * STALL)
    lost = seen.lost(cdn)
    figure(
        f"CDN host cut off for {length} s: longest wait {stall:.1f} s (figure: {STALL:g}), afterwards "
        f"{later:.2f} s (before: {usual:.2f} s); mounted {back:.1f} s after healing (figure: {BACK:g}); "
        f"{len(seen.requests)} requests, {len(seen.failures(0))} failed; {len(seen.made)} pictures, "
        f"{again} made again during the cut, {len(lost)} lost (figure: 0)"
    )
    assert lost == []
    assert 1 < stall <= STALL
    assert later <= max(1.5, 2 * usual)
    # What was under way in the moment of the change may have met both sides of it.
    assert seen.failures(cut + STALL, mounted - 1) == []
    assert seen.failures(mounted + 0.5) == []
    assert back <= BACK


def test_a_cdn_host_that_loses_power_in_the_middle_of_a_write_loses_nothing(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    with traffic(shop, pause=0.02) as seen:
        time.sleep(4)
        cut = time.time()
        lab_command("kill", "cdn")
        time.sleep(scaled(30, 5))
        cdn.remote.disconnect()
        powered = time.time()
        lab_command("start", "cdn")
        started = time.time()
        mounted = mounted_since(bitrix, "resize-cache", cut + 1)
        back = mounted - started
        time.sleep(2)
    stall, later = seen.stall(cut - STALL, cut + 2 * STALL), seen.stall(cut + 2 * STALL)
    wait_until("a healthy daemon", cdn.daemon_ready, timeout=60)
    lost = seen.lost(cdn)
    figure(
        f"CDN host without power: longest wait {stall:.1f} s (figure: {STALL:g}), afterwards {later:.2f} s; "
        f"mounted {mounted - powered:.1f} s after power on, its boot included; {len(seen.made)} pictures, "
        f"{len(lost)} lost (figure: 0)"
    )
    assert lost == []
    assert stall <= STALL
    assert back <= BACK
    assert seen.failures(cut + STALL, mounted - 1) == []
    assert seen.failures(mounted + 0.5) == []


def test_the_cdn_host_serves_on_while_the_site_is_cut_off(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    pictures = [shop.resized(300, 300) for _ in range(3)]
    for picture in pictures:
        cdn.as_webp(picture)
    slowest, answers = 0.0, 0
    cut = time.time()
    with partitioned("bitrix"):
        until = time.monotonic() + scaled(60, 12)
        while time.monotonic() < until:
            for picture in pictures:
                started = time.monotonic()
                assert cdn.get(picture).headers["Content-Type"] == "image/webp"
                slowest, answers = max(slowest, time.monotonic() - started), answers + 1
            time.sleep(0.05)
    healed = time.time()
    back = mounted_since(cdn.remote, "originals", cut + 1) - healed
    figure(
        f"Bitrix host cut off: {answers} answers of the CDN host, slowest {slowest * 1000:.0f} ms; originals "
        f"mounted {back:.1f} s after healing (figure: {BACK:g})"
    )
    assert slowest < 1
    assert back <= BACK


def test_a_killed_sshfs_is_back_in_seconds_however_often(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    times = []
    kills = scaled(50, 5)
    with traffic(shop) as seen:
        time.sleep(2)
        for _ in range(kills):
            killed = time.time()
            bitrix.run("pkill", "-KILL", "-x", "sshfs")
            times.append(mounted_since(bitrix, "resize-cache", killed, 20) - killed)
            time.sleep(random.uniform(0.2, 1))
    lost = seen.lost(cdn)
    figure(
        f"sshfs killed {kills} times: back in {sorted(times)[kills // 2]:.2f} s, at most {max(times):.2f} s "
        f"(figure: 3); longest wait {seen.stall(0):.1f} s; {len(seen.made)} pictures, "
        f"{len(lost)} lost (figure: 0)"
    )
    assert lost == []
    assert max(times) <= 3


def test_a_restarted_sshd_is_not_noticed(shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure) -> None:
    times = scaled(20, 3)
    before = [reconnects(bitrix, "resize-cache"), reconnects(cdn.remote, "originals")]
    with traffic(shop) as seen:
        time.sleep(2)
        for _ in range(times):
            for remote in (bitrix, cdn.remote):
                # systemd itself refuses more than five a minute.
                remote.run("sh", "-c", "systemctl reset-failed ssh; systemctl restart ssh")
            time.sleep(0.3)
        time.sleep(2)
    after = [reconnects(bitrix, "resize-cache"), reconnects(cdn.remote, "originals")]
    figure(
        f"sshd restarted {times} times on either side: longest wait {seen.stall(0):.2f} s, reconnects {after}"
    )
    assert seen.failures(0) == []
    assert seen.stall(0) < 2
    assert after == before


@contextmanager
def slow_and_lossy(bitrix: Remote, cdn: Remote) -> Iterator[None]:
    """100 ms each way and 5 % of the packets lost each way, for the guard of the site's host."""
    one, other = bitrix.address, cdn.address
    # The machine has one set of tables for all of its labs.
    table = f"bitrix-cdn-lossy-{one.replace('.', '-')}"
    loss = f"table bridge {table} {{\nchain forward {{\ntype filter hook forward priority filter;\n"
    for source, target in ((one, other), (other, one)):
        loss += f"ip saddr {source} ip daddr {target} numgen random mod 100 < 5 drop\n"
    with delayed(bitrix, cdn, "resize-cache", 0.1):
        try:
            subprocess.run(["nft", "-f", "-"], input=(loss + "}\n}\n").encode(), check=True)
            yield
        finally:
            subprocess.run(["nft", "delete", "table", "bridge", table], check=False)


def test_a_slow_and_lossy_line_is_no_outage(shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure) -> None:
    with slow_and_lossy(bitrix, cdn.remote):
        before = reconnects(bitrix, "resize-cache")
        with traffic(shop, originals=1, pause=0.5) as seen:
            time.sleep(scaled(60, 25))
        after = reconnects(bitrix, "resize-cache")
    figure(
        f"200 ms and 5 % loss: {len(seen.requests)} requests, longest wait {seen.stall(0):.1f} s, "
        f"{len(seen.made)} pictures, false alarms {after - before} (figure: 0)"
    )
    assert len(seen.made) > 0
    assert after == before
    assert seen.lost(cdn) == []


def test_a_full_disk_on_the_cdn_host_sends_pictures_into_the_spool(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    path = cdn.settings.cdn.resize_cache
    # Less room than `min_free_mb`: a small file system over the directory, seen by new sftp sessions too.
    cdn.remote.run("mount", "-t", "tmpfs", "-o", "size=8m,uid=33,gid=33,mode=755", "tmpfs", path)
    started = time.time()
    try:
        # The session of the mount still has the directory below.
        bitrix.run("pkill", "-KILL", "-x", "sshfs")
        full = wait_until(
            "the guard to say that the CDN host is full",
            lambda: bitrix.run("mount-guard", "status", "resize-cache", check=False),
            lambda said: "full" in said,
            timeout=20,
        )
        with traffic(shop) as seen:
            time.sleep(4)
        waiting = len(spooled(bitrix))
        metrics = bitrix.run("cat", f"{cdn.settings.mounts.metrics}/mount_guard_resize-cache.prom")
    finally:
        cdn.remote.run("umount", "-l", path)
        bitrix.run("pkill", "-KILL", "-x", "sshfs")
    back = mounted_since(bitrix, "resize-cache", started)
    lost = seen.lost(cdn)
    figure(
        f"CDN host full: {len(seen.requests)} requests, longest wait {seen.stall(0):.2f} s, "
        f"{waiting} files in the spool, {len(lost)} of {len(seen.made)} pictures lost (figure: 0)"
    )
    assert "MB left" in full
    assert 'mount_guard_full{mount="resize-cache"} 1.0' in metrics
    assert waiting >= len(seen.made) > 0
    assert seen.failures(0) == []
    assert lost == []
    assert back > started


@contextmanager
def outage(bitrix: Remote) -> Iterator[None]:
    """The CDN host is away, and the guard has noticed."""
    with partitioned("cdn"):
        wait_until(
            "the guard to notice",
            lambda: bitrix.run("mount-guard", "status", "resize-cache", check=False),
            lambda said: "waiting" in said or "connecting" in said,
        )
        yield


def test_a_spool_of_an_outage_is_pushed_whole_and_once(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    files = scaled(5000, 1000)
    directory = shop.directory("spool")
    before = bitrix.python(_TOLD)["pushed_files"]
    with outage(bitrix):
        tree = spool_files(bitrix, shop, directory, files)
    healed = time.time()
    mounted = mounted_since(bitrix, "resize-cache", healed, 120) - healed
    wait_until("an empty spool", lambda: spooled(bitrix), lambda left: not left, timeout=60)
    seconds = time.time() - healed
    # What it tells is a moment older than what is.
    told = wait_until(
        "the guard to tell so", lambda: bitrix.python(_TOLD), lambda told: not told["spool_files"]
    )
    pushed = told["pushed_files"] - before
    figure(
        f"{files} files spooled: mounted {mounted:.1f} s and all pushed {seconds:.1f} s after healing "
        f"(figure: 60), {pushed - files} twice (figure: 0)"
    )
    assert cdn.remote.python(_TREE, cdn.file(directory), timeout=120) == tree
    assert pushed == files
    assert seconds <= 60


_TOLD = """
import json
result = json.load(open("/run/mount-guard/resize-cache/status.json"))
"""


def test_a_guard_killed_at_any_moment_of_a_push_loses_and_doubles_nothing(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    kills, files = scaled(30, 4), scaled(5000, 1500)
    directory = shop.directory("killed")
    temporary = f"{cdn.settings.cdn.resize_cache}/.mount-guard"
    with outage(bitrix):
        tree = spool_files(bitrix, shop, directory, files)
    chance = random.Random(shop.token)
    moments = []
    for _ in range(kills):
        # Mostly before the mount is laid over the spool, sometimes after.
        time.sleep(chance.uniform(0.1, chance.choice([2, 2, 2, 2, 2, 14])))
        moments.append(len(spooled(bitrix)))
        bitrix.run("kill", "-KILL", str(guard_pid(bitrix, "resize-cache")), check=False)
    mounted_since(bitrix, "resize-cache", 0, 120)
    wait_until("an empty spool", lambda: spooled(bitrix), lambda left: not left, timeout=120)
    there = cdn.remote.python(_TREE, cdn.file(directory), timeout=120)
    left = wait_until(
        "no temporary files", lambda: cdn.remote.run("ls", temporary, check=False), lambda ls: not ls
    )
    figure(f"guard killed {kills} times during a push of {files}: files in the spool at each kill {moments}")
    assert there == tree
    assert left == ""
    assert sum(map(bool, moments)) > kills / 2, "most kills came when all was pushed: nothing was tested"


def test_open_removed_and_rewritten_files_of_the_spool_end_as_the_site_left_them(
    shop: Shop, cdn: Cdn, bitrix: Remote
) -> None:
    directory = shop.directory("states")
    path = shop.mounted(directory)
    user = shop.settings.site.user
    shop.write(f"{directory}/old.bin", b"before the outage")
    shop.write(f"{directory}/same.bin", b"the same on both sides")
    with outage(bitrix):
        for name, content in (
            ("old.bin", b"during the outage"),
            ("same.bin", b"the same on both sides"),
            ("removed.bin", b"removed"),
        ):
            shop.write(f"{directory}/{name}", content)
        bitrix.run("rm", f"{path}/removed.bin", user=user)
        bitrix.run("ln", "-s", "/etc/passwd", f"{path}/link.bin", user=user)
        # As PHP that has begun a picture: half of it written, the rest after the mount is back.
        bitrix.run(
            *("sh", "-c", 'exec >/dev/null 2>&1 </dev/null; setsid sh -c "$1" sh "$2" & '),
            *(
                "sh",
                'exec 3>"$1"; printf half >&3; while [ ! -e /tmp/go ]; do sleep 0.1; done; printf whole >&3',
            ),
            f"{path}/open.bin",
            user=user,
        )
    healed = time.time()
    mounted_since(bitrix, "resize-cache", healed)
    below = (
        f"/run/mount-guard/resize-cache/below/resize_cache{directory.removeprefix('/upload/resize_cache')}"
    )
    wait_until("only the open file below", lambda: spooled(bitrix), [f"{below}/open.bin"].__eq__)
    assert not cdn.exist([cdn.file(f"{directory}/open.bin")])
    bitrix.run("touch", "/tmp/go")
    wait_until("an empty spool", lambda: spooled(bitrix), lambda files: not files)
    bitrix.run("rm", "/tmp/go")
    bitrix.run("rm", "-f", f"{below}/link.bin")

    def served(name: str) -> str:
        return cdn.remote.run("cat", cdn.file(f"{directory}/{name}"), check=False)

    assert served("old.bin") == "during the outage"
    assert served("same.bin") == "the same on both sides"
    assert served("open.bin") == "halfwhole"
    assert not cdn.exist([cdn.file(f"{directory}/{name}") for name in ("removed.bin", "link.bin")])


def test_a_changed_host_key_is_refused_and_said_so(
    lab: state.Lab, shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    pinned = "/etc/bitrix-cdn/ssh/known_hosts"
    bitrix.run(
        "sh",
        "-c",
        f"cp -a {pinned} {pinned}.kept; ssh-keygen -q -t ed25519 -N '' -f /tmp/other; "
        f"echo \"cdn $(cut -d' ' -f1,2 /tmp/other.pub)\" > {pinned}; rm /tmp/other*",
    )
    try:
        bitrix.run("pkill", "-KILL", "-x", "sshfs")
        said = wait_until(
            "the guard to refuse the other host",
            lambda: bitrix.run("mount-guard", "status", "resize-cache", check=False),
            lambda said: "another host key than the one pinned" in said,
        )
        metrics = bitrix.run("cat", f"{cdn.settings.mounts.metrics}/mount_guard_resize-cache.prom")
        assert 'mount_guard_refused{mount="resize-cache",reason="host_key"} 1.0' in metrics
        shop.site.health()
    finally:
        bitrix.run("rm", f"{pinned}.kept")
    figure(f"host key changed: {said.strip()}")
    # The next deploy reads the right key over the operator's connection.
    run = pyinfra("-y", "--json", lab=lab.name)
    assert run.status == 0, run.output
    assert "sftp | Accept the other host's key, and no other" in run.changed()
    mounted_since(bitrix, "resize-cache", 0, 20)


def test_keys_are_rotated_without_an_outage(
    lab: state.Lab, shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    key = "/etc/bitrix-cdn/ssh/id_ed25519"
    hosts = ((bitrix, "resize-cache"), (cdn.remote, "originals"))
    before = [(remote.run("cat", f"{key}.pub"), reconnects(remote, name)) for remote, name in hosts]
    with traffic(shop) as seen:
        run = pyinfra("-y", "--json", operations="rotate_keys.py", lab=lab.name)
        assert run.status == 0, run.output
    for (remote, name), (old, count) in zip(hosts, before, strict=True):
        assert remote.run("cat", f"{key}.pub") != old
        assert remote.run("ls", "/etc/bitrix-cdn/ssh").split() == [
            "id_ed25519",
            "id_ed25519.pub",
            "known_hosts",
        ]
        assert reconnects(remote, name) == count
        # The new one opens, and is the only one that does.
        since = time.time()
        remote.run("pkill", "-KILL", "-x", "sshfs")
        mounted_since(remote, name, since, 20)
    accepted = cdn.remote.run("cat", f"/etc/ssh/authorized_keys.d/{cdn.settings.sftp.cache_account}")
    assert len(accepted.splitlines()) == 1
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}
    figure(f"keys rotated: {len(seen.requests)} requests meanwhile, longest wait {seen.stall(0):.2f} s")
    assert seen.failures(0) == []


def test_both_hosts_rebooting_at_once_find_each_other(
    shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure
) -> None:
    for name in ("bitrix", "cdn"):
        lab_command("kill", name)
    for remote in (bitrix, cdn.remote):
        remote.disconnect()
    powered = time.time()
    for name in ("bitrix", "cdn"):
        lab_command("start", name)
    booting = time.time() - powered
    times = [
        mounted_since(remote, name, powered) - powered
        for remote, name in ((bitrix, "resize-cache"), (cdn.remote, "originals"))
    ]
    figure(
        f"both hosts without power: mounted {times[0]:.1f} s and {times[1]:.1f} s after power on, of which "
        f"{booting:.1f} s are their boot"
    )
    assert max(times) - booting <= BACK
    wait_until("a healthy daemon", cdn.daemon_ready, timeout=60)


def test_a_guard_stops_within_seconds_while_the_other_host_is_away(
    shop: Shop, bitrix: Remote, figure: Figure
) -> None:
    with partitioned("cdn"):
        started = time.time()
        bitrix.run("systemctl", "stop", "mount-guard@resize-cache", timeout=30)
        seconds = time.time() - started
        left = bitrix.run("pgrep", "-x", "sshfs", check=False)
    bitrix.run("systemctl", "start", "mount-guard@resize-cache")
    figure(f"stopped in {seconds:.1f} s while the CDN host was away")
    assert seconds < 8
    assert left == ""

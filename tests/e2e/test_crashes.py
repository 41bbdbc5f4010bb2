"""The daemon dies in the middle of its work."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.kit.hosts import Cdn, Shop, all_are_published
from tests.kit.support import wait_until

HUNDRED = 100

# On the host itself: over SSH the moment would have passed.
_KILL_IN_THE_MIDDLE = """
import os, signal, time
pid, directory, enough = arguments
def done():
    return sum(name.endswith(".webp") for name in os.listdir(directory))
deadline = time.monotonic() + 30
while done() < enough and time.monotonic() < deadline:
    time.sleep(0.002)
os.kill(pid, signal.SIGKILL)
result = done()
"""


# What a power cut leaves at the end of a file: zeros, garbage, a hole in the middle of it, or one that only
# Redis itself notices, as no length is wrong.
_DAMAGE = """
import glob, os
[path] = glob.glob(f"/var/lib/redis/{arguments[0]}/appendonlydir/*.incr.aof")
size = os.path.getsize(path)
with open(path, "r+b") as file:
    at = file.read().lower().rindex(b"\\r\\nset\\r\\n") + 2
    file.seek({"hole": max(0, size - 400), "command": at}.get(arguments[1], size))
    garbage = b"*3\\r\\n$9" + os.urandom(500)
    file.write({"hole": bytes(200), "command": bytes(3), "zeros": bytes(4096)}.get(arguments[1], garbage))
result = size
"""


@pytest.mark.both
@pytest.mark.parametrize(
    ("instance", "damage"),
    [("queue", "zeros"), ("cache", "garbage"), ("queue", "hole"), ("cache", "command")],
)
def test_redis_starts_again_after_a_power_cut(cdn: Cdn, instance: str, damage: str) -> None:
    unit, ask = f"redis-server@{instance}", ("cdn-host", "redis", instance)
    aside = f"/var/lib/bitrix-cdn/redis/{instance}"
    kept = cdn.remote.run("ls", aside)
    cdn.remote.run(*ask, "-r", "50", "set", "test:power-cut", "x" * 40, "EX", "60")
    cdn.remote.run("systemctl", "kill", "-s", "KILL", unit)
    cdn.remote.run("systemctl", "stop", unit)
    # So many starts in seconds are this test's doing.
    cdn.remote.run("systemctl", "reset-failed", unit, check=False)
    assert cdn.remote.python(_DAMAGE, instance, damage)

    # What only Redis notices has it fail once; systemd tries again.
    cdn.remote.run("systemctl", "start", unit, check=damage != "command")

    wait_until("an answer", lambda: cdn.remote.run(*ask, "ping", check=False).strip(), "PONG".__eq__)
    # It answers before systemd has run what follows a start.
    now = wait_until(
        "the end of its start", lambda: cdn.remote.run("ls", aside), lambda names: "starting" not in names
    )
    assert now != kept
    metric = f"/var/lib/prometheus/node-exporter/redis-mended-{instance}.prom"
    assert f'redis_mended_lost_bytes{{redis="{instance}"}}' in cdn.remote.run("cat", metric)
    wait_until("the daemon to be healthy again", cdn.daemon_ready)


@pytest.mark.both
def test_the_daemon_killed_in_the_middle_of_a_hundred_conversions_finishes_them_after_its_restart(
    shop: Shop, cdn: Cdn
) -> None:
    directory = shop.directory("640_640_1")
    pictures = [f"{directory}/{number}.jpg" for number in range(HUNDRED)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        # Large enough that the daemon takes seconds for all of them.
        for picture in pictures:
            content = shop.photo(640, 480)
            info = tarfile.TarInfo(picture.rsplit("/", 1)[1])
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    user = shop.settings.site.user
    shop.bitrix.run("mkdir", "-p", shop.mounted(directory), user=user)
    pid, restarts = cdn.daemon()

    # Written on cdn's own disk: the daemon would keep up with what comes through the mount.
    cdn.remote.run(
        *("tar", "-x", "--no-same-owner", "-C", cdn.file(directory)),
        input=archive.getvalue(),
        user=cdn.settings.converter.store.owner,
    )
    done = cdn.remote.python(_KILL_IN_THE_MIDDLE, pid, cdn.file(directory), HUNDRED // 10)
    assert 0 < done < HUNDRED, f"{done} of {HUNDRED} were done when it was killed: not the middle"

    wait_until(
        "systemd to start the daemon again",
        cdn.daemon,
        lambda daemon: daemon[0] not in {0, pid} and daemon[1] == restarts + 1,
    )
    wait_until("a healthy daemon", cdn.daemon_ready)
    all_are_published(cdn, pictures)
    # Nothing unfinished is left lying about either.
    temporary = str(cdn.settings.converter.store.temporary)
    wait_until(
        f"an empty {temporary}",
        # What is remembered of removals is whole.
        lambda: cdn.remote.run(
            *("find", temporary, "-type", "f", "!", "-name", "removed"), check=False
        ).split(),
        lambda files: not files,
    )

"""Half an hour of random faults: `make soak`, or `SOAK=minutes` and `SEED=number` for others."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from tests.e2e.traffic import traffic
from tests.kit.hosts import Cdn, Shop
from tests.kit.lab import lab_command
from tests.kit.mounts import guard_pid, mounted_since, spooled
from tests.kit.support import Figure, Remote, wait_until

MINUTES = float(os.environ.get("SOAK", "0"))

_TREE = """
import hashlib, os
root, = arguments
result = {}
for directory, _, names in os.walk(root):
    for name in names:
        path = os.path.join(directory, name)
        # Variants and verdicts come and go by themselves.
        if name.endswith((".webp", ".avif", ".keep")):
            continue
        with open(path, "rb") as file:
            result[os.path.relpath(path, root)] = hashlib.sha256(file.read()).hexdigest()
"""


@pytest.mark.skipif(not MINUTES, reason="takes half an hour: make soak")
def test_random_faults_lose_nothing(shop: Shop, cdn: Cdn, bitrix: Remote, figure: Figure) -> None:
    seed = int(os.environ.get("SEED") or time.time())
    chance = random.Random(seed)
    print(f"SEED={seed}", flush=True)

    def cut(host: str) -> None:
        lab_command("partition", host)
        time.sleep(chance.uniform(1, 40))
        lab_command("heal", host)

    def power(host: str, remote: Remote) -> None:
        lab_command("kill", host)
        time.sleep(chance.uniform(0, 20))
        lab_command("start", host)
        remote.disconnect()

    def kill(remote: Remote, name: str) -> None:
        remote.run("kill", "-KILL", str(guard_pid(remote, name)), check=False)

    # Not the site's own host: its power loss ends requests, which is no fault of the mount.
    faults: dict[str, Callable[[], object]] = {
        "CDN host cut off": lambda: cut("cdn"),
        "Bitrix host cut off": lambda: cut("bitrix"),
        "CDN host without power": lambda: power("cdn", cdn.remote),
        "sshfs killed": lambda: bitrix.run("pkill", "-KILL", "-x", "sshfs", check=False),
        "guard killed": lambda: kill(bitrix, "resize-cache"),
        "other guard killed": lambda: kill(cdn.remote, "originals"),
        "sshd restarted": lambda: cdn.remote.run(
            "sh", "-c", "systemctl reset-failed ssh; systemctl restart ssh"
        ),
    }
    counts = dict.fromkeys(faults, 0)
    until = time.monotonic() + MINUTES * 60
    with traffic(shop, pause=0.3) as seen:
        while time.monotonic() < until:
            name = chance.choice(list(faults))
            counts[name] += 1
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            faults[name]()
            for remote in (bitrix, cdn.remote):
                remote.disconnect()
            # Sometimes the next fault comes before the last one is over.
            time.sleep(chance.uniform(0, 15))
        mounted_since(bitrix, "resize-cache", 0, 60)
        mounted_since(cdn.remote, "originals", 0, 60)
        time.sleep(5)
    wait_until("an empty spool", lambda: spooled(bitrix), lambda files: not files, timeout=120)
    wait_until("a healthy daemon", cdn.daemon_ready, timeout=60)
    # Half a picture that a dying connection left is removed after its rest time.
    time.sleep(cdn.settings.converter.watch.damaged_rest_s + 30)
    lost = seen.lost(cdn)
    here = bitrix.python(_TREE, cdn.settings.site.resize_cache, timeout=300)
    there = cdn.remote.python(_TREE, cdn.settings.cdn.resize_cache, timeout=300)
    different = sorted(path for path in {**here, **there} if here.get(path) != there.get(path))
    happened = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    figure(
        f"{MINUTES:g} minutes with seed {seed}: {happened}; {len(seen.requests)} requests, "
        f"{len(seen.failures(0))} failed, longest wait {seen.stall(0):.1f} s; {len(seen.made)} pictures, "
        f"{len(lost)} lost (figure: 0); {len(there)} files in both trees, {len(different)} differ (figure: 0)"
    )
    assert lost == []
    assert different == []
    assert seen.stall(0) <= 6

"""A host is backed up over sftp and to a path, lost, and put back from bare Debian.

The tests build on each other. A third host, `vault`, joins the lab for the backups to go to, and the CDN host
is thrown away: they are the last that a lab sees.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import httpx
import pytest

from bitrix_cdn.settings import Settings
from dev.lab import state
from dev.lab.site import Picture, Site
from tests.kit.deployment import ROOT, Run, pyinfra
from tests.kit.hosts import BROWSER
from tests.kit.lab import LabDriver
from tests.kit.pictures import photo
from tests.kit.support import Figure, Remote, wait_until

ACCOUNT, PLACE, LOCAL = "backups", "/srv/backups", "/var/backups/bitrix-cdn"

QUEUE, CACHE = "queue", "cache"

# As an operator's: the lab's, and where its backups go.
INVENTORY = """
import os, runpy
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.inventory import GROUPS as _GROUPS

os.environ["LAB_NAME"] = {lab!r}
_lab = runpy.run_path({root!r} + "/inventories/lab.py")

def _with_backups(group):
    hosts, data = group
    settings = Settings.model_validate(dict(data["settings"], backup={backup!r}))
    return hosts, dict(data, settings=settings.model_dump(mode="json"))

globals().update({{name: _with_backups(_lab[name]) for name in _GROUPS if name in _lab}})
"""

PUBLIC_KEY = "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub"
PINS = "cd /etc/bitrix-cdn/ssh && sha256sum * && sha256sum /etc/ssh/authorized_keys.d/* /etc/mount-guard/*"
PASSWORD = "/etc/bitrix-cdn/backup/password"


@dataclass
class World:
    """A lab whose hosts are backed up, and what was seen before one was lost."""

    lab: state.Lab
    place: Path
    bitrix: Remote
    cdn: Remote
    vault: Remote
    remembered: dict[str, Any] = field(default_factory=dict)

    def inventory(self, repository: str, **backup: Any) -> str:
        values = {
            "repository": repository,
            "password": f"file:{self.place}/password",
            "sftp_host_key": self.vault.run("sh", "-c", PUBLIC_KEY).strip(),
            **backup,
        }
        # How the operator's machine connects belongs to each inventory.
        if not (self.place / "group_data").is_symlink():
            (self.place / "group_data").symlink_to(ROOT / "inventories/group_data")
        file = self.place / "inventory.py"
        file.write_text(INVENTORY.format(lab=self.lab.name, root=str(ROOT), backup=values))
        return str(file)

    @property
    def over_sftp(self) -> str:
        return self.inventory(f"sftp:{ACCOUNT}@{self.vault.address}:{PLACE}", pictures=True)

    @property
    def to_a_path(self) -> str:
        return self.inventory(LOCAL, pictures=False)

    def deploy(self, inventory: str) -> Run:
        run = pyinfra("-y", "--json", inventory=inventory, lab=self.lab.name)
        assert run.status == 0, run.output[-3000:]
        return run

    def backup(self, *arguments: str, status: int = 0) -> str:
        """What `bitrix-cdn backup` and `restore` print."""
        result = subprocess.run(
            [sys.executable, "-m", "bitrix_cdn", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == status, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr

    def killed_after(self, words: str, *arguments: str, wait: float = 0) -> str:
        """Begins a command and kills it, and all that it started here, when it says some words."""
        said = ""
        with subprocess.Popen(
            [sys.executable, "-m", "bitrix_cdn", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said += line
                if words in line:
                    time.sleep(wait)
                    break
            assert process.poll() is None, said
            os.killpg(process.pid, signal.SIGKILL)
        assert words in said, said
        return said

    def answer(self, picture: Picture) -> tuple[str, str]:
        """Type and checksum of what a browser gets from the CDN host."""
        headers = {"Accept": BROWSER}
        got = httpx.get(f"http://{self.cdn.address}{picture.url_path}", headers=headers, timeout=10)
        return got.headers.get("Content-Type", ""), hashlib.sha256(got.content).hexdigest()

    def as_webp(self, picture: Picture) -> tuple[str, str]:
        return wait_until(
            f"{picture.path} as WebP", lambda: self.answer(picture), lambda got: got[0] == "image/webp"
        )

    def redis(self, instance: str, *command: str) -> str:
        return self.cdn.run("cdn-host", "redis", instance, *command).strip()

    def prometheus(self, query: str, **at: float) -> list[dict[str, Any]]:
        """What Prometheus answers."""
        times = "".join(f"&{name}={value}" for name, value in at.items())
        url = f"http://127.0.0.1:9090/api/v1/query?query={query}{times}"
        answer = json.loads(self.cdn.run("python3", "-c", _GET, url))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def queue(self) -> dict[str, str]:
        """All that the queue's Redis holds, by key."""
        keys = self.redis(QUEUE, "keys", "*").split()
        return {key: self.redis(QUEUE, "dump", key) for key in keys if not key.endswith("workers")}


_GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.fixture(scope="module")
def world(lab: state.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    LabDriver(lab.name).run("up", "--suite", lab.suite, "--host", "vault")
    loaded, place = state.load(lab.name), tmp_path_factory.mktemp("backup")
    remotes = {
        host.name: Remote(
            host.name, host.address, key=loaded.ssh_key, known_hosts=loaded.known_hosts, sockets=place
        )
        for host in loaded.hosts
    }
    try:
        world = World(loaded, place, remotes["bitrix"], remotes["cdn"], remotes["vault"])
        make = (
            f"id {ACCOUNT} >/dev/null 2>&1 || useradd -m {ACCOUNT}; rm -rf {PLACE}; "
            f"install -d -o {ACCOUNT} -m 700 ~{ACCOUNT}/.ssh {PLACE}; rm -f ~{ACCOUNT}/.ssh/authorized_keys"
        )
        world.vault.run("sh", "-c", make)
        for remote in (world.bitrix, world.cdn):
            # Of an earlier run on this lab.
            remote.run("rm", "-rf", "/var/lib/bitrix-cdn/backup", LOCAL)
        inventory = world.over_sftp
        world.backup("backup", "init", "-i", inventory)
        world.deploy(inventory)
        yield world
    finally:
        for remote in remotes.values():
            remote.disconnect()


def admit(world: World, said: str) -> None:
    """Does on the repository's server what a refused host asks for."""
    lines = [line[line.index("restrict,") :] for line in said.splitlines() if "restrict," in line]
    assert lines, said
    file = f"/home/{ACCOUNT}/.ssh/authorized_keys"
    world.vault.run(
        "sh", "-c", f"cat >> {file}; chown {ACCOUNT}: {file}", input="\n".join([*lines, ""]).encode()
    )


def test_a_host_that_the_repository_does_not_know_says_which_key_it_needs(world: World) -> None:
    said = world.backup("backup", "run", "-i", world.over_sftp, status=1)
    assert said.count("its server refuses this host's key") == 2
    admit(world, said)


def test_all_hosts_are_backed_up_at_once(world: World) -> None:
    site = Site(f"http://{world.bitrix.address}")
    with site:
        originals = [site.upload(f"backup-{n}.jpg", photo(f"backup-{n}", 900, 700)) for n in range(3)]
        pictures: list[Picture] = [*originals, *(site.resize(one, 450, 450) for one in originals)]
    world.remembered["originals"] = originals
    # Originals are converted when they are first asked for.
    world.remembered["answers"] = {one: world.as_webp(one) for one in pictures}
    world.redis(QUEUE, "xadd", "webp:dead", "*", "path", "/somewhere.jpg", "reason", "kept")
    wait_until(
        "an idle queue", lambda: world.redis(QUEUE, "xlen", "webp:normal"), lambda length: length == "0"
    )
    world.redis(CACHE, "set", "kept", "statistics")
    world.cdn.run("systemctl", "stop", "webp-converter")
    world.remembered["queue"] = world.queue()
    world.remembered["host key"] = world.cdn.run("sh", "-c", PUBLIC_KEY)
    world.remembered["token"] = world.cdn.run("sha256sum", "/etc/webp-converter/api-token")
    world.remembered["certificate"] = world.cdn.run("sha256sum", "/etc/nginx/tls/certificate.pem")
    world.remembered["pins"] = world.bitrix.run("sh", "-c", PINS)
    silence = ("amtool", "--alertmanager.url=http://127.0.0.1:9093", "silence")
    world.cdn.run(*silence, "add", "--comment=kept", "--author=test", "--duration=10h", "alertname=Kept")
    world.cdn.run("systemctl", "restart", "prometheus-alertmanager")
    said = world.backup("backup", "run", "-i", world.over_sftp)
    world.cdn.run("systemctl", "start", "webp-converter")
    assert "bitrix: backup " in said
    assert "cdn: backup " in said
    listed = json.loads(world.backup("backup", "list", "-i", world.over_sftp, "--json"))
    assert [len(listed[name]) for name in ("bitrix", "cdn")] == [1, 1]
    assert [listed[name][0]["pictures"] for name in ("bitrix", "cdn")] == [False, True]
    assert listed["cdn"][0]["size"] > 100_000


def test_prometheus_knows_of_it(world: World) -> None:
    found = wait_until(
        "both hosts' backups in Prometheus",
        lambda: world.prometheus('backup_last_success_timestamp_seconds{what="backup"}'),
        lambda found: {one["metric"]["host"] for one in found} == {"bitrix", "cdn"},
        timeout=60,
        interval=1,
    )
    assert all(float(one["value"][1]) > time.time() - 300 for one in found)
    world.remembered["time"] = time.time()


def test_what_opens_it_is_told_to_nobody(world: World) -> None:
    password = (world.place / "password").read_text().strip()
    assert len(password) >= 40
    assert (world.place / "password").stat().st_mode & 0o777 == 0o600
    for remote in (world.cdn, world.bitrix):
        assert remote.run("stat", "-c", "%a %U", PASSWORD).strip() == "600 root"
        for where in ("journalctl --no-pager -o cat", "cat /var/lib/bitrix-cdn/backup/*.json"):
            assert password not in remote.run("sh", "-c", where)
    # It is encrypted there, names included.
    found = world.vault.run("sh", "-c", f"grep -rlaE 'api-token|ssh_host|OPENSSH|webp' {PLACE}; true")
    assert found == ""


_DAMAGE = r"""
pack=$(find {place} -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
cp -p $pack /root/pack
chmod u+w $pack
printf damaged | dd of=$pack bs=1 seek=$(($(stat -c %s $pack) / 2)) conv=notrunc status=none
echo $pack
"""


@contextlib.contextmanager
def damaged_pack(world: World) -> Iterator[None]:
    """The largest pack of the CDN host has other bytes in its middle meanwhile, where it is stored."""
    pack = world.vault.run("sh", "-c", _DAMAGE.format(place=f"{PLACE}/cdn/data")).strip()
    yield
    world.vault.run("mv", "-f", "/root/pack", pack)


def test_a_drill_restores_and_compares_and_fails_with_a_damaged_pack(world: World, figure: Figure) -> None:
    started = time.monotonic()
    said = world.backup("backup", "drill", "-i", world.over_sftp)
    figure(f"a drill of two hosts: {time.monotonic() - started:.0f} s")
    for name in ("bitrix", "cdn"):
        assert re.search(
            rf"^{name}: the last backup was restored, [1-9]\d* files are what was", said, re.M
        ), said
    assert int(json.loads(world.cdn.run("bitrix-cdn-backup", "status"))["drilled"]) > 10
    with damaged_pack(world):
        said = world.backup("backup", "drill", "-i", world.over_sftp, "--limit", "cdn", status=1)
    assert "cdn: " in said
    for remote in (world.bitrix, world.cdn):
        assert remote.run("sh", "-c", "ls -d /var/lib/bitrix-cdn/backup/drill 2>&1 || true").startswith(
            "ls: "
        )


def test_a_wrong_password_is_refused_and_rings(world: World) -> None:
    world.cdn.run("sh", "-c", f"cp -p {PASSWORD} {PASSWORD}.kept; echo wrong > {PASSWORD}")
    try:
        said = world.backup("backup", "run", "-i", world.over_sftp, "--limit", "cdn", status=1)
        assert "the password is not the repository's" in said
        firing = 'ALERTS{alertname="BackupFailed",alertstate="firing",host="cdn"}'
        wait_until(
            "BackupFailed of the backup, and of the drill before",
            lambda: {one["metric"]["what"] for one in world.prometheus(firing)},
            lambda whats: whats == {"backup", "drill"},
            timeout=90,
            interval=1,
        )
    finally:
        world.cdn.run("mv", "-f", f"{PASSWORD}.kept", PASSWORD)
    world.cdn.run("systemctl", "reset-failed", "bitrix-cdn-backup", "bitrix-cdn-backup-drill")
    assert "files are what was saved" in world.backup(
        "backup", "drill", "-i", world.over_sftp, "--limit", "cdn"
    )


def test_a_host_in_use_is_not_overwritten(world: World) -> None:
    said = world.backup("restore", "-i", world.over_sftp, status=4)
    assert "cdn: is deployed and in use" in said
    assert world.redis(CACHE, "get", "kept") == "statistics"


def test_a_bare_host_from_the_backup_answers_the_same_bytes(world: World, figure: Figure) -> None:
    inventory = world.over_sftp
    LabDriver(world.lab.name).run("reset", "cdn")
    world.cdn.disconnect()
    # The lab gives it its old keys; a bare host has others.
    fresh = "rm /etc/ssh/ssh_host_*; ssh-keygen -A >/dev/null; systemctl restart ssh; ssh-keygen -lf"
    shown = LabDriver(world.lab.name).shell("cdn", f"{fresh} /etc/ssh/ssh_host_ed25519_key.pub")
    restore = ("restore", "-i", inventory, "--host-key", shown.split()[1])
    assert "another key" in world.backup("restore", "-i", inventory, status=1)
    assert "shows" in world.backup(*restore[:-1], "SHA256:" + "A" * 43, status=1)
    # It has a new key for the repository now.
    admit(world, world.backup(*restore, status=1))
    assert "no such backup" in world.backup(*restore, "--snapshot", "ffffffff", status=2)

    started = time.monotonic()
    # Killed in each of its three parts, it goes on where it was.
    world.killed_after("restoring", *restore, wait=2)
    # It has its own key back, or not yet: either is right.
    world.killed_after("deploying", *restore, wait=15)
    said = world.killed_after("redis-cache:", *restore)
    assert "going on with" in said
    said = world.backup(*restore)
    assert "cdn: restored in" in said
    figure(f"a bare host restored, killed three times: {time.monotonic() - started:.0f} s")

    # Varnish wants to see some good answers before it trusts who has the originals.
    for picture, before in world.remembered["answers"].items():
        wait_until(f"the same {picture.path}", partial(world.answer, picture), partial(eq, before))


def test_it_is_the_same_host_to_the_others(world: World) -> None:
    assert world.cdn.run("sh", "-c", PUBLIC_KEY) == world.remembered["host key"]
    assert world.cdn.run("sha256sum", "/etc/webp-converter/api-token") == world.remembered["token"]
    assert world.cdn.run("sha256sum", "/etc/nginx/tls/certificate.pem") == world.remembered["certificate"]
    assert world.bitrix.run("sh", "-c", PINS) == world.remembered["pins"]
    mounted = "findmnt -n --mountpoint /var/www/bitrix/upload/resize_cache"
    wait_until("the site's mount", lambda: world.bitrix.run("sh", "-c", f"{mounted}; true"), timeout=30)


def test_redis_has_what_it_had(world: World) -> None:
    assert world.redis(CACHE, "get", "kept") == "statistics"
    now = world.queue()
    letters = world.redis(QUEUE, "xrange", "webp:dead", "-", "+")
    assert "/somewhere.jpg" in letters
    assert set(world.remembered["queue"]) <= set(now)
    for instance in (QUEUE, CACHE):
        assert "aof_enabled:1" in world.redis(instance, "info", "persistence")
    # What it has now outlives a restart.
    world.cdn.run("systemctl", "restart", "redis-server@queue")
    wait_until("the queue", lambda: world.redis(QUEUE, "exists", "webp:dead"), lambda found: found == "1")


def test_prometheus_answers_for_the_time_before(world: World) -> None:
    assert world.prometheus('up{job="node",host="cdn"}', time=world.remembered["time"])
    silences = world.cdn.run("amtool", "--alertmanager.url=http://127.0.0.1:9093", "silence", "query")
    assert "Kept" in silences


def test_the_deploy_has_nothing_to_change(world: World) -> None:
    assert world.deploy(world.over_sftp).changed() == {}
    said = world.backup("backup", "run", "-i", world.over_sftp)
    assert "cdn: backup " in said


def test_a_path_and_no_pictures(world: World) -> None:
    inventory = world.to_a_path
    world.deploy(inventory)
    assert "cdn: backup " in world.backup("backup", "run", "-i", inventory)
    world.backup("backup", "check", "-i", inventory)
    [only] = json.loads(world.backup("backup", "list", "-i", inventory, "--limit", "cdn", "--json"))["cdn"]
    assert not only["pictures"]

    world.redis(CACHE, "set", "kept", "something else")
    # The shop's pictures and all variants are lost; its originals are where they were.
    world.cdn.run("sh", "-c", "rm -rf /var/www/cdn/upload/resize_cache/* /var/cache/webp/upload/*")
    world.backup("restore", "-i", inventory, "--force", "--snapshot", only["id"][:8])
    assert world.redis(CACHE, "get", "kept") == "statistics"

    [first, *_] = world.remembered["originals"]
    resized = next(one for one in world.remembered["answers"] if one.path.startswith("/upload/resize_cache"))
    got = httpx.get(f"http://{world.cdn.address}{resized.url_path}", timeout=10)
    assert got.status_code == 404
    # The shop makes them again when a page is asked for, and the converter their variants: the same bytes.
    with Site(f"http://{world.bitrix.address}") as site:
        for one in world.remembered["originals"]:
            assert site.resize(one, 450, 450).made
    for picture, before in world.remembered["answers"].items():
        assert world.as_webp(picture) == before
    assert first in world.remembered["answers"]


def test_switched_off_nothing_is_left_that_opens_it(world: World) -> None:
    world.deploy(world.inventory(""))
    for remote in (world.bitrix, world.cdn):
        timers = remote.run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", "bitrix-cdn-backup*.timer"
        )
        assert timers == ""
        with contextlib.suppress(AssertionError):
            remote.run("test", "-e", PASSWORD)
            pytest.fail(f"{remote.name}: the password is still there")
    assert world.deploy(world.inventory("")).changed() == {}


def test_settings_are_judged_before_any_host_is_asked(world: World) -> None:
    assert "settings.backup.repository is not set" in world.backup(
        "backup", "run", "-i", world.inventory(""), status=2
    )
    inventory = world.over_sftp
    assert "no host or group is named shop; there are: bitrix, cdn" in world.backup(
        "backup", "run", "-i", inventory, "--limit", "shop", status=2
    )
    (world.place / "password").chmod(0o644)
    try:
        assert "others may read it" in world.backup("restore", "-i", inventory, status=2)
    finally:
        (world.place / "password").chmod(0o600)
    assert Settings().backup.repository == ""

"""A live shop joins the CDN and leaves it, while it goes on writing. The tests build on each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from dev.lab import state
from roles.nginx import REFUSED
from tests.kit.deployment import INVENTORY, ROOT, pyinfra
from tests.kit.hosts import Cdn
from tests.kit.lab import lab_command
from tests.kit.pictures import photo
from tests.kit.support import Remote, wait_until

HERE = "e2e-adopt"
"""All of the shop that these tests make, below `resize_cache/`."""

FORGET = "rm -rf $0.before-cdn-*"
"""Removes what adopting set aside: what the shop removed or wrote again just after the switch."""

FILES, SIZE = 400, 25_000
# No picture's names: the converter would have its say about them.
NASTY = [
    b"two  words", b"trailing .bin ", b" leading", b"quote'\"`$(x)", b"100%.bin", b"%2e%2e", b"new\nline.bin",
    b"tab\t", b"\x01control", b"back\\slash", b"\\#012", b"star*[a]?{b,c}", b"-rf", b"~", b"#", b"a:b|c<d>;&",
    "Фото товара.bin".encode(), "e\u0301".encode(), "\u00e9\uff05\u240a".encode(), b"not utf-8 \xff\xc3.bin",
]  # fmt: skip

# As Bitrix does: the full original first, then unlinked, then the picture under the same name. What was
# there from the beginning is removed and rewritten as well. It notes what is in place only when it is.
_SHOP = """
i=0
while sleep 0.02; do
    i=$((i+1)); new={root}/late-{start}/$((i % 7)); old={root}/old-{start}/$((i / 10)).bin
    mkdir -p $new
    printf "the full original of %s" $i > $new/$i.bin && rm $new/$i.bin &&
        printf "picture %s" $i > $new/$i.bin && echo $new/$i.bin >> {log}/written
    if [ $((i % 20)) = 0 ]; then rm -f $old; echo $old >> {log}/removed; fi
    if [ $((i % 20)) = 10 ]; then printf "again %s" $((i / 10)) > $old && echo $old >> {log}/rewritten; fi
    [ -e {root}/photo.jpg ] || echo $i >> {log}/missed
done
"""

_MAKE = """
import os
root, names, files, size = arguments
os.makedirs(f"{root}/nasty")
for name in map(os.fsencode, names):
    for path in (name, name + b".d/" + name):
        path = os.fsencode(root) + b"/nasty/" + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
for start in (1, 2):
    os.makedirs(f"{root}/old-{start}")
    for number in range(1, files // 2 + 1):
        with open(f"{root}/old-{start}/{number}.bin", "wb") as file:
            file.write(os.urandom(size))
"""

_CONTENTS = """
import hashlib, os
root, = arguments
result = {}
for directory, _, names in os.walk(os.fsencode(root)):
    for name in names:
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            result[os.path.relpath(path, os.fsencode(root)).hex()] = hashlib.sha256(file.read()).hexdigest()
"""


@dataclass
class LiveShop:
    """A shop that writes all the time."""

    lab: state.Lab
    bitrix: Remote
    cdn: Cdn
    log: str = "/run/e2e-adopt"
    unit: str = "e2e-adopt-shop"
    starts: int = 0

    @property
    def path(self) -> str:
        return f"{self.cdn.settings.site.resize_cache}/{HERE}"

    def start(self) -> None:
        self.starts += 1
        user = self.cdn.settings.site.user
        self.bitrix.run("sh", "-c", f"rm -rf {self.log}; install -d -o {user} {self.log}")
        self.bitrix.put(
            f"{self.log}.sh", _SHOP.format(root=self.path, start=self.starts, log=self.log).encode()
        )
        self.bitrix.run(
            *("systemd-run", "-q", "--collect", f"--unit={self.unit}", f"--uid={user}"),
            *("sh", f"{self.log}.sh"),
        )

    def stop(self) -> dict[str, list[str]]:
        """What it noted: paths that were `written`, `removed`, `rewritten`, and when it `missed` one."""
        self.bitrix.run("systemctl", "stop", self.unit, check=False)
        notes = {}
        for kind in ("written", "removed", "rewritten", "missed"):
            notes[kind] = self.bitrix.run("sh", "-c", f"cat {self.log}/{kind} 2>/dev/null; true").split()
        return notes

    def contents(self) -> dict[bytes, str]:
        """Names and checksums of all files, as the site sees them."""
        found: dict[str, str] = contents(self.bitrix, self.path)
        return {bytes.fromhex(name): digest for name, digest in found.items()}

    def lost(self, notes: dict[str, list[str]]) -> list[str]:
        """What isn't as the shop left it."""
        script = []
        for path in notes["written"]:
            number = path.split("/")[-1].removesuffix(".bin")
            script.append(f'[ "$(cat {path} 2>&1)" = "picture {number}" ] || echo {path}')
        for path in notes["rewritten"]:
            number = path.split("/")[-1].removesuffix(".bin")
            script.append(f'[ "$(head -c 99 {path} 2>&1)" = "again {number}" ] || echo {path}')
        script += [f"[ ! -e {path} ] || echo {path} is back" for path in notes["removed"]]
        return self.bitrix.run("sh", "-s", input="\n".join(script).encode()).splitlines()

    @property
    def mounted(self) -> bool:
        return bool(self.bitrix.run("findmnt", "-n", self.cdn.settings.site.resize_cache, check=False))


def contents(remote: Remote, path: str) -> Any:
    return remote.python(_CONTENTS, path)


def migration(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bitrix_cdn", *arguments, "-i", INVENTORY],
        cwd=ROOT,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str], status: int = 0) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    return output


def nothing_stays_behind(shop: LiveShop) -> None:
    """The account, the lists and the bind mount were for the time of moving only."""
    assert shop.cdn.remote.run("sh", "-c", "getent passwd bitrix-transfer; true") == ""
    for remote in (shop.bitrix, shop.cdn.remote):
        assert remote.run("sh", "-c", "ls -d /var/lib/bitrix-cdn/transfer* /run/bitrix-cdn* ; true") == ""
    listing = shop.bitrix.run("sh", "-c", "ls -A $(dirname $0)", shop.cdn.settings.site.resize_cache)
    # Of the export: what proves it, and what it hides.
    exported = {shop.cdn.settings.sftp.sentinel, *(path.partition("/")[0] for path in REFUSED)}
    assert set(listing.split()) == {"iblock", "resize_cache", *exported}


@pytest.fixture(scope="module")
def live(lab: state.Lab, bitrix: Remote, cdn: Cdn) -> Iterator[LiveShop]:
    shop = LiveShop(lab, bitrix, cdn)
    bitrix.run("sh", "-c", "command -v python3 >/dev/null || apt-get install -qq -y python3-minimal")
    user = cdn.settings.site.user
    bitrix.run("mkdir", "-p", shop.path, user=user)
    bitrix.python(
        _MAKE, shop.path, [os.fsdecode(name) for name in NASTY], FILES, SIZE, user=user, timeout=120
    )
    yield shop
    shop.stop()
    if not shop.mounted:
        finished(migration("adopt"))
    wait_until(
        "the shop to be cleared",
        lambda: bitrix.run("sh", "-c", f"rm -rf {shop.path}; ls -d {shop.path}; true", user=user),
        lambda left: not left,
    )
    bitrix.run("sh", "-c", FORGET, cdn.settings.site.resize_cache)


def test_leaving_brings_every_picture_back_and_none_of_the_converters_files(
    live: LiveShop, bitrix: Remote, cdn: Cdn
) -> None:
    user = cdn.settings.site.user
    bitrix.put(f"{live.path}/photo.jpg", photo("adopt", 450, 300), user=user)
    # An add-on's own WebP is the site's; the converter's variant isn't.
    bitrix.put(f"{live.path}/addon.jpg.webp", b"made by an add-on", user=user)
    variant = f"{cdn.settings.cdn.resize_cache}/{HERE}/photo.jpg.webp"
    wait_until("a variant", lambda: cdn.status(variant).get(variant))
    before = live.contents()
    before.pop(b"photo.jpg.webp", None)

    live.start()
    output = finished(migration("leave"))
    notes = live.stop()
    assert not live.mounted
    assert "next deploy refuses" in output.splitlines()[-1]
    assert notes["missed"] == []
    assert notes["written"]
    assert live.lost(notes) == []
    after = live.contents()
    changed = {
        os.path.relpath(path, live.path).encode() for kind in ("removed", "rewritten") for path in notes[kind]
    }
    assert {name: after.get(name) for name in before if name not in changed} == {
        name: digest for name, digest in before.items() if name not in changed
    }
    assert b"photo.jpg.webp" not in after
    owners = bitrix.run("find", live.path, "-printf", "%u:%g %m %y\\n").splitlines()
    assert set(owners) == {
        f"{user}:{cdn.settings.site.group} 644 f",
        f"{user}:{cdn.settings.site.group} 755 d",
    }
    nothing_stays_behind(live)


def test_the_site_works_with_the_cdn_host_gone_after_leaving(live: LiveShop, bitrix: Remote) -> None:
    live.cdn.remote.disconnect()
    lab_command("partition", "cdn")
    try:
        path = f"/upload/resize_cache/{HERE}/photo.jpg"
        answer = httpx.get(f"http://{bitrix.address}{path}", timeout=5)
        assert answer.status_code == 200
        assert answer.content == photo("adopt", 450, 300)
        assert httpx.get(f"http://{bitrix.address}/health.php", timeout=5).status_code == 200
    finally:
        lab_command("heal", "cdn")
    wait_until("the CDN host", lambda: live.cdn.remote.run("true", check=False, timeout=20) == "", timeout=30)


def test_adopting_killed_in_the_middle_harms_nobody_and_keeps_to_its_bandwidth(
    live: LiveShop, cdn: Cdn
) -> None:
    # What the CDN host has from before would not be copied again.
    cdn.remote.run("rm", "-rf", f"{cdn.settings.cdn.resize_cache}/{HERE}")
    before = live.contents()
    there = f"{cdn.settings.cdn.resize_cache}/{HERE}"

    def copied() -> int:
        return int(
            cdn.remote.run("sh", "-c", f"du -sb --apparent-size {there} 2>/dev/null || echo 0").split()[0]
        )

    process = migration("adopt", "--bandwidth", "1M")
    wait_until("the first megabyte", copied, lambda size: size > 1_000_000, timeout=60)
    started, begin = time.monotonic(), copied()
    wait_until("two megabytes more", copied, lambda size: size > begin + 2_000_000, timeout=30)
    rate = (copied() - begin) / (time.monotonic() - started)
    process.kill()
    process.wait()
    assert copied() < FILES * SIZE * 0.9, "it was killed too late"
    assert rate < 2 * 1024 * 1024
    assert not live.mounted
    assert live.contents() == before
    # No file of a copy cut short lies where visitors look.
    served = contents(cdn.remote, there)
    served.pop(b"photo.jpg.webp".hex(), None)
    assert set(served.items()) <= {(name.hex(), digest) for name, digest in before.items()}


def test_adopting_goes_on_where_it_was_and_loses_nothing(live: LiveShop, bitrix: Remote, cdn: Cdn) -> None:
    before = live.contents()
    # Through the mount they would lose what is less than a second.
    live.bitrix.run("find", f"{live.path}/nasty", "-exec", "touch", "-d", "@1234567890.123456789", "{}", "+")
    live.start()
    output = finished(migration("adopt"))
    notes = live.stop()
    assert live.mounted, output
    assert notes["missed"] == []
    assert len(notes["written"]) > 50
    assert len(notes["removed"]) > 2
    assert live.lost(notes) == []
    after = live.contents()
    changed = {
        os.path.relpath(path, live.path).encode() for kind in ("removed", "rewritten") for path in notes[kind]
    }
    assert {name: after.get(name) for name in before if name not in changed} == {
        name: digest for name, digest in before.items() if name not in changed
    }
    times = cdn.remote.run(
        "sh", "-c", f"find {cdn.file('/upload/resize_cache')}/{HERE}/nasty -type f -printf '%T@\\n'"
    )
    assert set(times.split()) == {"1234567890.1234567890"}, "to the nanosecond"
    # Below the mount is nothing left.
    below = bitrix.run(
        *(
            "sh",
            "-c",
            'mkdir /run/below && mount --bind "$0" /run/below && find /run/below/resize_cache -type f',
        ),
        cdn.settings.site.upload,
    )
    bitrix.run(
        "sh",
        "-c",
        "umount /run/below; rmdir /run/below; rm -rf $0.before-cdn-*",
        cdn.settings.site.resize_cache,
    )
    assert below == ""
    nothing_stays_behind(live)
    assert "nothing to do" in finished(migration("adopt"))


def test_a_deploy_after_adopting_has_nothing_to_change(live: LiveShop) -> None:
    run = pyinfra("--dry", "--json", lab=live.lab.name)
    assert (run.status, run.planned()) == (0, {})

"""A shop as BitrixVM has it: in somebody's home, an account with an unusual number, behind firewalld."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev.lab import state
from dev.lab.site import Picture
from tests.kit.deployment import deploy, pyinfra
from tests.kit.hosts import Cdn
from tests.kit.pictures import photo
from tests.kit.support import Remote, wait_until

pytestmark = pytest.mark.long

ROOT = "/home/bitrix/www"
SITE = f'"site": {{"root": "{ROOT}", "user": "bitrix", "group": "bitrix"}}'

INVENTORY = """
from bitrix_cdn.settings import groups
from inventories.lab import _entry, _settings

bitrix, cdn, edge, balancer, monitoring = groups(
    bitrix={"bitrix": _entry("bitrix")},
    cdn={"cdn": _entry("cdn")},
    settings={**_settings, "lab_site": {"enabled": False}, SITE},
)
"""

# Its home is closed to others, and what PHP writes is for the group to read. firewalld wants a login manager,
# which the lab's hosts must not have (docs/lab.md); it is none's need here.
_BECOME = f"""set -e
groupadd -g 600 bitrix
useradd -m -u 600 -g 600 -K UMASK=027 bitrix
install -d -m 770 -o bitrix -g bitrix {ROOT} {ROOT}/bitrix {ROOT}/upload {ROOT}/upload/iblock
mkdir -p /run/logind/DEBIAN
printf '%s\n' 'Package: lab-logind' 'Version: 1' 'Architecture: all' 'Maintainer: lab <root@localhost>' \\
    'Provides: logind' 'Description: stands in for libpam-systemd' > /run/logind/DEBIAN/control
dpkg-deb --build /run/logind /run/logind.deb >/dev/null
dpkg -i /run/logind.deb >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends firewalld >/dev/null
systemctl enable -q --now firewalld
"""
_NO_LONGER = """
systemctl disable -q --now firewalld
rm -rf /etc/firewalld/policies/bitrix-cdn.xml
"""
_GONE = "userdel -r bitrix 2>/dev/null; apt-get purge -qq -y --autoremove firewalld lab-logind >/dev/null"


def write(bitrix: Remote, name: str, content: bytes, mode: str) -> None:
    """Writes a file below `upload/` as PHP does."""
    path = f"{ROOT}/upload/{name}"
    bitrix.run("mkdir", "-p", path.rpartition("/")[0], user="bitrix")
    bitrix.put(path, content, user="bitrix")
    bitrix.run("chmod", mode, path)


@pytest.fixture(scope="module")
def bitrixvm(
    lab: state.Lab, bitrix: Remote, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """The lab's shop has moved: the inventory, and what a deploy said to one that didn't know."""
    inventory = tmp_path_factory.mktemp("bitrixvm") / "shop.py"
    try:
        bitrix.run("sh", "-c", _BECOME, timeout=300)
        inventory.write_text(INVENTORY.replace("SITE", '"site": {"root": "/srv/shop"}'))
        unknowing = pyinfra("-y", inventory=str(inventory), lab=lab.name)
        inventory.write_text(INVENTORY.replace("SITE", SITE))
        deploy(lab.name, str(inventory))
        yield inventory, unknowing.output
    finally:
        bitrix.run("sh", "-c", _NO_LONGER)
        try:
            deploy(lab.name)
        finally:
            bitrix.run("sh", "-c", _GONE, timeout=300)


def test_a_deploy_that_looks_elsewhere_says_where_the_shop_is(bitrixvm: tuple[Path, str]) -> None:
    [line] = [line for line in bitrixvm[1].splitlines() if "/srv/shop/upload" in line]
    assert f"this looks like a shop: {{{SITE}}}" in line


def test_its_pictures_arrive_as_webp(bitrixvm: tuple[Path, str], bitrix: Remote, cdn: Cdn) -> None:
    picture = Picture("/upload/resize_cache/iblock/b17/300_200_1/vm.jpg", 0)
    write(bitrix, picture.path.removeprefix("/upload/"), photo("vm", 300, 200), "664")
    cdn.as_webp(picture)
    # As PHP sees it, it is the account's own, whoever it belongs to on the other host.
    assert bitrix.run("stat", "-c", "%u %g", f"{ROOT}{picture.path}") == "600 600\n"


def test_its_originals_are_read_by_the_groups_account(
    bitrixvm: tuple[Path, str], bitrix: Remote, cdn: Cdn
) -> None:
    original = Picture("/upload/iblock/b17/original.jpg", 0)
    write(bitrix, original.path.removeprefix("/upload/"), photo("original", 300, 200), "660")
    answer = wait_until(
        "the original", lambda: cdn.get(original, "image/jpeg"), lambda got: got.status_code == 200
    )
    assert answer.headers["Content-Type"] == "image/jpeg"


def test_firewalld_lets_monitoring_in_and_nobody_else(
    bitrixvm: tuple[Path, str], bitrix: Remote, cdn: Cdn
) -> None:
    metrics = f"http://{bitrix.address}:{cdn.settings.monitoring.exporters.node_port}/metrics"
    assert "node_systemd_unit_state" in cdn.remote.run("curl", "-sS", "-m", "10", metrics)
    # Also where a zone lets everybody in.
    bitrix.run("firewall-cmd", "-q", f"--add-port={cdn.settings.monitoring.exporters.node_port}/tcp")
    with pytest.raises(httpx.ConnectError, match="refused"):
        httpx.get(metrics)


def test_a_second_deploy_would_change_nothing(bitrixvm: tuple[Path, str], lab: state.Lab) -> None:
    assert pyinfra("--dry", "--json", inventory=str(bitrixvm[0]), lab=lab.name).planned() == {}

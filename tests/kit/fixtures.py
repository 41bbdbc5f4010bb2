"""The hosts of a deployed lab, for tests that are about what visitors and the shop get."""

from __future__ import annotations

import runpy
import uuid
from collections.abc import Iterator

import httpx
import pytest

from bitrix_cdn.settings import Settings
from dev.lab import state
from dev.lab.site import Site
from tests.kit.deployment import ROOT, Deployment
from tests.kit.hosts import Cdn, Shop
from tests.kit.support import Remote


@pytest.fixture(scope="session")
def settings(deployment: Deployment, lab: state.Lab) -> Settings:
    """The settings that the lab was deployed with."""
    inventory = runpy.run_path(str(ROOT / deployment.inventory))
    _, data = inventory["cdn"]
    return Settings.model_validate(data["settings"])


@pytest.fixture(scope="session")
def remotes(lab: state.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Remote]]:
    sockets = tmp_path_factory.mktemp("ssh")
    remotes = {
        host.name: Remote(
            host.name, host.address, key=lab.ssh_key, known_hosts=lab.known_hosts, sockets=sockets
        )
        for host in lab.hosts
    }
    yield remotes
    for remote in remotes.values():
        remote.disconnect()


@pytest.fixture(scope="session")
def bitrix(remotes: dict[str, Remote]) -> Remote:
    return remotes["bitrix"]


@pytest.fixture(scope="session")
def cdn(remotes: dict[str, Remote], settings: Settings) -> Iterator[Cdn]:
    remote = remotes["cdn"]
    base_url = f"http://{remote.address}:{settings.nginx.http_port}"
    with httpx.Client(base_url=base_url, timeout=10) as client:
        yield Cdn(remote, settings, client)


@pytest.fixture
def shop(bitrix: Remote, settings: Settings) -> Iterator[Shop]:
    with Site(f"http://{bitrix.address}") as site:
        shop = Shop(site, bitrix, settings, uuid.uuid4().hex[:8])
        yield shop
        shop.clean_up()

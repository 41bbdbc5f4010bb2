"""testinfra on the hosts of the pyinfra inventory."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from tests.kit.deployment import Deployment
from tests.kit.inventory import Inventory


@pytest.fixture(scope="session")
def inventory(
    request: pytest.FixtureRequest, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Inventory:
    only = request.config.getoption("--host") or ()
    return Inventory(deployment.inventory, tmp_path_factory.mktemp("ssh"), only)


@pytest.fixture(scope="session")
def settings(inventory: Inventory) -> Settings:
    return inventory.settings


@pytest.fixture(scope="session")
def bitrix(inventory: Inventory) -> Host:
    """The host that the site runs on."""
    return inventory.host("bitrix")


@pytest.fixture(scope="session")
def cdn(inventory: Inventory) -> Host:
    """The host that serves the pictures."""
    return inventory.host("cdn")


@pytest.fixture(scope="session")
def edges(inventory: Inventory, deployment: Deployment) -> dict[str, Host]:
    """The hosts that serve the pictures from their own caches, by name."""
    found = inventory.of("edge")
    if not found:
        deployment.lacks("edges")
    return found


@pytest.fixture(scope="session")
def balancer(inventory: Inventory, deployment: Deployment) -> Host:
    """The host that spreads visitors over the edges."""
    if not inventory.names("balancer"):
        deployment.lacks("balancer")
    return inventory.host("balancer")


@pytest.fixture(scope="session")
def monitoring(inventory: Inventory) -> Host:
    """The host that Prometheus runs on."""
    return inventory.host("monitoring")

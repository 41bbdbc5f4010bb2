"""The host agent: one package, the same on every host, that every account can run."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from bitrix_cdn.engine.distribution import DEBIAN
from host_agent.cli import PARTS
from roles.agent import COMMAND, LIBRARY, files
from tests.kit.inventory import Inventory

pytestmark = pytest.mark.both


@pytest.fixture(params=["bitrix", "cdn"])
def host(inventory: Inventory, request: pytest.FixtureRequest) -> Host:
    return inventory.host(request.param)


def test_its_files_are_those_of_this_version_and_no_others(host: Host) -> None:
    there = host.check_output("find %s -type f | sort", LIBRARY).splitlines()
    assert there == sorted(file.path for file in files(DEBIAN) if file.path.startswith(LIBRARY))


def test_every_account_can_ask_it_what_it_does(host: Host) -> None:
    assert "redis-mend" in host.check_output("setpriv --reuid=nobody --clear-groups %s --help", COMMAND)


def test_a_wrong_command_is_one_line(host: Host) -> None:
    result = host.run("%s mounts", COMMAND)
    assert (result.rc, result.stdout) == (2, "")
    assert result.stderr == f"cdn-host: 'mounts': {', '.join(PARTS)} or --help is allowed\n"

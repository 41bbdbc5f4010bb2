"""All roles: what the deploy has started on a host is what runs there."""

import pytest

from bitrix_cdn.engine.services import STAMPS
from tests.kit.inventory import Inventory


@pytest.mark.smoke
def test_every_service_that_was_deployed_runs_and_starts_at_boot(inventory: Inventory) -> None:
    for name, host in inventory.chosen().items():
        units = host.check_output("ls %s", STAMPS).split()
        assert units, name
        states = {
            unit: (
                host.run("systemctl is-active %s", unit).stdout.strip(),
                host.run("systemctl is-enabled %s", unit).stdout.strip(),
            )
            for unit in units
        }
        idle = {
            unit: state
            for unit, state in states.items()
            if state[0] != "active" or state[1] not in {"enabled", "static", "generated", "indirect"}
        }
        assert not idle, name


@pytest.mark.smoke
def test_nginx_would_start_again_with_its_files(inventory: Inventory) -> None:
    for name, host in inventory.chosen().items():
        if host.file("/etc/nginx/nginx.conf").exists:
            checked = host.run("nginx -t -q")
            assert checked.rc == 0, f"{name}: {checked.stderr}"

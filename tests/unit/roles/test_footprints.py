"""A role declares once what it takes of a host; whoever has to know reads it there."""

from __future__ import annotations

import pytest

from bitrix_cdn.drift.expected import Ports, expected
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.settings import Settings
from roles import redis
from roles.backup import configuration
from roles.firewall import closed_ports
from roles.footprints import ROLES, document, footprints
from roles.prometheus import jobs
from tests.kit.deployment import ROOT
from tests.unit.roles.inventories import usual


@pytest.fixture
def new_port(monkeypatch: pytest.MonkeyPatch) -> Port:
    """One that a role is given, in its module alone."""
    port = Port(54321, "monitoring", "a new service", job="new")
    taken = Footprint((port,), ("new-account",), ("/etc/new",), ("/etc/new",))
    monkeypatch.setattr(redis, "footprint", lambda place: taken)
    return port


def test_a_new_port_reaches_all_who_have_to_know_it(new_port: Port) -> None:
    settings = Settings()
    with usual("pics"):
        assert new_port.number in closed_ports(settings)
        assert {one.address for one in jobs(settings)["new"]} == {"10.0.0.1:54321", "127.0.0.1:54321"}
    may_have = expected(Place(settings, frozenset({"cdn"})), [], ssh_user="root", asked=False)
    assert Ports(54321, 54321, "tcp", local=True) in (may_have.ports or [])
    assert "new-account" in may_have.accounts
    assert "/etc/new" in may_have.trees
    assert "/etc/new" in configuration(settings, "pics", ("cdn",))["configuration"]
    assert "| redis | 54321/tcp | monitoring hosts | a new service |" in document()


def test_every_role_that_a_deploy_runs_declares_what_it_takes_or_takes_nothing() -> None:
    """Those that take nothing of their own are named here, so that a new role is thought about."""
    nothing = {"acme", "agent", "backup", "firewall", "logs", "rotation"}
    no_roles = {"footprints", "preflight", "releases", "topology"}
    assert {path.stem for path in ROOT.glob("roles/[a-z]*.py")} == {*ROLES, *nothing, *no_roles}


def test_no_port_is_taken_twice_on_a_host() -> None:
    settings = Settings.model_validate({"tls": {"mode": "self-signed"}})
    for groups in ({"bitrix"}, {"cdn", "monitoring"}, {"edge"}, {"balancer"}):
        taken = footprints(Place(settings, frozenset(groups), edges=True)).values()
        ports = [(port.number, port.protocol) for one in taken for port in one.ports]
        assert len(ports) == len(set(ports)), groups

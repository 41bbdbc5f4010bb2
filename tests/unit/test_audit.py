"""What `make audit` wants, and who may reach what by the footprints."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitrix_cdn.fleet.inventory import Inventory
from bitrix_cdn.settings import Settings
from dev.audit.figures import Figure
from dev.audit.hosts import rated
from dev.audit.limits import limits
from dev.audit.network import OUTSIDE, allowed
from dev.audit.scan import reachable


@pytest.mark.parametrize(
    ("value", "at_least", "held"),
    [(84.0, True, False), (85.0, True, True), (85.0, False, True), (86.0, False, False), (None, True, False)],
)
def test_a_figure_is_held_or_missed(value: float | None, at_least: bool, held: bool) -> None:
    figure = Figure("Lynis", "cdn", value, 85, at_least)
    assert figure.held == held
    assert ("MISSED" in figure.line()) != held


def test_what_cannot_be_had_everywhere_may_be_left_unmeasured() -> None:
    assert Figure("pip-audit", "", None, 0, optional=True).held
    assert not Figure("pip-audit", "", 1, 0, optional=True).held


def test_each_unit_has_a_limit_and_instances_go_by_their_template() -> None:
    wanted = limits()
    assert wanted.exposure("anything.service") == wanted.highest
    assert wanted.exposure("mount-guard@originals.service") == wanted.higher["mount-guard@.service"]
    assert {"bitrix", "cdn", "edge", "balancer", "monitoring"} == {*wanted.lynis} == {*wanted.cis}


def test_what_is_the_distributions_or_the_shops_is_not_judged() -> None:
    printed = "ssh.service 9.6\nnginx.service 9.1\nwebp-converter.service 1.2\n"
    assert rated(printed, shop=False) == {"nginx.service": 9.1, "webp-converter.service": 1.2}
    assert rated(printed, shop=True) == {"webp-converter.service": 1.2}


def _inventory(settings: Settings, **groups: tuple[str, ...]) -> Inventory:
    names = {name for members in groups.values() for name in members}
    entries = [
        SimpleNamespace(
            name=name, groups=[group for group, members in groups.items() if name in members], data={}
        )
        for name in names
    ]
    given: Any = SimpleNamespace(settings=settings, groups=groups, entries=entries)
    return cast(Inventory, given)


def test_who_may_reach_what_follows_from_the_footprints() -> None:
    inventory = _inventory(
        Settings(),
        bitrix=("shop",),
        cdn=("pics",),
        edge=("near",),
        balancer=("front",),
        monitoring=("watch",),
    )
    shield, metrics = 8083, 9100
    assert {22, 80} <= allowed(inventory, "pics", OUTSIDE)
    assert not {shield, metrics, 6379} & allowed(inventory, "pics", OUTSIDE)
    assert shield in allowed(inventory, "pics", "near")
    assert shield in allowed(inventory, "pics", "front")
    assert shield not in allowed(inventory, "pics", "shop")
    assert metrics in allowed(inventory, "pics", "watch")
    assert metrics not in allowed(inventory, "pics", "near")


def test_the_scan_finds_what_listens_and_nothing_else() -> None:
    with socket.create_server(("127.0.0.77", 0)) as server, socket.socket() as bound:
        bound.bind(("127.0.0.77", 0))
        open_, closed = server.getsockname()[1], bound.getsockname()[1]
        assert [*reachable("127.0.0.77", [closed, open_])] == [open_]

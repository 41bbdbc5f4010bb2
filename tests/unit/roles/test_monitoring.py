"""Who asks whom, where, by the inventory alone."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.types import mebibytes
from roles.balancer import number
from roles.exporters import visible_name
from roles.firewall import closed_ports, doors
from roles.prometheus import jobs, probes
from roles.topology import asked_at, bracketed
from tests.unit.roles.inventories import MORE, PICTURES, SHOP, usual


def asked(settings: Settings, job: str, **more: Any) -> dict[str, str]:
    """The address that each host is asked at."""
    with usual("pics", **more):
        return {target.labels["host"]: target.address for target in jobs(settings)[job]}


def test_a_host_that_only_itself_asks_is_asked_on_loopback() -> None:
    assert asked(Settings(), "node") == {"shop": f"{SHOP}:9100", "pics": "127.0.0.1:9100"}
    assert asked(Settings(), "converter") == {"pics": "127.0.0.1:9101"}


def test_a_host_that_another_one_asks_is_asked_at_its_address() -> None:
    assert asked(Settings(), "edge", monitoring=["shop"]) == {"pics": f"{PICTURES}:3903"}
    assert asked(Settings(), "node", monitoring=["shop"])["shop"] == "127.0.0.1:9100"
    assert asked(Settings(), "edge", monitoring=["shop", "pics"]) == {"pics": f"{PICTURES}:3903"}
    opened = Settings.model_validate({"monitoring": {"exporters": {"allowed": ["192.0.2.0/24"]}}})
    assert asked(opened, "edge") == {"pics": f"{PICTURES}:3903"}


def test_all_hosts_of_a_group_are_asked() -> None:
    both = {"pics": PICTURES, "more": MORE}
    assert asked(Settings(), "varnish", cdn=both) == {"pics": "127.0.0.1:9131", "more": f"[{MORE}]:9131"}
    with usual("pics", cdn=both):
        found = probes(Settings())
    assert [target.address for target in found if target.labels["probe"] == "webp"] == [
        f"http://{PICTURES}:80/upload/resize_cache/bitrix-cdn/probe.jpg",
        f"http://[{MORE}]:80/upload/resize_cache/bitrix-cdn/probe.jpg",
    ]


def test_both_redis_are_told_apart() -> None:
    with usual("pics"):
        found = {target.labels["redis"]: target.address for target in jobs(Settings())["redis"]}
    assert found == {"cache": "127.0.0.1:9121", "queue": "127.0.0.1:9122"}


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["webp", "original"]),
        ({"tls": {"mode": "self-signed"}}, ["webp", "original", "tls"]),
        (
            {
                "monitoring": {
                    "exporters": {
                        "probe_pictures": ["/upload/iblock/1a2/logo.png"],
                        "probe_site": "https://shop.example.com/",
                    }
                }
            },
            ["webp", "original", "picture", "site"],
        ),
    ],
)
def test_a_visitor_asks_for_what_there_is(settings: dict[str, Any], kinds: list[str]) -> None:
    with usual("pics"):
        found = probes(Settings.model_validate(settings))
    assert [target.labels["probe"] for target in found] == kinds
    scheme = "https" if "tls" in settings else "http"
    assert all(target.address.startswith(f"{scheme}://{PICTURES}:") for target in found[:2])
    assert [target.labels["host"] for target in found] == [
        "shop" if kind == "site" else "pics" for kind in kinds
    ]


def test_ports_that_visitors_have_no_business_at_are_closed() -> None:
    settings = Settings()
    with usual("shop"):
        assert closed_ports(settings) == [9100]
    with usual("pics"):
        closed = closed_ports(settings)
    assert {9100, 3903, 9090, 9101, 9115} <= set(closed)
    assert not {22, settings.nginx.http_port, settings.tls.port} & set(closed)
    with usual("pics", monitoring=["shop"]):
        assert 9090 not in closed_ports(settings)


FRONT = {
    "edge": {"edge1": "10.0.0.31", "edge2": "10.0.0.32"},
    "balancer": {"front": "10.0.0.40"},
}


def test_edges_and_the_balancer_are_asked_too() -> None:
    everybody = {"shop", "pics", "edge1", "edge2", "front"}
    assert set(asked(Settings(), "node", **FRONT)) == everybody
    serving = {"pics": "127.0.0.1:3903", "edge1": "10.0.0.31:3903", "edge2": "10.0.0.32:3903"}
    assert asked(Settings(), "edge", **FRONT) == serving
    assert (
        set(asked(Settings(), "varnish", **FRONT)) == set(asked(Settings(), "nginx", **FRONT)) == set(serving)
    )
    assert set(asked(Settings(), "converter", **FRONT)) == {"pics"}
    assert asked(Settings(), "haproxy", **FRONT) == {"front": "10.0.0.40:8405"}
    with usual("pics"):
        assert "haproxy" not in jobs(Settings())


@pytest.mark.parametrize(
    ("groups", "hosts"),
    [
        ({}, ["pics"]),
        (FRONT, ["pics", "front"]),
        ({"edge": FRONT["edge"]}, ["pics", "edge1", "edge2"]),
    ],
)
def test_a_visitor_asks_where_visitors_come(groups: dict[str, Any], hosts: list[str]) -> None:
    with usual("pics", **groups):
        found = probes(Settings())
    assert [target.labels["host"] for target in found if target.labels["probe"] == "webp"] == hosts


def test_the_ports_of_an_edge_and_of_the_balancer_are_closed() -> None:
    settings = Settings()
    with usual("edge1", **FRONT):
        assert closed_ports(settings) == [3903, 6081, 6082, 8082, 9100, 9113, 9131]
    with usual("front", **FRONT):
        assert closed_ports(settings) == [8405, 9100]


def through(name: str, settings: Settings, **groups: Any) -> dict[str, tuple[list[int], list[str]]]:
    """The doors of a host, each with its ports and whom it lets in; names are as numbers here."""
    with usual(name, **groups) as _, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "roles.firewall.addresses_of",
            lambda hosts, what: [one.data.address for one in hosts if one.name != name],
        )
        return {door.name: (door.ports, [*door.allowed4, *door.allowed6]) for door in doors(settings)}


def test_edges_are_fed_and_asked_by_nobody_else() -> None:
    settings = Settings.model_validate({"edges": {"allowed": ["192.0.2.0/25", "192.0.2.128/25"]}})
    assert through("pics", settings, **FRONT) == {
        "shield": ([8083], ["10.0.0.31/32", "10.0.0.32/32", "10.0.0.40/32"])
    }
    # The monitoring host, which is the CDN host here; sets of nftables must not overlap.
    assert through("edge1", settings, **FRONT) == {
        "edge": ([80], ["10.0.0.2/32", "10.0.0.40/32", "192.0.2.0/24"])
    }
    assert through("front", settings, **FRONT) == {}
    assert through("shop", settings, **FRONT) == {}


def test_edges_without_a_balancer_are_open() -> None:
    groups = {"edge": FRONT["edge"]}
    assert through("edge1", Settings(), **groups) == {}
    assert list(through("pics", Settings(), **groups)) == ["shield"]


def test_without_edges_there_are_no_doors() -> None:
    assert through("pics", Settings()) == through("shop", Settings()) == {}


def test_a_share_of_the_ring_follows_the_name_alone() -> None:
    numbers = [number(f"edge{n}.example.com") for n in range(20)]
    assert len(set(numbers)) == 20
    assert all(0 < one < 1 << 20 for one in numbers)
    # Another number would move the edge's share of all pictures at the next deploy.
    assert number("edge1.example.com") == zlib.crc32(b"edge1.example.com") % 1048575 + 1


def test_addresses_and_names_stand_before_a_port() -> None:
    assert [bracketed(one) for one in ("10.0.0.1", "fd00::3", "shop", "")] == [
        "10.0.0.1",
        "[fd00::3]",
        "shop",
        "",
    ]


def test_a_visitor_has_the_first_name_that_is_one() -> None:
    named = Settings.model_validate({"nginx": {"server_names": ["*.example.com", "cdn.example.com"]}})
    assert visible_name(named) == "cdn.example.com"
    assert visible_name(Settings()) == ""


def test_an_address_is_asked_at_by_its_host_alone() -> None:
    with usual("shop") as _:
        from pyinfra import inventory

        assert asked_at(inventory.get_host("shop"), Settings()) == SHOP
        assert asked_at(inventory.get_host("pics"), Settings()) == "127.0.0.1"


@pytest.mark.parametrize(("memory", "mib"), [("1gb", 1024), ("256mb", 256), ("2048kb", 2)])
def test_memory_in_mib(memory: str, mib: int) -> None:
    assert mebibytes(memory) == mib

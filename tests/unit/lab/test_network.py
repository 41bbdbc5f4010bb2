"""Subnets and the names of interfaces."""

from ipaddress import IPv4Network

import pytest

from dev.lab import network
from dev.lab.errors import LabError


def test_a_lab_gets_the_same_subnet_each_time() -> None:
    assert network.choose_index("lab", [], []) == network.choose_index("lab", [], [])


def test_two_labs_never_get_the_same_subnet() -> None:
    taken: set[int] = set()
    for number in range(512):
        index = network.choose_index(f"lab{number}", taken, [])
        assert index not in taken
        taken.add(index)
    with pytest.raises(LabError, match="no free subnet"):
        network.choose_index("one-too-many", taken, [])


def test_a_network_in_use_is_avoided() -> None:
    usual = network.choose_index("lab", [], [])
    part = next(network.subnet(usual).subnets(new_prefix=30))
    assert network.choose_index("lab", [], [part]) != usual
    assert network.choose_index("lab", [], [IPv4Network("10.0.0.0/8"), IPv4Network("0.0.0.0/0")]) == usual


def test_a_wider_network_in_use_is_avoided() -> None:
    half = IPv4Network("198.18.0.0/16")
    for number in range(20):
        index = network.choose_index(f"lab{number}", [], [half])
        assert not network.subnet(index).overlaps(half)


def test_addresses() -> None:
    assert network.address(0, 2) == "198.18.0.2"
    assert network.address(511, 254) == "198.19.255.254"


def test_interface_names_fit_and_differ() -> None:
    names = [network.port(511, 254), network.port(0, 2), network.bridge(511), network.bridge(0)]
    assert all(len(name) <= 15 for name in names)
    # A bridge's name must not be the name of another lab's port or bridge.
    every = {network.bridge(i) for i in range(512)} | {
        network.port(i, n) for i in range(512) for n in range(2, 255)
    }
    assert len(every) == 512 + 512 * 253

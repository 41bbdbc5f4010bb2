"""What a closed host leaves to be reached."""

from __future__ import annotations

import pytest

from bitrix_cdn.settings import Settings
from roles.baseline import is_wanted
from roles.firewall import open_ports
from tests.unit.roles.inventories import usual


def test_a_closed_host_leaves_ssh_what_is_the_projects_and_what_is_declared() -> None:
    settings = Settings.model_validate(
        {"tls": {"mode": "self-signed"}, "drift": {"ports": ["25/tcp", "10000-10100/udp"]}}
    )
    with usual("pics"):
        tcp = open_ports(settings, "tcp", [22, 2222])
        udp = open_ports(settings, "udp", [22, 2222])
    assert {"22", "25", "80", "443", "2222", "9100-9101"} <= {*tcp}
    assert not {str(settings.redis.queue_port), str(settings.varnish.port)} & {*tcp}
    # DHCP's answers, HTTP/3, and the declared ones.
    assert udp == ["68", "443", "546", "10000-10100"]


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (["20-30/tcp"], "20-30"),
        (["23/tcp", "24/tcp"], "22-24"),
        (["21-40/tcp", "30-50/tcp", "35/tcp"], "21-50"),
    ],
)
def test_ports_that_overlap_are_one_range_as_nftables_wants_it(declared: list[str], found: str) -> None:
    settings = Settings.model_validate({"drift": {"ports": declared}})
    with usual("pics"):
        assert open_ports(settings, "tcp", [22])[0] == found


def test_the_shops_host_is_left_alone_unless_asked_for() -> None:
    with usual("shop"):
        assert not is_wanted(Settings())
        asked = Settings.model_validate({"baseline": {"shop": True}, "drift": {"site_ports": ["8443/tcp"]}})
        assert is_wanted(asked)
        assert "8443" in open_ports(asked, "tcp", [22])
    with usual("pics"):
        assert is_wanted(Settings())


def test_a_shop_is_not_closed_without_saying_what_it_listens_on() -> None:
    with pytest.raises(ValueError, match=r"needs drift\.site_ports"):
        Settings.model_validate({"baseline": {"shop": True}})
    assert Settings.model_validate({"baseline": {"shop": True, "closed": False}})

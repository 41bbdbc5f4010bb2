"""What is in front of pages and metrics, and by which names it answers."""

from __future__ import annotations

import re

import pytest

from bitrix_cdn.engine.files import rendered
from bitrix_cdn.engine.footprint import Place
from bitrix_cdn.settings import Settings
from roles.footprints import ports
from roles.gate import CONFIG, Door, names
from roles.topology import BEHIND

CHECKS_ITSELF = {"converter: health and API"}


@pytest.mark.parametrize("group", ["cdn", "edge", "monitoring"])
def test_whatever_is_measured_or_shown_has_a_gate(group: str) -> None:
    settings = Settings.model_validate({"monitoring": {"grafana": {"enabled": True}}})
    shown = [port for port in ports(Place(settings, frozenset({group}))) if port.job or port.page]
    assert shown
    assert {port.what for port in shown if not port.gate} <= CHECKS_ITSELF


@pytest.mark.parametrize("host", ["10.0.0.5", "[2001:db8::5]", "localhost", "cdn.example.com"])
def test_it_answers_by_numbers_and_its_own_names(host: str) -> None:
    assert _known(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "10.0.0.5.evil.example",
        "1.2.3.4evil",
        "[evil]",
        "evil[::1]",
        "cdn.example.com.evil",
        "",
    ],
)
def test_it_is_nobody_elses(host: str) -> None:
    assert not _known(host)


def _known(host: str) -> bool:
    """As nginx decides, which has the name in lower case and without a port."""
    return any(
        re.search(name[1:], host) if name.startswith("~") else name == host
        for name in names("CDN.example.com")
    )


def test_only_the_paths_of_a_door_lead_behind_it() -> None:
    [file] = rendered(
        "gate",
        only=[CONFIG],
        behind=BEHIND,
        names=names("10.0.0.5"),
        doors=[
            Door(9115, "probes", ["127.0.0.1"], ("/metrics", "/probe")),
            Door(9090, "Prometheus", ["127.0.0.1", "[::1]"], ("/",)),
        ],
    )
    led = re.findall(r"location (.+) \{(?:\s+limit_except GET \{\s+deny all;\s+\})?\s+(\S+)", file.content)
    assert led == [
        ("= /metrics", "proxy_pass"),
        ("= /probe", "proxy_pass"),
        ("/", "return"),
        ("/", "proxy_pass"),
    ]
    assert file.content.count("default_server") == 3

"""An inventory is checked as a whole, and each mistake is one line that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from settings import Settings, SettingsError, groups
from tests.deployment import ROOT

HOSTS: dict[str, Any] = {
    "bitrix": {"shop": {"address": "10.0.0.1"}},
    "cdn": {"pics": {"address": "10.0.0.2"}},
}
EDGES: dict[str, Any] = {
    "edge": {"one": {"address": "10.0.0.3"}, "two": {"address": "10.0.0.4"}},
    "balancer": {"front": {"address": "10.0.0.5"}},
}


def refusal(settings: dict[str, Any] | None = None, **hosts: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        groups(settings=settings, **{**HOSTS, **hosts})
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_two_hosts_are_a_deployment() -> None:
    bitrix, cdn, edge, balancer, monitoring = groups(**HOSTS)
    [(name, data)], shared = bitrix
    assert (name, data["address"], data["ssh_user"], data["_sudo"]) == ("shop", "10.0.0.1", "root", False)
    assert [name for name, _ in monitoring[0]] == ["pics"]
    assert Settings.model_validate(json.loads(json.dumps(shared["settings"]))) == Settings()
    assert cdn[1] is shared
    assert (edge[0], balancer[0]) == ([], [])


def test_edges_and_a_balancer_are_groups_of_their_own() -> None:
    _, _, edge, balancer, monitoring = groups(**HOSTS, **EDGES, monitoring=["front"])
    assert [(name, data["address"]) for name, data in edge[0]] == [("one", "10.0.0.3"), ("two", "10.0.0.4")]
    assert [name for name, _ in balancer[0]] == ["front"]
    assert [name for name, _ in monitoring[0]] == ["front"]
    _, _, edge, balancer, _ = groups(**HOSTS, edge=EDGES["edge"])
    assert (len(edge[0]), balancer[0]) == (2, [])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"redis": {"cache_maxmemry": "1gb"}},
            ["redis.cache_maxmemry", "unknown key", "cache_maxmemory"],
        ),
        ({"radis": {}}, ["radis", "unknown key", "redis"]),
        ({"redis": {"cache_port": "6379"}}, ["redis.cache_port", "'6379'", "integer"]),
        ({"redis": {"cache_port": 0}}, ["redis.cache_port", "0", "greater than or equal to 1"]),
        ({"redis": {"cache_maxmemory": "lots"}}, ["redis.cache_maxmemory", "'lots'"]),
        ({"site": {"root": "/var/www/bitrix/"}}, ["site.root", "without a trailing slash"]),
        ({"site": {"root": "/var/www/;rm"}}, ["site.root", "letters, digits"]),
        ({"cdn": {"originals": "/mnt/shop"}}, ["cdn.originals", "'/mnt/shop'", "ends in /upload"]),
        ({"cdn": {"originals": "/upload"}}, ["cdn.originals", "/mnt/bitrix/upload"]),
        ({"site": {"user": "Root User"}}, ["site.user", "account name"]),
        ({"converter": {"encoding": {"policy": "best"}}}, ["converter.encoding.policy", "'best'", "'ssim'"]),
        ({"converter": {"encoding": {"qualty": 3}}}, ["converter.encoding.qualty", "quality"]),
        ({"nginx": {"server_names": []}}, ["nginx.server_names", "at least 1"]),
        ({"nginx": {"proxies": ["example.com"]}}, ["nginx.proxies", "an address or a network"]),
        ({"nginx": {"unlimited": ["10.0.0.1/24"]}}, ["nginx.unlimited", "an address or a network"]),
        ({"tls": {"mode": "acme"}}, ["acme", "nginx.server_names"]),
        ({"tls": {"mode": "files"}}, ["tls", "certificate and key"]),
        ({"tls": {"certificate": "/etc/x.pem"}}, ["tls", "certificate and key"]),
        ({"cdn": {"originals": "/mnt/bitrix"}}, ["cdn.originals", "/upload"]),
        ({"monitoring": {"prometheus": {"timeout_s": 20}}}, ["monitoring.prometheus", "20", "interval_s 15"]),
        ({"monitoring": {"exporters": {"allowed": ["somewhere"]}}}, ["exporters.allowed", "network"]),
        ({"monitoring": {"exporters": {"probe_pictures": ["logo.png"]}}}, ["probe_pictures", "'logo.png'"]),
        ({"monitoring": {"exporters": {"probe_site": "shop"}}}, ["probe_site", "'shop'"]),
        (
            {"monitoring": {"exporters": {"edge_port": 9100}}},
            ["monitoring.exporters", "node_port", "edge_port"],
        ),
        ({"varnish": {"stale_days": 8}}, ["varnish.stale_days", "less than or equal to 7"]),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], words: list[str]) -> None:
    text = refusal(settings)
    for word in words:
        assert word in text


def test_the_converter_asks_the_ports_of_the_others() -> None:
    checked = Settings.model_validate({"originals": {"port": 9081}, "varnish": {"port": 9601}})
    assert checked.converter.originals.url == "http://127.0.0.1:9081"
    assert checked.converter.originals.purge_url == "http://127.0.0.1:9601"


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ({"cdn": None}, ['group "cdn" is missing']),
        ({"cdn": {}}, ['group "cdn" is missing']),
        (
            {"cnd": {"x": {"address": "10.0.0.3"}}},
            ['group "cnd" is unknown', "bitrix, cdn, edge, balancer, monitoring"],
        ),
        ({"cdn": {"a": {"address": "x"}, "b": {"address": "y"}}}, ['group "cdn" has 2 hosts']),
        ({"cdn": {"shop": {"address": "10.0.0.2"}}}, ['host "shop" is in both groups']),
        ({"cdn": {"pics": {}}}, ['host "pics"', "address is missing"]),
        ({"cdn": {"pics": {"address": "a", "adress": "b"}}}, ["adress", "unknown key", "ssh_user"]),
        ({"cdn": {"pics": {"address": "a", "ssh_port": "22"}}}, ["ssh_port", "'22'"]),
        ({"cdn": {"pics": {"address": "a", "ssh_user": "admin"}}}, ['host "pics"', "sudo: True"]),
        ({"cdn": {"pics": {"address": "a", "ssh_key": "/no/such/key"}}}, ["ssh_key", "no such file"]),
        ({"cdn": ["pics"]}, ['group "cdn"', "address"]),
        ({"monitoring": ["elsewhere"]}, ['"elsewhere"', "in no other group"]),
        ({"balancer": EDGES["balancer"]}, ['group "balancer"', 'name the hosts of group "edge"']),
        (
            {**EDGES, "balancer": {"a": {"address": "x"}, "b": {"address": "y"}}},
            ['group "balancer" has 2 hosts', "at most one"],
        ),
        ({"edge": {"pics": {"address": "10.0.0.2"}}}, ['host "pics" is in both groups, cdn and edge']),
        (
            {"edge": {"one": {"address": "x"}}, "balancer": {"one": {"address": "x"}}},
            ['host "one" is in both groups, edge and balancer'],
        ),
        ({"edge": {"one": {}}}, ['host "one"', "address is missing"]),
        ({"edge": ["one"]}, ['group "edge"', "address"]),
    ],
)
def test_a_bad_host_is_named(hosts: dict[str, Any], words: list[str]) -> None:
    text = refusal(**hosts)
    for word in words:
        assert word in text


def test_hardening_that_shuts_the_operator_out_is_refused() -> None:
    by_password = {"cdn": {"pics": {"address": "a", "ssh_password": "x", "ssh_user": "op", "sudo": True}}}
    assert "password_authentication" in refusal(**by_password)
    groups(**{**HOSTS, **by_password}, settings={"sshd": {"password_authentication": True}})
    assert "root_login" in refusal({"sshd": {"root_login": "no"}})
    as_root = {"cdn": {"pics": {"address": "a", "ssh_password": "x"}}}
    assert 'root_login = "yes"' in refusal({"sshd": {"password_authentication": True}}, **as_root)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"tls": {"mode": "acme"}, "nginx": {"server_names": ["cdn.example.com"]}},
            ['tls.mode "acme"', "without edges", '"files"'],
        ),
        ({"edges": {"shield_port": 80}}, ["edges.shield_port", "nginx.http_port, 80"]),
        ({"varnish": {"port": 8083}}, ["edges.shield_port", "varnish.port, 8083"]),
    ],
)
def test_what_does_not_go_with_edges_is_refused_only_there(
    settings: dict[str, Any], words: list[str]
) -> None:
    text = refusal(settings, **EDGES)
    for word in words:
        assert word in text
    groups(**HOSTS, settings=settings)


def test_a_password_is_not_repeated_in_an_error() -> None:
    for password in ("hunter2", ["hunter2"]):
        text = refusal(cdn={"pics": {"address": "a", "ssh_user": "admin", "ssh_password": password}})
        assert "hunter2" not in text


def test_the_converter_follows_the_cdn_tree() -> None:
    moved = Settings.model_validate({"cdn": {"root": "/srv/cdn", "variants": "/srv/webp"}})
    assert str(moved.converter.store.root) == "/srv/cdn/upload/resize_cache"
    assert str(moved.converter.store.temporary) == "/srv/cdn/.webp-converter"
    assert str(moved.converter.originals.variants) == "/srv/webp/upload"
    kept = Settings.model_validate(
        {"cdn": {"root": "/srv/cdn"}, "converter": {"store": {"temporary": "/srv/tmp"}}}
    )
    assert str(kept.converter.store.temporary) == "/srv/tmp"
    assert str(kept.converter.store.root) == "/srv/cdn/upload/resize_cache"


def check(inventory: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "pyinfra", str(inventory), "debug-inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_is_valid() -> None:
    result = check("inventories/production.py")
    assert result.returncode == 0, result.stderr


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str, str], Path]:
    def changed(old: str, new: str) -> Path:
        text = (ROOT / "inventories/production.py").read_text()
        assert old in text
        copy = tmp_path / "shop.py"
        copy.write_text(text.replace(old, new, 1))
        return copy

    return changed


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"512mb"', "512", "cache_maxmemory"),
        ('"policy"', '"polcy"', "polcy"),
        ("cdn={", "cnd={", "cnd"),
        ('"ssh_user": "root",', '"ssh_user": "admin",', "sudo"),
    ],
)
def test_pyinfra_says_it_in_one_line_and_fails(
    example: Callable[[str, str], Path], old: str, new: str, word: str
) -> None:
    result = check(example(old, new))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert word in result.stderr.strip().splitlines()[-1]
    assert "Connect" not in result.stderr

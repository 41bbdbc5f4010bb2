"""An inventory is checked as a whole, and each mistake is one line that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitrix_cdn.settings import InventoryError, Settings, groups
from tests.kit.deployment import ROOT
from tests.kit.examples import filled_in

HOSTS: dict[str, Any] = {
    "bitrix": {"shop": {"address": "10.0.0.1"}},
    "cdn": {"pics": {"address": "10.0.0.2"}},
}
EDGES: dict[str, Any] = {
    "edge": {"one": {"address": "10.0.0.3"}, "two": {"address": "10.0.0.4"}},
    "balancer": {"front": {"address": "10.0.0.5"}},
}


def refusal(settings: Any = None, **hosts: Any) -> str:
    """The only line that a mistake gives."""
    [line] = refusals(settings, **hosts)
    return line


def refusals(settings: Any = None, **hosts: Any) -> tuple[str, ...]:
    with pytest.raises(InventoryError) as caught:
        groups(settings=settings, **{**HOSTS, **hosts})
    assert caught.value.code == 2
    assert all("\n" not in line for line in caught.value.lines)
    return caught.value.lines


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
    text = "; ".join(refusals(settings))
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
    text = "; ".join(refusals(**hosts))
    for word in words:
        assert word in text


def test_hardening_that_shuts_the_operator_out_is_refused() -> None:
    by_password = {"cdn": {"pics": {"address": "a", "ssh_password": "x", "ssh_user": "op", "sudo": True}}}
    assert "password_authentication" in refusal(**by_password)
    groups(**{**HOSTS, **by_password}, settings={"sshd": {"password_authentication": True}})
    assert all("root_login" in line for line in refusals({"sshd": {"root_login": "no"}}))
    as_root = {"cdn": {"pics": {"address": "a", "ssh_password": "x"}}}
    assert 'root_login = "yes"' in refusal({"sshd": {"password_authentication": True}}, **as_root)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"tls": {"mode": "acme"}, "nginx": {"server_names": ["cdn.shop.test"]}},
            ['tls.mode "acme"', "without edges", '"files"'],
        ),
        ({"edges": {"shield_port": 80}}, ["edges.shield_port", "port 80 is nginx.http_port's"]),
        ({"varnish": {"port": 8083}}, ["edges.shield_port", "port 8083 is varnish.port's"]),
    ],
)
def test_what_does_not_go_with_edges_is_refused_only_there(
    settings: dict[str, Any], words: list[str]
) -> None:
    text = "; ".join(refusals(settings, **EDGES))
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


def said(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of an error, without what pyinfra is at."""
    return [line for line in result.stderr.splitlines() if line and not line.startswith("-->")]


def check(inventory: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "pyinfra", str(inventory), "debug-inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_is_valid_once_it_has_hosts_of_ones_own(tmp_path: Path) -> None:
    result = check(filled_in(tmp_path))
    assert result.returncode == 0, result.stderr


def test_the_example_itself_names_all_that_is_to_be_written_there() -> None:
    result = check("inventories/production.py")
    assert result.returncode == 2
    lines = said(result)
    text = (ROOT / "inventories/production.py").read_text().splitlines()
    assert len(lines) == 5
    for line in lines:
        file, number, why = line.split(":", 2)
        assert file == "inventories/production.py"
        assert "it is the example's" in why
        assert "example.com" in text[int(number) - 1] or "192.0.2." in text[int(number) - 1]


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str, str], Path]:
    def changed(old: str, new: str) -> Path:
        copy = filled_in(tmp_path)
        assert old in copy.read_text()
        copy.write_text(copy.read_text().replace(old, new, 1))
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
    inventory = example(old, new)
    result = check(inventory)
    assert result.returncode == 2
    [line] = [line for line in said(result) if word in line]
    number = int(line.removeprefix(f"{inventory}:").partition(":")[0])
    assert "pyinfra error" not in line
    # What a host lacks is told where the host is.
    assert ('"shop.shop.test": {' if word == "sudo" else new) in inventory.read_text().splitlines()[
        number - 1
    ]


def test_an_inventory_of_before_goes_on_working(example: Callable[[str, str], Path]) -> None:
    result = check(example("from bitrix_cdn.settings import groups", "from settings import groups"))
    assert result.returncode == 0, result.stderr


def test_an_inventory_that_is_not_there_is_no_success() -> None:
    result = check("inventories/produktion.py")
    assert result.returncode == 2
    [line] = said(result)
    assert line.startswith("inventories/produktion.py: no such file")
    assert "inventories/production.py" in line


# What people write; each was taken for right once, or gave a traceback.
WRONG: list[tuple[dict[str, Any], str]] = [
    *(
        ({"cdn": {"pics": {"address": address}}}, word)
        for address, word in (
            ("198.18.127.300", "four numbers"),
            ("1.2.3", "four numbers"),
            ("1.2.3.4:2222", "ssh_port"),
            ("pics.shop.test:22", "ssh_port"),
            ("127.0.0.1", "can't reach"),
            ("::1", "can't reach"),
            ("localhost", "can't reach"),
            ("0.0.0.0", "can't reach"),
            ("224.0.0.1", "can't reach"),
            ("169.254.1.1", "can't reach"),
            ("255.255.255.255", "can't reach"),
            ("fe80::1", "can't reach"),
            ("::ffff:127.0.0.1", "can't reach"),
            ("-oProxyCommand=reboot", "a host's name"),
            ("", "a host's name"),
            ("two words", "a host's name"),
            ("https://pics.shop.test", "a host's name"),
            ("root@pics", "a host's name"),
            ("10.0.0.0/24", "a host's name"),
            ("192.0.2.20", "the example's"),
            ("198.51.100.2", "the example's"),
            ("203.0.113.9", "the example's"),
            ("2001:db8::1", "the example's"),
            ("cdn.example.com", "the example's"),
            ("10.0.0.1", 'host "shop" as well'),
            ("::ffff:10.0.0.1", 'host "shop" as well'),
            ("shop", 'is the address of host "pics"'),
            (None, "valid string"),
            (7, "valid string"),
        )
    ),
    *(
        ({"cdn": {"pics": {"address": "10.0.0.2", "ssh_hostname": name}}}, word)
        for name, word in (
            ("cdn.example.org", "the example's"),
            ("-v", "a host's name"),
            ("1.2.3.4:22", "ssh_port"),
        )
    ),
    ({"cdn": {"cdn.example.com": {"address": "10.0.0.2"}}}, "the example's"),
    ({"cdn": {"10.0.0.1": {"address": "10.0.0.2"}}}, 'is the address of host "shop"'),
    *(
        ({"cdn": {"pics": {"address": "10.0.0.2", "sudo": True, "ssh_user": user}}}, "an account's name")
        for user in ("", "-x", "two words")
    ),
    ({"cdn": {"-v": {"address": "10.0.0.2"}}}, "a name or an address"),
    ({"cdn": {"two words": {"address": "10.0.0.2"}}}, "a name or an address"),
    ({"cdn": {7: {"address": "10.0.0.2"}}}, "a name or an address"),
    *(
        ({"cdn": {"pics": entry}}, '{"address": ...} is allowed')
        for entry in ("10.0.0.2", None, ["10.0.0.2"], 7)
    ),
    *(({"cdn": given}, '{name: {"address": ...}} is allowed') for given in ("pics", ["pics"], 7)),
    ({"monitoring": "pics"}, "a list of hosts' names"),
    ({"monitoring": {"pics": {}}}, "a list of hosts' names"),
    (
        {"bitrix": {"cdn1": {"address": "10.0.0.1"}}, "cdn": {"www.shop.test": {"address": "10.0.0.2"}}},
        "are they swapped?",
    ),
    ({"monitoring": ["pics", "pics"]}, "named twice"),
    ({"monitoring": [{"pics": {}}]}, "in no other group"),
    ({"monitor": ["pics"]}, 'did you mean "monitoring"'),
    *(({"settings": given}, "{section: {...}} is allowed") for given in ("x", ["x"], 7)),
    *(({"settings": {"redis": given}}, "it is a section") for given in ("x", None, ["x"], 7)),
    ({"settings": {"redis": {"cache_prot": 1}}}, "did you mean cache_port"),
    ({"settings": {"nginks": {}}}, "did you mean nginx"),
    *(
        ({"settings": {"cdn": {"root": path}}}, "is the system's")
        for path in (
            "/etc",
            "/etc/cdn",
            "/usr/share/cdn",
            "/var",
            "/var/www",
            "/home",
            "/tmp",
            "/root/cdn",
            "/dev/shm",
        )
    ),
    ({"settings": {"cdn": {"root": "relative"}}}, "an absolute path"),
    ({"settings": {"cdn": {"root": "/"}}}, "an absolute path"),
    ({"settings": {"cdn": {"variants": "/var/www/cdn"}}}, "one in the other"),
    ({"settings": {"cdn": {"variants": "/var/www/cdn/webp"}}}, "one in the other"),
    ({"settings": {"cdn": {"originals": "/var/www/cdn/mnt/upload"}}}, "one in the other"),
    ({"settings": {"cdn": {"originals": "/var/cache/webp/upload"}}}, "one in the other"),
    ({"settings": {"converter": {"store": {"root": "/etc"}}}}, "leave it out"),
    ({"settings": {"converter": {"store": {"temporary": "/etc/x"}}}}, "is the system's"),
    ({"settings": {"converter": {"originals": {"variants": "/srv/webp"}}}}, "leave it out"),
    ({"settings": {"nginx": {"proxies": ["192.0.2.0/28"]}}}, "the example's"),
    ({"settings": {"sftp": {"export": "/var/www/bitrix/export"}}}, "one in the other"),
    ({"settings": {"sftp": {"cache_account": "root"}}}, "somebody else's"),
    ({"settings": {"sftp": {"cache_account": "www-data"}}}, "somebody else's"),
    ({"settings": {"sftp": {"cache_account": "cdn-nginx"}}}, "somebody else's"),
    ({"settings": {"sftp": {"originals_account": "redis"}}}, "somebody else's"),
    ({"settings": {"site": {"user": "root"}}}, "PHP runs as"),
    ({"settings": {"varnish": {"port": 8081}}}, "originals.port's"),
    ({"settings": {"nginx": {"http_port": 22}}}, "SSH server's"),
    ({"settings": {"redis": {"queue_port": 6379}}}, "redis.cache_port's"),
    ({"settings": {"converter": {"metrics": {"port": 9090}}}}, "converter.metrics.port's"),
    ({"settings": {"tls": {"mode": "self-signed", "port": 80}}}, "nginx.http_port's"),
    ({"settings": {"nginx": {"status_port": 6081}}}, "nginx.status_port's"),
    ({"settings": {"nginx": {"server_names": ["cdn.example.com"]}}}, "the example's"),
    ({"bitrix": {"shop": {"address": "10.0.0.1"}, "pics": {"address": "10.0.0.2"}}}, "exactly one"),
]


@pytest.mark.parametrize(("given", "word"), WRONG, ids=lambda value: str(value)[:60])
def test_what_people_write_is_told_in_one_line(given: dict[str, Any], word: str) -> None:
    assert any(
        word in line
        for line in refusals(given.get("settings"), **{k: v for k, v in given.items() if k != "settings"})
    )


def test_all_mistakes_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    inventory = tmp_path / "shop.py"
    inventory.write_text(
        "from bitrix_cdn.settings import groups\n\n"
        '_settings = {\n    "redis": {\n        "cache_port": 0,\n    },\n}\n'
        "bitrix, cdn, edge, balancer, monitoring = groups(\n"
        '    bitrix={"shop": {"address": "10.0.0.1"},\n'
        '            "shop": {"address": "10.0.0.9"}},\n'
        '    cdn={"pics": {\n        "address": "10.0.0.300"}},\n'
        "    settings=_settings,\n)\n"
    )
    result = check(inventory)
    assert result.returncode == 2
    numbers = [int(line.removeprefix(f"{inventory}:").partition(":")[0]) for line in said(result)]
    assert numbers == [5, 10, 12], result.stderr

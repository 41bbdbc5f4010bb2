"""Role grafana, as far as it can be tried without Grafana: its files, its repository, its key."""

from __future__ import annotations

import configparser
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bitrix_cdn.dashboards.panels import DATASOURCE, Options
from bitrix_cdn.engine.files import File
from bitrix_cdn.settings.grafana import GrafanaRepository, GrafanaSettings
from roles import grafana as role
from roles.grafana import (
    INI,
    PROVIDER,
    SITE,
    SOURCES,
    Available,
    Candidate,
    Fingerprints,
    Taken,
    allowed,
    configuration,
    dashboards,
    domain,
    key_script,
    left_out,
)


def rendered(own: GrafanaSettings | None = None, **given: Any) -> dict[str, File]:
    """The role's files, with something sensible for what isn't given."""
    defaults = {
        "domain": "cdn.example.com",
        "https": True,
        "allowed": ["127.0.0.1", "10.0.0.0/8"],
        "certificate": "/etc/nginx/tls/certificate.pem",
        "key": "/etc/nginx/tls/key.pem",
        "modern": True,
        "prometheus_port": 9090,
        "interval_s": 15,
    }
    return {file.path: file for file in configuration(own or GrafanaSettings(), **{**defaults, **given})}


def ini(files: dict[str, File]) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(files[INI].content)
    return parser


def test_it_talks_to_this_host_alone() -> None:
    parser = ini(rendered())
    assert parser["server"]["http_addr"] == "127.0.0.2"
    assert parser["server"]["root_url"] == "https://cdn.example.com:3443/"
    for section, key in (
        ("analytics", "reporting_enabled"),
        ("analytics", "check_for_updates"),
        ("analytics", "check_for_plugin_updates"),
        ("news", "news_feed_enabled"),
        ("snapshots", "external_enabled"),
        ("plugins", "plugin_admin_enabled"),
        ("auth.anonymous", "enabled"),
        ("users", "allow_sign_up"),
    ):
        assert parser.getboolean(section, key) is False, key
    assert parser.getboolean("security", "disable_gravatar")
    assert parser.getboolean("plugins", "preinstall_disabled")


def test_its_secrets_are_not_in_its_configuration() -> None:
    security = ini(rendered())["security"]
    place = "/run/credentials/grafana-server.service"
    assert security["admin_password"] == f"$__file{{{place}/admin-password}}"
    assert security["secret_key"] == f"$__file{{{place}/secret-key}}"
    unit = rendered()[role.DROP_IN].content.splitlines()
    assert f"LoadCredential=admin-password:{role.PASSWORD}" in unit
    assert f"LoadCredential=secret-key:{role.SECRET}" in unit


def test_without_nginx_it_is_on_loopback_without_tls() -> None:
    parser = ini(rendered(https=False))
    assert parser["server"]["root_url"] == "http://127.0.0.1:3000/"
    assert not parser.getboolean("security", "cookie_secure")


def test_ports_and_prometheus_follow_the_settings() -> None:
    own = GrafanaSettings(port=3001, https_port=8443, memory_max="1gb")
    files = rendered(own, prometheus_port=9999, interval_s=30)
    assert ini(files)["server"]["http_port"] == "3001"
    source = files[role.DATASOURCES].content
    assert "url: http://127.0.0.1:9999\n" in source
    assert f"uid: {DATASOURCE}\n" in source
    assert "timeInterval: 30s\n" in source
    site = files[SITE].content
    assert "listen 8443 ssl;" in site
    assert "proxy_pass http://127.0.0.2:3001;" in site
    assert "MemoryMax=1G\n" in files[role.DROP_IN].content


def test_home_and_dashboards_are_where_they_are_looked_for() -> None:
    files, made = rendered(), dashboards(Options())
    assert ini(files)["dashboards"]["default_home_dashboard_path"] in [file.path for file in made]
    assert f"path: {role.DASHBOARDS}\n" in files[PROVIDER].content
    for file in made:
        assert Path(file.path).parent == Path(role.DASHBOARDS)
        assert {
            target["datasource"]["uid"]
            for panel in json.loads(file.content)["panels"]
            for target in panel.get("targets", [])
        } == {DATASOURCE}
    # What the package sets with each upgrade: else the next deploy would change it back.
    below = [file for file in [*files.values(), *made] if file.path.startswith("/etc/grafana/")]
    assert {(file.mode, file.user, file.group) for file in below} == {("640", "root", "grafana")}


@pytest.mark.parametrize("modern", [True, False])
def test_nginx_lets_in_whom_the_settings_name(modern: bool, tmp_path: Path) -> None:
    site = rendered(modern=modern)[SITE].content
    lines = [line.strip() for line in site.splitlines()]
    rules = [line for line in lines if line.startswith(("allow ", "deny "))]
    assert rules == ["allow 127.0.0.1;", "allow 10.0.0.0/8;", "deny all;"]
    assert ("http2 on;" in lines) is modern
    assert ("listen 3443 ssl http2;" in lines) is not modern
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"events {{ }}\nhttp {{\nserver_tokens off;\n{site}\n}}\n")
    result = subprocess.run(
        [Path(sys.executable).parent / "gixy", whole], capture_output=True, text=True, check=False
    )
    # HSTS would hold for the host's other ports as well, and the pictures' is a separate setting.
    assert set(re.findall(r"Problem: \[(\w+)\]", result.stdout)) == {"hsts_header"}, result.stdout


def test_private_addresses_of_the_hosts_are_let_in() -> None:
    own = GrafanaSettings(allowed=["192.0.2.0/24", "10.0.0.1"])
    addresses = ["10.0.0.1", "8.8.8.8", "cdn.example.com", "10.0.0.2"]
    assert allowed(own, addresses) == ["127.0.0.1", "::1", "10.0.0.1", "10.0.0.2", "192.0.2.0/24"]


def test_the_domain_is_the_best_name_there_is() -> None:
    assert domain(GrafanaSettings(domain="graphs.example.com"), ["cdn.example.com"], "10.0.0.1") == (
        "graphs.example.com"
    )
    assert domain(GrafanaSettings(), ["_", "cdn.example.com"], "10.0.0.1") == "cdn.example.com"
    assert domain(GrafanaSettings(), ["_", "*.example.com"], "10.0.0.1") == "10.0.0.1"
    assert domain(GrafanaSettings(), ["_"], "fd00::1") == "[fd00::1]"


def test_left_out_is_said_in_one_line() -> None:
    said = left_out("cdn", GrafanaRepository())
    assert "\n" not in said
    for word in ("cdn", "Grafana is left out", GrafanaRepository().url, "monitoring.grafana.repository"):
        assert word in said


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "apt.example.com"},
        {"url": "https://apt.example.com/; rm -rf"},
        {"fingerprint": "10458545"},
        {"key_file": "/no/such/file"},
        {"components": []},
        {"suite": "../stable"},
    ],
)
def test_a_repository_that_can_not_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GrafanaRepository.model_validate(wrong)


@dataclass(frozen=True)
class Served:
    """A directory that a server on loopback shows."""

    root: Path
    url: str


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    root = tmp_path / "served"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=root)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Served(root, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def shell(script: str, input: str = "") -> subprocess.CompletedProcess[str]:
    # A proxy of this machine's is none of this test's.
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return subprocess.run(
        ["sh", "-c", script], input=input, env=environment, capture_output=True, text=True, check=False
    )


def available(url: str) -> bool:
    fact = Available()
    return fact.process(shell(fact.command(url=url, suite="stable")).stdout.splitlines())


@pytest.mark.skipif(shutil.which("grafana-server") is not None, reason="Grafana is installed on this machine")
def test_a_repository_is_there_when_it_shows_a_release(served: Served) -> None:
    assert not available(served.url)
    release = served.root / "dists/stable/InRelease"
    release.parent.mkdir(parents=True)
    release.write_text("<html>Log in to use this network</html>\n")
    assert not available(served.url)
    release.write_text("Origin: x\nSHA256:\n 0 0 main/binary-amd64/Packages\n")
    assert available(served.url)
    assert available(f"{served.url}/")


@pytest.mark.skipif(shutil.which("grafana-server") is not None, reason="Grafana is installed on this machine")
def test_a_repository_that_nobody_answers_for_is_away() -> None:
    # A port on which nothing can listen.
    assert not available("http://127.0.0.1:1")


@dataclass(frozen=True)
class Keys:
    """Two key pairs of a home of their own."""

    home: Path
    ours: str
    other: str

    def gpg(self, *arguments: str, input: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *arguments]
        return subprocess.run(command, input=input, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    if shutil.which("gpg") is None or shutil.which("gpg-agent") is None:
        pytest.skip("gpg is not installed (Debian: gpg, gpg-agent)")
    # Short, as the path of the agent's socket may be.
    home = tmp_path_factory.mktemp("k")
    home.chmod(0o700)
    made = Keys(home, "", "")
    for name in ("ours", "other"):
        made.gpg(
            "--passphrase", "", "--quick-gen-key", f"{name} <{name}@example.com>", "ed25519", "sign", "0"
        )
    listed = made.gpg("--list-keys", "--with-colons").decode().splitlines()
    ours, other = (line.split(":")[9] for line in listed if line.startswith("fpr"))
    yield Keys(home, ours, other)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def fingerprints(keyring: Path) -> list[str]:
    fact = Fingerprints()
    return list(fact.process(shell(fact.command(keyring=str(keyring))).stdout.splitlines()))


@pytest.mark.parametrize("given", [True, False], ids=["given", "fetched"])
def test_one_key_is_trusted_of_all_that_came(keys: Keys, served: Served, tmp_path: Path, given: bool) -> None:
    bundle = keys.gpg("--armor", "--export")
    (served.root / "gpg.key").write_bytes(bundle)
    keyring = tmp_path / "keyrings/grafana.gpg"
    script = key_script(f"{served.url}/gpg.key", keys.ours, str(keyring), given=given)
    result = shell(script, bundle.decode() if given else "")
    assert result.returncode == 0, result.stderr
    assert fingerprints(keyring) == [keys.ours]
    assert keyring.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in keyring.parent.iterdir()] == ["grafana.gpg"]


def test_another_key_is_refused(keys: Keys, tmp_path: Path) -> None:
    keyring = tmp_path / "grafana.gpg"
    bundle = keys.gpg("--armor", "--export", keys.other).decode()
    for content in (bundle, "<html>not found</html>", ""):
        result = shell(key_script("", keys.ours, str(keyring), given=True), content)
        assert result.returncode != 0
        assert result.stderr.strip() == f"the file given has no key {keys.ours}"
        assert not keyring.exists()
    assert fingerprints(keyring) == []


def repository(root: Path, keys: Keys, versions: list[str]) -> None:
    """A signed repository with versions of a package that can't be downloaded."""
    packages = "".join(
        f"Package: grafana\nVersion: {version}\nArchitecture: all\nMaintainer: x\n"
        f"Filename: pool/{version}.deb\nSize: 1\nSHA256: {'0' * 64}\nDescription: x\n\n"
        for version in versions
    )
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    index = root / f"dists/stable/main/binary-{architecture}/Packages"
    index.parent.mkdir(parents=True)
    index.write_text(packages)
    name = index.relative_to(root / "dists/stable")
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    release = (
        f"Origin: x\nSuite: stable\nCodename: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"Architectures: {architecture}\nComponents: main\nSHA256:\n {digest} {index.stat().st_size} {name}\n"
    )
    signed = keys.gpg("--local-user", keys.ours, "--clearsign", input=release.encode())
    (root / "dists/stable/InRelease").write_bytes(signed)


def test_apt_takes_the_version_that_is_wanted_and_no_other(
    keys: Keys, served: Served, tmp_path: Path
) -> None:
    repository(served.root, keys, ["11.6.1", "12.0.2", "12.1.0", "13.0.0"])
    own = GrafanaSettings(repository=GrafanaRepository(url=served.url))
    apt = tmp_path / "apt"
    for path in (
        "etc/apt/sources.list.d",
        "etc/apt/preferences.d",
        "lists/partial",
        "cache/archives/partial",
    ):
        (apt / path).mkdir(parents=True)
    (apt / "status").touch()
    keyring = apt / "grafana.gpg"
    keyring.write_bytes(keys.gpg("--export", keys.ours))
    options = (
        f"-o Dir::Etc={apt}/etc/apt -o Dir::State::lists={apt}/lists -o Dir::State::status={apt}/status "
        f"-o Dir::Cache={apt}/cache -o APT::Sandbox::User=root -o Acquire::Languages=none"
    )

    def candidate() -> str:
        fact = Candidate()
        command = fact.command(package="grafana").replace("apt-cache", f"apt-cache {options}")
        return fact.process(shell(command).stdout.splitlines())

    files = rendered(own)
    sources = apt / "etc/apt/sources.list.d/grafana.sources"
    sources.write_text(files[SOURCES].content.replace(role.KEYRING, str(keyring)))
    (apt / "etc/apt/preferences.d/grafana").write_text(files[role.PREFERENCES].content)
    assert candidate() == ""
    result = shell(role.update_command(str(sources)).replace("apt-get", f"apt-get {options}"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert candidate() == "12.1.0"

    none = GrafanaSettings(repository=GrafanaRepository(url=served.url, version="14.*"))
    (apt / "etc/apt/preferences.d/grafana").write_text(rendered(none)[role.PREFERENCES].content)
    assert candidate() == ""

    # A repository that another key signed is refused, and the deploy with it.
    keyring.write_bytes(keys.gpg("--export", keys.other))
    shutil.rmtree(apt / "lists")
    (apt / "lists/partial").mkdir(parents=True)
    assert shell(role.update_command(str(sources)).replace("apt-get", f"apt-get {options}")).returncode != 0


def test_nginx_is_reloaded_once_for_each_change(tmp_path: Path) -> None:
    site, stamp = tmp_path / "grafana.conf", tmp_path / "stamp"
    paths = [str(site), str(tmp_path / "absent.pem")]

    def is_taken() -> bool:
        fact = Taken()
        return fact.process(shell(fact.command(paths=paths, stamp=str(stamp))).stdout.splitlines())

    site.write_text("one\n")
    assert not is_taken()
    shell(role.taken_script("true", paths, str(stamp)))
    assert is_taken()
    site.write_text("two\n")
    assert not is_taken()
    assert shell(role.taken_script("false", paths, str(stamp))).returncode != 0
    assert not is_taken()

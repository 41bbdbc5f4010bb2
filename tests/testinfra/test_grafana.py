"""Role grafana: it shows the dashboards, or, where its repository can't be reached, nothing is left of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from bitrix_cdn.dashboards import Options, files
from bitrix_cdn.dashboards.panels import DATASOURCE
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.grafana import GrafanaSettings
from roles import grafana as role
from roles.topology import BEHIND, LOOPBACK
from tests.kit.deployment import Deployment
from tests.kit.inventory import Inventory

# Asked on the host itself, where it is let in; the certificate is the edge's and for another name.
_ASK = """
import base64, json, ssl, sys, urllib.error, urllib.request
url, path, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"})
if path:
    login = base64.b64encode(b"admin:" + open(path, "rb").read().strip()).decode()
    request.add_header("Authorization", f"Basic {login}")
try:
    with urllib.request.urlopen(request, timeout=30, context=ssl._create_unverified_context()) as answer:
        status, text = answer.status, answer.read().decode()
except urllib.error.HTTPError as error:
    status, text = error.code, error.read().decode()
print(json.dumps([status, text]))
"""


@pytest.fixture(scope="module")
def own(settings: Settings) -> GrafanaSettings:
    grafana: GrafanaSettings = settings.monitoring.grafana
    if not grafana.enabled:
        pytest.skip("Grafana is switched off in this inventory")
    return grafana


@pytest.fixture(scope="module")
def monitoring(inventory: Inventory) -> Host:
    """The host that watches over the others."""
    return inventory.host("monitoring")


@pytest.fixture(scope="module")
def is_installed(monitoring: Host, own: GrafanaSettings) -> bool:
    installed: bool = monitoring.package("grafana").is_installed
    return installed


@pytest.fixture
def installed(is_installed: bool) -> None:
    if not is_installed:
        pytest.skip("Grafana's repository can't be reached from here")


@pytest.fixture
def absent(is_installed: bool) -> None:
    if is_installed:
        pytest.skip("Grafana is installed")


class Grafana:
    """Grafana as its host reaches it."""

    def __init__(self, host: Host, own: GrafanaSettings) -> None:
        self._host = host
        behind_nginx = host.file(role.SITE).exists
        self._base = f"https://127.0.0.1:{own.https_port}" if behind_nginx else f"http://127.0.0.1:{own.port}"

    def ask(self, path: str, *, login: bool = True, body: str = "") -> tuple[int, Any]:
        """The status and the answer, taken for JSON.

        :param login: as the administrator.
        """
        said = self._host.check_output(
            "python3 -c %s %s %s %s", _ASK, self._base + path, role.PASSWORD if login else "", body
        )
        status, text = json.loads(said)
        return status, json.loads(text)


@pytest.fixture
def grafana(installed: None, monitoring: Host, own: GrafanaSettings) -> Grafana:
    return Grafana(monitoring, own)


@pytest.mark.smoke
def test_it_answers(grafana: Grafana) -> None:
    status, health = grafana.ask("/api/health", login=False)
    assert (status, health["database"]) == (200, "ok")


def test_it_shows_nothing_to_a_stranger(grafana: Grafana) -> None:
    for path in ("/api/search", "/api/dashboards/uid/bitrix-cdn-overview", "/api/datasources"):
        assert grafana.ask(path, login=False)[0] == 401


def test_all_dashboards_are_there(grafana: Grafana) -> None:
    status, found = grafana.ask("/api/search?type=dash-db")
    assert status == 200
    assert {board["uid"] for board in found} >= {name.removesuffix(".json") for name in files(Options())}


def test_its_data_source_is_this_hosts_prometheus(grafana: Grafana) -> None:
    query = {
        "queries": [{"refId": "A", "datasource": {"uid": DATASOURCE}, "expr": "up", "instant": True}],
        "from": "now-5m",
        "to": "now",
    }
    status, answer = grafana.ask("/api/ds/query", body=json.dumps(query))
    assert status == 200, answer
    assert answer["results"]["A"]["frames"]


def test_its_password_is_roots_alone(installed: None, monitoring: Host) -> None:
    for path in (role.PASSWORD, role.SECRET):
        file = monitoring.file(path)
        assert (file.user, file.group) == ("root", "root")
        assert file.mode & 0o007 == 0
        assert len(file.content_string) == 64


def test_it_listens_for_its_host_alone(installed: None, monitoring: Host, own: GrafanaSettings) -> None:
    lines = monitoring.check_output("ss -Htln sport = :%s", str(own.port)).splitlines()
    assert sorted(line.split()[3] for line in lines) == [f"{at}:{own.port}" for at in (LOOPBACK, BEHIND)]


def test_nginx_refuses_whom_nobody_named(
    installed: None, monitoring: Host, inventory: Inventory, own: GrafanaSettings
) -> None:
    if not monitoring.file(role.SITE).exists or own.allowed:
        pytest.skip("this machine may be let in")
    data = inventory.data("monitoring")
    url = f"https://{data.get('ssh_hostname', data['address'])}:{own.https_port}/login"
    assert httpx.get(url, verify=False).status_code == 403


def test_the_deploy_said_that_it_was_left_out(absent: None, deployment: Deployment) -> None:
    if deployment.first is None:
        pytest.skip("these hosts were deployed before")
    said = [line for line in deployment.first.output.splitlines() if "Grafana is left out" in line]
    assert len(said) == 1, deployment.first.output[-3000:]
    assert "can't be reached" in said[0]


def test_nothing_is_left_of_what_could_not_be_installed(
    absent: None, monitoring: Host, own: GrafanaSettings
) -> None:
    paths = (role.KEYRING, role.SOURCES, role.PREFERENCES, role.DROP_IN, role.INI, role.SITE, role.DASHBOARDS)
    assert [path for path in (*paths, role.PASSWORD) if monitoring.file(path).exists] == []
    for port in (own.port, own.https_port):
        assert monitoring.check_output("ss -Htln sport = :%s", str(port)) == ""

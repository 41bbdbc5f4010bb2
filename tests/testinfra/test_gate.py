"""Role gate: pages and metrics are for who addresses this host by its name; nothing else comes through."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from bitrix_cdn.engine.footprint import Place, Port
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.inventory import GROUPS
from roles.footprints import ports
from roles.topology import BEHIND
from tests.kit.inventory import Inventory, listening

# What each of several requests gets: its status, or why there was none. As another account, if one is named.
_ASK = """
import http.client, json, os, pwd, sys
account, asked = json.loads(sys.argv[1])
if account:
    os.setgid(pwd.getpwnam(account).pw_gid)
    os.setuid(pwd.getpwnam(account).pw_uid)
answers = []
for address, port, method, path, headers, body in asked:
    connection = http.client.HTTPConnection(address, port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        if body:
            headers["Content-Length"] = str(len(body))
        for header in headers.items():
            connection.putheader(*header)
        connection.endheaders(body.encode())
        answers.append(connection.getresponse().status)
    except OSError as error:
        answers.append(type(error).__name__)
    connection.close()
print(json.dumps(answers))
"""

Question = tuple[str, int, str, str, dict[str, str], str]


def ask(host: Host, *asked: Question, account: str = "") -> list[int | str]:
    answers: list[int | str] = json.loads(
        host.check_output("python3 -c %s %s", _ASK, json.dumps([account, asked]))
    )
    return answers


def get(address: str, port: int, path: str, name: str) -> Question:
    return address, port, "GET", path, {"Host": name}, ""


def of_host(inventory: Inventory, group: str, settings: Settings) -> list[Port]:
    """The ports of a group's first host."""
    name = inventory.names(group)[0]
    groups = frozenset(one for one in GROUPS if name in inventory.names(one))
    return list(ports(Place(settings, groups)))


@pytest.fixture(params=["cdn", "monitoring"])
def group(request: pytest.FixtureRequest, inventory: Inventory) -> str:
    group = str(request.param)
    if group == "monitoring" and inventory.names("monitoring")[:1] == inventory.names("cdn")[:1]:
        pytest.skip("the CDN host is the monitoring host")
    return group


def _front(host: Host, port: Port) -> str:
    return min(listening(host, port.number) - {BEHIND}).strip("[]")


def test_another_name_is_refused_on_every_port_and_its_own_is_answered(
    group: str, inventory: Inventory, settings: Settings
) -> None:
    host = inventory.host(group)
    shown = [port for port in of_host(inventory, group, settings) if port.gate or port.page]
    # Grafana may be left out.
    shown = [port for port in shown if listening(host, port.number)]
    assert len(shown) >= (10 if group == "cdn" else 2)
    own, others = [], []
    for port in shown:
        at, path = _front(host, port), (port.gate or ("/",))[0]
        # The status page checks names itself: whose name the host's is, a setting says.
        named = [inventory.data(group)["address"]] if port.gate else []
        names = ["localhost", f"127.0.0.1:{port.number}", *named]
        own += [get(at, port.number, path, name) for name in names]
        names = [
            "evil.example",
            f"evil.example:{port.number}",
            "localhost.evil.example",
            "127.0.0.1.evil.test",
        ]
        others += [get(at, port.number, path, name) for name in names]
        others.append((at, port.number, "GET", path, {}, ""))
        others.append((at, port.number, "POST", path, {"Host": "evil.example"}, "{}"))
    refused = dict(zip(map(str, others), ask(host, *others), strict=True))
    assert {question: answer for question, answer in refused.items() if answer not in (400, 403, 421)} == {}
    answered = dict(zip(map(str, own), ask(host, *own), strict=True))
    assert len(own) > 20
    # A page may lead on to another one.
    assert {question: answer for question, answer in answered.items() if answer not in (200, 302, 307)} == {}


def test_no_other_site_sets_a_silence(monitoring: Host, settings: Settings) -> None:
    port = settings.monitoring.alertmanager.port
    silence = json.dumps(
        {
            "matchers": [{"name": "alertname", "value": "testinfra", "isRegex": False, "isEqual": True}],
            "startsAt": "2020-01-01T00:00:00Z",
            "endsAt": "2020-01-01T00:00:01Z",
            "createdBy": "testinfra",
            "comment": "over before it began",
        }
    )

    def sent(**headers: str) -> Question:
        said = {"Content-Type": "application/json", **headers}
        return "127.0.0.1", port, "POST", "/api/v2/silences", said, silence

    here = f"127.0.0.1:{port}"
    assert ask(
        monitoring,
        sent(Host="evil.example"),
        sent(Host=here, Origin="https://evil.example"),
        sent(Host=here, Origin="null"),
        # It gets as far as Alertmanager, which wants an end in the future.
        sent(Host=here, Origin=f"http://{here}"),
    ) == [421, 403, 403, 400]


def test_only_what_is_measured_comes_through(cdn: Host, settings: Settings) -> None:
    own = settings.monitoring.exporters
    asked = [
        (own.redis_cache_port, "/scrape?target=redis://127.0.0.1:22"),
        (own.redis_queue_port, "/scrape?target=unix:///run/redis-queue/redis.sock"),
        (own.node_port, "/debug/pprof/"),
        (own.edge_port, "/quitquitquit"),
        (own.edge_port, "/progz"),
        (own.varnish_port, "/"),
    ]
    at = listening(cdn, own.redis_cache_port) - {BEHIND}
    questions = [get(min(at), port, path, "localhost") for port, path in asked]
    assert ask(cdn, *questions) == [404] * len(asked)
    assert ask(cdn, (min(at), own.edge_port, "POST", "/metrics", {"Host": "localhost"}, "x")) == [403]


@pytest.mark.parametrize("account", ["nobody", "www-data", "mtail", "varnish", "redis"])
def test_accounts_that_need_none_of_it_reach_none_of_it(
    account: str, inventory: Inventory, cdn: Host, settings: Settings
) -> None:
    shown = [port for port in of_host(inventory, "cdn", settings) if port.gate or port.page]
    shown = [port for port in shown if port.number != settings.monitoring.grafana.port]
    asked = [get(_front(cdn, port), port.number, "/metrics", "localhost") for port in shown]
    asked += [get(BEHIND, one[1], "/metrics", "localhost") for one in asked]
    asked = [one for one in asked if one[:2] != (BEHIND, settings.converter.api.port)]
    assert set(ask(cdn, *asked, account=account)) == {"ConnectionRefusedError"}


def test_the_monitorings_account_gets_around_no_gate(cdn: Host, settings: Settings) -> None:
    own = settings.monitoring.exporters
    front = min(listening(cdn, own.edge_port) - {BEHIND})
    asked = [get(address, own.edge_port, "/metrics", "localhost") for address in (front, BEHIND)]
    assert ask(cdn, *asked, account="prometheus") == [200, "ConnectionRefusedError"]

"""Role prometheus: it asks every part, keeps the answers as it should, and answers its own host alone."""

import json
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.inventory import GROUPS
from roles.topology import BEHIND, LOOPBACK
from tests.kit.inventory import Inventory, connects, fetched, listening
from tests.kit.support import Figure, wait_until


class Api:
    """Prometheus, asked on its own host."""

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str) -> Any:
        answer = json.loads(fetched(self._host, f"{self._url}/{path}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        found = self.get(f"query?query={quote(query)}")["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]


@pytest.fixture(scope="module")
def prometheus(monitoring: Host, settings: Settings) -> Api:
    return Api(monitoring, settings.monitoring.prometheus.port)


def test_it_asks_every_part_of_every_host_and_gets_answers(
    prometheus: Api, inventory: Inventory, settings: Settings
) -> None:
    def targets() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = prometheus.get("targets?state=active")["activeTargets"]
        return found

    up = wait_until(
        "all targets up",
        targets,
        lambda found: found and all(one["health"] == "up" for one in found),
        timeout=60,
        interval=1,
    )
    hosts = {name for group in GROUPS for name in inventory.names(group)}
    assert {one["labels"]["host"] for one in up} == hosts
    counted = Counter(one["labels"]["job"] for one in up)
    serving = len(inventory.names("cdn") + inventory.names("edge"))
    assert counted["node"] == len(hosts)
    for job in ("edge", "nginx", "varnish"):
        assert counted[job] == serving, job
    assert counted["converter"] == len(inventory.names("cdn"))
    assert counted["haproxy"] == len(inventory.names("balancer"))
    assert {one["labels"]["redis"] for one in up if one["labels"]["job"] == "redis"} == {"cache", "queue"}
    probes = {one["labels"]["probe"] for one in up if one["labels"]["job"] == "probe"}
    assert probes >= {"webp", "original"}
    assert ("tls" in probes) == settings.tls.enabled


def test_visitors_get_both_pictures(prometheus: Api) -> None:
    def probes() -> dict[str, float]:
        return {labels["probe"]: value for labels, value in prometheus.values("probe_success")}

    found = wait_until(
        "all probes", probes, lambda found: found and all(found.values()), timeout=60, interval=1
    )
    assert set(found) >= {"webp", "original"}


def test_a_certificates_end_is_known(prometheus: Api, inventory: Inventory, settings: Settings) -> None:
    if not settings.tls.enabled:
        pytest.skip("these hosts have no TLS")
    found = wait_until(
        "the end of each certificate",
        lambda: prometheus.values('probe_ssl_earliest_cert_expiry{probe="tls"} - time()'),
        lambda found: {labels["host"] for labels, _ in found} >= set(inventory.names("cdn")),
        timeout=60,
        interval=1,
    )
    for labels, left in found:
        assert labels["probe"] == "tls"
        assert left > 0


def test_what_a_file_says_of_another_host_stays_said_of_it(
    prometheus: Api, monitoring: Host, settings: Settings
) -> None:
    file = f"{settings.mounts.metrics}/testinfra.prom"
    monitoring.check_output("echo 'testinfra_differences{host=\"elsewhere\"} 3' > %s", file)
    try:
        [(labels, value)] = wait_until(
            "the file's metric", lambda: prometheus.values("testinfra_differences"), timeout=60, interval=1
        )
    finally:
        monitoring.check_output("rm %s", file)
    assert (labels["host"], value) == ("elsewhere", 3.0)


def test_it_keeps_samples_as_long_as_it_should(prometheus: Api, settings: Settings) -> None:
    wanted = settings.monitoring.prometheus
    flags = prometheus.get("status/flags")
    assert flags["storage.tsdb.retention.time"] in {
        f"{wanted.retention_days}d",
        f"{wanted.retention_days // 7}w{wanted.retention_days % 7}d",
    }
    # It says GB as GiB.
    unit = {"kb": "KiB", "mb": "MiB", "gb": "GiB"}[wanted.retention_size[-2:]]
    assert flags["storage.tsdb.retention.size"] == f"{wanted.retention_size[:-2]}{unit}"
    configuration = prometheus.get("status/config")["yaml"]
    assert f"scrape_interval: {wanted.interval_s}s" in configuration


def test_only_its_own_host_can_ask(
    monitoring: Host, inventory: Inventory, bitrix: Host, settings: Settings
) -> None:
    port = settings.monitoring.prometheus.port
    # The gate, and Prometheus behind it.
    assert listening(monitoring, port) == {LOOPBACK, BEHIND}
    assert not connects(bitrix, inventory.data("monitoring")["address"], port)


def test_a_configuration_that_it_refuses_is_refused(monitoring: Host) -> None:
    # The checker that the deploy asks.
    assert monitoring.run("promtool check config /etc/prometheus/prometheus.yml").rc == 0
    broken = monitoring.run(
        "sed 's/scrape_interval/scrape_intervall/' /etc/prometheus/prometheus.yml > /tmp/testinfra.yml; "
        "promtool check config /tmp/testinfra.yml; s=$?; rm /tmp/testinfra.yml; exit $s"
    )
    assert broken.rc != 0


def test_it_starts_at_boot_and_comes_back(monitoring: Host, settings: Settings) -> None:
    assert monitoring.service("prometheus.service").is_enabled
    before = monitoring.check_output("systemctl show -p MainPID --value prometheus")
    monitoring.check_output("kill -KILL %s", before)
    wait_until(
        "Prometheus again",
        lambda: (
            monitoring.run("ss -Hltn sport = :%s | grep -q .", str(settings.monitoring.prometheus.port)).rc
        ),
        (0).__eq__,
    )
    assert monitoring.check_output("systemctl show -p MainPID --value prometheus") != before


# One line a process: unit, KiB resident and KiB private, seconds of CPU within so many seconds.
_COST = """
units=$(systemctl list-units --plain --no-legend --state=running \
        'prometheus*.service' 'mtail*.service' 'grafana*.service' | cut -d ' ' -f 1)
spent() { for unit in $units; do systemctl show -p CPUUsageNSec --value $unit; done; }
before=$(spent)
sleep %s
after=$(spent)
for unit in $units; do
    pid=$(systemctl show -p MainPID --value $unit)
    echo $unit $(awk '/^(VmRSS|RssAnon):/ {print $2}' /proc/$pid/status)
done
echo $before
echo $after
"""


def test_what_it_costs_the_cdn_host(cdn: Host, figure: Figure) -> None:
    seconds = 10
    *lines, before, after = cdn.check_output(_COST % seconds).splitlines()
    processes = [line.split() for line in lines]
    resident, own = (sum(int(one[column]) for one in processes) / 1024 for column in (1, 2))
    load = (sum(map(int, after.split())) - sum(map(int, before.split()))) / 1e9 / seconds
    figure(
        f"monitoring on the CDN host: {len(processes)} processes, {resident:.0f} MiB resident "
        f"({own:.0f} MiB their own, the rest mapped programs), {load:.1%} of a core"
    )
    assert {one[0] for one in processes} >= {"prometheus-node-exporter.service", "mtail.service"}
    assert resident < 1024


def test_it_tells_alertmanager_of_the_watchdog(monitoring: Host, settings: Settings) -> None:
    # One that has just been started may send the first time before it knows to whom, which takes it 5 s, and
    # sends again with the first evaluation (each 15 s) after a minute: `--rules.alert.resend-delay`.
    port = settings.monitoring.alertmanager.port
    query = f"amtool --alertmanager.url=http://127.0.0.1:{port} -o json alert query alertname=Watchdog"
    wait = f"for i in $(seq 90); do {query} | grep -q Watchdog && break; sleep 1; done; {query}"
    alerts: list[dict[str, Any]] = json.loads(monitoring.check_output(wait))
    assert [alert["labels"]["alertname"] for alert in alerts] == ["Watchdog"]

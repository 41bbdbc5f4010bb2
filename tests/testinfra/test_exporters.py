"""Role exporters: each part tells how it does, from a sandbox, and the picture to ask for is renewed."""

import json
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.exporters import BUCKETS, MTAIL, PROBE, probe_picture
from roles.topology import BEHIND
from tests.kit.inventory import Inventory, fetched, listening
from tests.kit.support import wait_until

# Unit, setting of its port, and a metric that only comes when it reaches what it tells of.
ON_THE_CDN_HOST = [
    ("prometheus-node-exporter.service", "node_port", 'node_systemd_unit_state{name="nginx.service"'),
    ("mtail.service", "edge_port", "edge_requests_total{"),
    ("prometheus-nginx-exporter.service", "nginx_port", "nginx_up 1"),
    ("prometheus-varnish-exporter.service", "varnish_port", "varnish_up 1"),
    ("prometheus-redis-exporter@cache.service", "redis_cache_port", "redis_up 1"),
    ("prometheus-redis-exporter@queue.service", "redis_queue_port", "redis_up 1"),
]
UNITS = [unit for unit, _, _ in ON_THE_CDN_HOST] + [
    "prometheus-blackbox-exporter.service",
    "prometheus.service",
]


class Edge:
    """The CDN host as a visitor and as Prometheus see it."""

    def __init__(self, cdn: Host, metrics: str, address: str) -> None:
        self.cdn = cdn
        self.metrics = metrics
        # Whoever signed its certificate.
        self.visitor = httpx.Client(base_url=address, timeout=10, verify=False)

    def counted(self, **labels: str) -> int:
        """What mtail has counted of such requests."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        count = 0
        for line in fetched(self.cdn, self.metrics).splitlines():
            name, _, rest = line.partition("{")
            inner, _, value = rest.rpartition("} ")
            if name == "edge_requests_total" and wanted <= set(inner.split(",")):
                count += int(value)
        return count


@pytest.fixture
def edge(inventory: Inventory, cdn: Host, settings: Settings) -> Iterator[Edge]:
    data = inventory.data("cdn")
    address = visible_at(settings, data.get("ssh_hostname", data["address"]))
    metrics = f"http://{_address(inventory)}:{settings.monitoring.exporters.edge_port}/metrics"
    made = Edge(cdn, metrics, address)
    yield made
    made.visitor.close()


def visible_at(settings: Settings, address: str) -> str:
    """What visitors' addresses begin with, without a redirect."""
    if settings.tls.enabled:
        return f"https://{address}:{settings.tls.port}"
    return f"http://{address}:{settings.nginx.http_port}"


def _address(inventory: Inventory) -> str:
    """Where the CDN host's exporters listen."""
    alone = inventory.names("monitoring") == inventory.names("cdn")
    return "127.0.0.1" if alone else inventory.data("cdn")["address"]


@pytest.mark.parametrize(("unit", "port", "metric"), ON_THE_CDN_HOST)
def test_each_part_of_the_cdn_host_tells_how_it_does(
    unit: str, port: str, metric: str, inventory: Inventory, cdn: Host, settings: Settings
) -> None:
    assert cdn.service(unit).is_enabled
    number = getattr(settings.monitoring.exporters, port)
    # The gate, and the exporter behind it.
    assert listening(cdn, number) == {_address(inventory), BEHIND}
    if unit == "mtail.service":
        # Nothing is counted before somebody asked for something.
        fetched(cdn, f"http://127.0.0.1:{settings.nginx.status_port}/status")
    wait_until(
        f"{metric} on port {number}",
        lambda: fetched(cdn, f"http://{_address(inventory)}:{number}/metrics"),
        lambda text: metric in text,
    )


def test_the_distributions_exporter_of_one_redis_is_off(cdn: Host) -> None:
    assert not cdn.service("prometheus-redis-exporter.service").is_running
    assert not cdn.service("prometheus-redis-exporter.service").is_enabled


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_each_host_tells_of_itself_and_its_mount(
    group: str, inventory: Inventory, bitrix: Host, cdn: Host, settings: Settings
) -> None:
    host, mount = (bitrix, "resize-cache") if group == "bitrix" else (cdn, "originals")
    port = settings.monitoring.exporters.node_port
    [address] = listening(host, port) - {BEHIND}
    assert address in {"127.0.0.1", inventory.data(group)["address"]}
    told = fetched(host, f"http://{address}:{port}/metrics")
    assert f'mount_guard_up{{mount="{mount}"}} 1' in told
    assert 'node_filesystem_avail_bytes{device="' in told
    # Asking a mount how full it is could hang with it.
    assert "fuse.sshfs" not in told
    assert 'node_scrape_collector_success{collector="systemd"} 1' in told
    assert 'node_scrape_collector_success{collector="textfile"} 1' in told


@pytest.mark.parametrize("unit", UNITS)
def test_it_can_write_nothing_of_the_hosts(
    unit: str, cdn: Host, monitoring: Host, settings: Settings
) -> None:
    host = monitoring if unit in {"prometheus-blackbox-exporter.service", "prometheus.service"} else cdn
    pid = host.check_output("systemctl show -p MainPID --value %s", unit)
    for place in ("/etc", "/usr", "/var/lib", "/var/log", settings.mounts.metrics):
        # Root, in the exporter's own view of the file system.
        tried = host.run("nsenter -t %s -m -- touch %s/testinfra", pid, place)
        assert "Read-only file system" in tried.stderr, place
    assert host.check_output(
        "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/%s/status | tr -d '\\t'", pid
    ) == ("CapEff:0000000000000000\nNoNewPrivs:1\nSeccomp:2")
    limit = host.check_output("systemctl show -p MemoryMax --value %s", unit)
    assert int(limit) <= 1 << 30


def test_a_visitors_request_is_counted(edge: Edge) -> None:
    # No other client sends such requests, which may still be on their way through the log.
    labels = {"kind": "original", "status": "405", "variant": "none"}
    before = edge.counted(**labels)
    for _ in range(3):
        assert edge.visitor.delete(f"/upload/testinfra-{uuid4().hex}.jpg").status_code == 405
    # nginx writes its log every 5 seconds.
    wait_until("the requests counted", lambda: edge.counted(**labels) - before, (3).__eq__)


def test_requests_are_counted_across_a_rotation(edge: Edge) -> None:
    labels = {"kind": "resized", "status": "404"}
    before = edge.counted(**labels)
    path = f"/upload/resize_cache/testinfra-{uuid4().hex}.jpg"
    for _ in range(3):
        edge.visitor.get(path)
        wait_until(
            "the request in the log",
            lambda: edge.cdn.run("grep -qF %s /var/log/nginx/access.log", path).rc,
            (0).__eq__,
        )
        inode = edge.cdn.check_output("stat -c %i /var/log/nginx/access.log")
        edge.cdn.check_output("logrotate --force --state /tmp/testinfra-logrotate /etc/logrotate.d/nginx")
        assert edge.cdn.check_output("stat -c %i /var/log/nginx/access.log") != inode
    edge.cdn.check_output("rm -f /tmp/testinfra-logrotate")
    edge.visitor.get(path)
    wait_until("the requests counted", lambda: edge.counted(**labels) - before, (4).__eq__)


LINE: dict[str, str | int] = {
    "time": "2026-01-01T00:00:00+00:00",
    "client": "192.0.2.1",
    "protocol": "HTTP/2.0",
    "tls": "TLSv1.3",
    "method": "GET",
    "host": "cdn.example.com",
    "uri": "/upload/resize_cache/iblock/1a2/450_450_1/photo.jpg",
    "status": 200,
    "bytes": 1000,
    "seconds": "0.004",
    "variant": "webp",
    "cache": "",
    "upstream_seconds": "",
    "accept": "image/webp",
    "referer": "",
    "agent": "Firefox",
}


@pytest.mark.parametrize(
    ("fields", "kind", "variant", "cache"),
    [
        ({}, "resized", "webp", "none"),
        ({"uri": "/upload/iblock/1a2/photo.jpg?1", "cache": "hit"}, "original", "webp", "hit"),
        (
            {"uri": "/upload/iblock/a.jpg", "variant": "pending", "cache": "miss"},
            "original",
            "pending",
            "miss",
        ),
        ({"uri": "//Upload/a.jpg", "variant": "avif", "cache": "stale"}, "original", "avif", "stale"),
        ({"status": 304, "variant": "original"}, "resized", "original", "none"),
        ({"status": 404, "variant": "original"}, "resized", "none", "none"),
        ({"uri": "/favicon.ico", "status": 404, "variant": "original"}, "other", "none", "none"),
        (
            {"uri": "", "status": 400, "method": "", "protocol": "", "host": "", "variant": ""},
            "other",
            "none",
            "none",
        ),
        ({"variant": "", "cache": "hit, miss"}, None, "", ""),
        ({"agent": '","uri":"/","status":500,"bytes":1,"seconds":9.000,"'}, "resized", "webp", "none"),
        ({"uri": '/upload/"\\.jpg', "status": 404}, "original", "none", "none"),
    ],
)
def test_a_line_of_the_log_is_counted_as_what_it_is(
    cdn: Host, fields: dict[str, str | int], kind: str | None, variant: str, cache: str
) -> None:
    found = _counted(cdn, {**LINE, **fields}, "edge_requests_total")
    status = {**LINE, **fields}["status"]
    expected = f'edge_requests_total{{cache="{cache}",kind="{kind}",status="{status}",variant="{variant}"}} 1'
    assert found == ([expected] if kind else [])


@pytest.mark.parametrize("seconds", ["0.000", "0.001", "0.030", "12.000"])
def test_every_duration_is_in_one_bucket_and_all_above_it(cdn: Host, seconds: str) -> None:
    found = _counted(cdn, {**LINE, "seconds": seconds}, "edge_request_seconds_bucket")
    expected = [*(int(float(seconds) <= bound) for bound in BUCKETS), 1]
    assert [int(line.rpartition(" ")[2]) for line in found] == expected
    assert [line.partition('le="')[2].partition('"')[0] for line in found] == [*map(str, BUCKETS), "+Inf"]


def _counted(cdn: Host, fields: dict[str, str | int], metric: str) -> list[str]:
    """What mtail makes of one line, as nginx writes it."""
    line = json.dumps(fields, separators=(",", ":")).replace(
        f'"{fields["seconds"]}"', str(fields["seconds"]), 1
    )
    output = cdn.check_output(
        "d=$(mktemp -d) && mkdir $d/progs && cp %s $d/progs && printf '%%s\\n' %s > $d/log && "
        "mtail --one_shot --one_shot_format prometheus --emit_prog_label=false --address 127.0.0.1 --port 0 "
        "--progs $d/progs --logs $d/log 2>/dev/null; rm -r $d",
        MTAIL,
        line,
    )
    return [line for line in output.splitlines() if line.startswith(metric + "{")]


class Visit:
    """The probes, asked for at once."""

    def __init__(self, inventory: Inventory, monitoring: Host, settings: Settings) -> None:
        self.monitoring = monitoring
        self.port = settings.monitoring.exporters.blackbox_port
        path = probe_picture(settings).removeprefix(settings.cdn.root)
        self.url = visible_at(settings, inventory.data("cdn")["address"]) + path

    def succeeds(self, module: str) -> bool:
        query = urlencode({"module": module, "target": self.url})
        return "\nprobe_success 1" in fetched(self.monitoring, f"http://127.0.0.1:{self.port}/probe?{query}")


@pytest.fixture
def visit(inventory: Inventory, monitoring: Host, settings: Settings) -> Visit:
    return Visit(inventory, monitoring, settings)


def test_the_picture_comes_as_both(visit: Visit) -> None:
    for module in ("picture_webp", "picture_original", "picture"):
        wait_until(module, partial(visit.succeeds, module))


def test_a_stopped_converter_shows_in_the_probe(cdn: Host, visit: Visit) -> None:
    wait_until("the picture as WebP", lambda: visit.succeeds("picture_webp"))
    cdn.check_output("systemctl stop webp-converter")
    try:
        cdn.check_output("systemctl start %s.service", PROBE)
        wait_until("no WebP any more", lambda: not visit.succeeds("picture_webp"))
        assert visit.succeeds("picture_original")
    finally:
        cdn.check_output("systemctl start webp-converter")
    wait_until("the picture as WebP", lambda: visit.succeeds("picture_webp"))


def test_a_removed_picture_comes_back(cdn: Host, settings: Settings, visit: Visit) -> None:
    picture = probe_picture(settings)
    # With -f: the converter removes the variant at the same time.
    cdn.check_output("rm -rf %s", picture.rpartition("/")[0])
    assert cdn.service(f"{PROBE}.timer").is_enabled
    next_run = cdn.check_output("systemctl show -p NextElapseUSecMonotonic --value %s.timer", PROBE)
    assert next_run not in {"", "infinity"}
    cdn.check_output("systemctl start %s.service", PROBE)
    wait_until("the picture as WebP", lambda: visit.succeeds("picture_webp"))
    assert (cdn.file(picture).user, cdn.file(picture).mode) == ("www-data", 0o644)

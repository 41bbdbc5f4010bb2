"""What is read out of what hosts say of themselves."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bitrix_cdn.settings import Settings
from bitrix_cdn.status.facts import HostStatus, get, read, script
from bitrix_cdn.status.verify import of_host

NOW = datetime(2026, 11, 28, tzinfo=UTC)
UNITS = "Id={}\nActiveState=active\nResult=success"
GOOD: dict[str, Any] = {
    "lock": "",
    "units": f"{UNITS.format('nginx.service')}\n\n{UNITS.format('varnish.service')}",
    "failed": "",
    "disk": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 10 3 7 34% /\n",
    "backup": {"backup": {"run": 1795824000, "error": "", "seconds": 3}},
    "mounts": [{"mount_point": "/mnt/x", "state": "mounted", "reason": "", "spool_files": 0}],
    "converter": {"parts": {"queue": {"status": "ok", "reason": ""}}, "queue": {"high": 2, "dead": 1}},
    "release": "1c0ae4",
    "certificate": "notAfter=Dec 28 00:00:00 2026 GMT",
    "alerts": [{"labels": {"alertname": "Watchdog"}, "annotations": {}}],
    "hits": {"data": {"result": [{"value": [0, "0.875"]}]}},
}
GROUPS = ("cdn", "monitoring")


def said(**differs: Any) -> HostStatus:
    answers = {**GOOD, **differs}
    printed = "".join(
        f"\n== {name}\n{one if isinstance(one, str) else json.dumps(one)}" for name, one in answers.items()
    )
    return read("cdn", GROUPS, printed, NOW)


def test_a_host_in_order_has_no_troubles() -> None:
    found = said()
    assert found.troubles == []
    assert (found.units, found.queue, found.release) == (2, {"high": 2, "dead": 1}, "1c0ae4")
    assert (found.hit_ratio, found.disk, found.certificate_days) == (0.875, {"/": 34}, 30)
    assert (found.alerts, found.backup) == ((), "2026-11-28 00:00 UTC")
    assert [one.ok for one in of_host(found)] == [True]


ALERT = {"labels": {"alertname": "DiskFull"}, "annotations": {"summary": "The disk is full"}}
AWAY = {"mount_point": "/mnt/x", "state": "away", "reason": "no route", "spool_files": 3}


@pytest.mark.parametrize(
    ("differs", "trouble"),
    [
        ({"units": GOOD["units"].replace("active", "failed", 1)}, "nginx.service does not run"),
        ({"failed": "cron.service loaded failed failed Cron"}, "cron.service does not run"),
        ({"mounts": [AWAY]}, "/mnt/x is away: no route"),
        ({"converter": {"parts": {"pool": {"status": "down", "reason": "x"}}}}, "converter: pool: x"),
        ({"converter": ""}, "converter: webp-converter: says nothing"),
        ({"disk": GOOD["disk"].replace("34%", "91%")}, "/ is 91 % full"),
        ({"alerts": [*GOOD["alerts"], ALERT]}, "alert: DiskFull: The disk is full"),
        ({"alerts": "502 Bad Gateway"}, "alert: Alertmanager does not answer"),
        ({"backup": {"backup": {"run": 1, "error": "no space"}}}, "backup: no space"),
        ({"certificate": "notAfter=Dec  1 00:00:00 2026 GMT"}, "its certificate ends in 3 days"),
    ],
)
def test_each_trouble_is_told_with_what_to_do(differs: dict[str, Any], trouble: str) -> None:
    found = said(**differs)
    assert found.troubles == [trouble]
    [check] = of_host(found)
    assert (check.ok, check.found) == (False, trouble)
    assert "docs/runbooks/" in check.remedy or "journalctl" in check.remedy


@pytest.mark.parametrize("name", [name for name in GOOD if name not in {"converter", "alerts"}])
def test_what_is_not_said_is_not_made_up(name: str) -> None:
    for answer in ("", "sh: 1: not found", "{"):
        assert said(**{name: answer}).troubles == []


def test_a_host_that_can_not_be_asked_says_why() -> None:
    found = HostStatus("cdn", GROUPS, failed="no SSH server answered there")
    assert found.troubles == ["no SSH server answered there"]
    assert [one.remedy for one in of_host(found)] == ["bitrix-cdn check, then ssh to it by hand"]


@pytest.mark.parametrize("groups", [("bitrix",), ("cdn", "monitoring"), ("edge",), ("balancer",), ()])
def test_the_script_is_one_that_a_shell_reads_and_survives_what_is_missing(groups: tuple[str, ...]) -> None:
    settings = Settings.model_validate({"tls": {"mode": "self-signed"}})
    result = subprocess.run(
        ["sh", "-c", script(settings, groups)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.stderr == ""
    found = read("here", groups, result.stdout, NOW)
    assert "/" in found.disk


def test_pages_are_asked_by_a_name_that_the_gate_knows() -> None:
    asked = script(Settings(), ["monitoring"])
    assert asked.count("HTTP/1.0") == asked.count("\\r\\nHost: localhost\\r\\n") == 2


def test_commands_are_found_where_sudo_does_not_look() -> None:
    # RPM distributions have no /usr/local in sudo's path.
    asked = script(Settings(), ["bitrix"])
    assert "/usr/local/bin/mount-guard status --json" in asked
    assert "/usr/local/bin/bitrix-cdn-backup status" in asked


def test_an_address_with_percent_signs_is_asked_for_as_it_is() -> None:
    """`printf` would take them for its own: `avg%28x%3Ay%29` was asked for as spaces and nonsense."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        path = "/api/v1/query?query=avg%28cdn%3Acache_hit%3Aratio_rate1h%29%5C"
        done = subprocess.run(
            get(server.server_port, path), shell=True, capture_output=True, text=True, check=True
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.stdout == path


class _Echo(BaseHTTPRequestHandler):
    """Answers with the path that it was asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass

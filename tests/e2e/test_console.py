"""The console in a real browser, over real hosts: what an administrator sees, and does about an alert."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from bitrix_cdn.settings import Settings
from converter_app.tests.chromium import Browser, browser
from dev.lab import state
from tests.kit.deployment import ROOT, Deployment
from tests.kit.hosts import Cdn
from tests.kit.support import Figure, wait_until

PASSWORD = "correct horse battery"
SENDS = "curl -s -H 'Content-Type: application/json' -d @- http://127.0.0.1:{port}/api/v2/alerts"


@pytest.fixture
def link(deployment: Deployment, lab: state.Lab, tmp_path: Path) -> Iterator[str]:
    """A console that runs; the link for its first admin."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bitrix_cdn", "console", "--port", str(port), "-i", deployment.inventory]
    environment = {
        **os.environ,
        "LAB_NAME": lab.name,
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        try:
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130 or process.returncode == 0


def enters(admin: Browser, link: str) -> str:
    """Sets the first admin's password; returns the console's address."""
    wait_until("the console answers", lambda: answers(link))
    admin.open(link)
    for field in ("#password", "#again"):
        admin.click(field)
        admin.type(PASSWORD)
    admin.click("main button")
    admin.wait_for("document.querySelector('header.bar')")
    return link.partition("/invitation")[0]


def answers(address: str) -> bool:
    try:
        with urlopen(Request(address), timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def alert(cdn: Cdn, settings: Settings) -> Iterator[str]:
    """The name of an alert that rings, although nothing is wrong."""
    labels = {"alertname": "MountDown", "severity": "warning", "host": "bitrix", "test": secrets.token_hex(8)}
    told = {"summary": "<b>rung by a test</b>", "runbook_url": "https://x/docs/runbooks/mounts.md#mountdown"}
    sends = SENDS.format(port=settings.monitoring.alertmanager.port)

    def send(**more: str) -> None:
        body = json.dumps([{"labels": labels, "annotations": told, **more}])
        cdn.remote.run("sh", "-c", f"echo '{body}' | {sends}")

    send()
    yield labels["alertname"]
    send(endsAt=f"{datetime.now(UTC) - timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}")


@pytest.mark.long
def test_an_admin_sees_the_hosts_and_silences_an_alert_beside_its_runbook(
    link: str, alert: str, figure: Figure
) -> None:
    with browser() as admin:
        admin.show(1400)
        admin.prefer("ru")
        base = enters(admin, link)
        # The page looks again by itself.
        admin.wait_for("document.querySelector('#host-cdn') && document.querySelector('#host-bitrix')")
        admin.wait_for(f"document.querySelector('#verdict').textContent.includes('{alert}')")
        assert admin.value("document.querySelector('#verdict b b')") is None
        started = time.monotonic()
        admin.open(f"{base}/?window=1h")
        figure(f"console: the overview in a browser after {1000 * (time.monotonic() - started):.0f} ms")
        admin.open(f"{base}/alerts")
        admin.click("#firing a")
        admin.wait_for("document.querySelector('.runbook')?.textContent.includes('Как проверить')")
        admin.click("#reason")
        admin.type("the test")
        admin.click("form[action$=silence] button")
        admin.wait_for("document.querySelector('#silences')?.textContent.includes('admin: the test')")
        admin.click("#silences button")
        admin.wait_for("!document.querySelector('#silences')")
        admin.open(f"{base}/audit")
        log = admin.value("document.querySelector('table').textContent")
        assert "alert.silence" in log
        assert "alert.unsilence" in log
        assert admin.complaints == []

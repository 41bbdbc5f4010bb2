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
CONF = "/etc/redis/redis-queue.conf"
MISSING = "/upload/iblock/no-such-picture.jpg"
SENDS = "curl -s -H 'Content-Type: application/json' -d @- http://127.0.0.1:{port}/api/v2/alerts"


class Console:
    """A console on this machine, which can be started again."""

    def __init__(self, inventory: str, lab: str, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "bitrix_cdn", "console", "--port", str(port), "-i", inventory]
        self._environment = {
            **os.environ,
            "LAB_NAME": lab,
            "XDG_STATE_HOME": str(home),
            "PYTHONUNBUFFERED": "1",
        }
        self.link = self.start()
        """For its first admin."""

    def start(self) -> str:
        """Starts it; returns the address that it prints."""
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found
        wait_until("the console answers", lambda: answers(found[0]))
        return found[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)
        assert self.process.returncode in (0, 130)


@pytest.fixture
def console(deployment: Deployment, lab: state.Lab, tmp_path: Path) -> Iterator[Console]:
    found = Console(deployment.inventory, lab.name, tmp_path)
    try:
        yield found
    finally:
        found.end()


def enters(admin: Browser, link: str) -> None:
    """Sets the first admin's password."""
    admin.open(link)
    for field in ("#password", "#again"):
        admin.click(field)
        admin.type(PASSWORD)
    admin.click("main button")
    admin.wait_for("document.querySelector('header.bar')")


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
    console: Console, alert: str, figure: Figure
) -> None:
    with browser() as admin:
        admin.show(1400)
        admin.prefer("ru")
        base = console.base
        enters(admin, console.link)
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


@pytest.fixture
def edited(cdn: Cdn) -> Iterator[Cdn]:
    """The CDN host, with a setting that somebody changed by hand."""
    kept = cdn.remote.run("cat", CONF)
    cdn.remote.run("sed", "-i", "s/^maxmemory .*/maxmemory 99mb/", CONF)
    yield cdn
    cdn.remote.run("sh", "-c", f"cat > {CONF}", input=kept.encode())


@pytest.mark.long
def test_a_plan_is_shown_approved_and_applied_although_the_console_is_killed(
    console: Console, edited: Cdn
) -> None:
    with browser() as admin:

        def ends(job: int, state: str) -> None:
            """Waits for the end of a job, whose page says so by itself."""
            selector = (
                f"location.pathname === '/jobs/{job}' && document.querySelector('#state .tag')?.textContent"
            )
            wait_until(
                f"job {job} ends", lambda: admin.value(selector), lambda said: said == state, timeout=240
            )

        admin.show(1400)
        enters(admin, console.link)
        admin.open(f"{console.base}/pictures")
        admin.click("#q")
        admin.type(MISSING)
        admin.click("main button")
        admin.wait_for(f"document.querySelector('#told h2')?.textContent.includes('{MISSING}')")
        admin.wait_for("document.querySelectorAll('#visitors tbody tr').length > 3")
        admin.open(f"{console.base}/jobs")
        admin.click("#start button[value=plan]")
        ends(1, "done")
        assert "-maxmemory 99mb" in admin.value("document.querySelector('#host-cdn').textContent")
        admin.click("#apply")
        admin.wait_for("document.querySelector('#approve')")
        assert "maxmemory 99mb" in edited.remote.run("cat", CONF)
        admin.click("#approve")
        wait_until(
            "the deploy", lambda: admin.value("Boolean(document.querySelector('progress'))"), timeout=240
        )
        assert admin.complaints == []
        console.kill()
        console.start()
        admin.open(f"{console.base}/jobs/2")
        ends(2, "done")
        assert "Redis | " in admin.value("document.querySelector('.lines').textContent")
        assert "maxmemory 99mb" not in edited.remote.run("cat", CONF)
        # The same plan is of hosts that are no more like that.
        admin.open(f"{console.base}/jobs/1")
        admin.click("#apply")
        admin.wait_for("document.querySelector('#approve')")
        admin.click("#approve")
        ends(3, "refused")
        assert "something else than was planned" in admin.value("document.querySelector('.why').textContent")
        admin.open(f"{console.base}/audit?q=job.")
        log = admin.value("[...document.querySelectorAll('tbody b')].map(one => one.textContent)")
        assert log[:4] == ["job.apply", "job.begin", "job.approve", "job.ask"]
        assert log.count("job.apply") == 2

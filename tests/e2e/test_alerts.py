"""Each alert is made to ring by a real fault, arrives at a receiver here, and ends with its repair.

`make test` makes some of the faults at once; `make alerts` makes each of them alone, more than an hour a
suite. For alerts that look back for long, Prometheus gets the same rules with their time compressed
(tests/kit/compression.py); what breaks is as real, and the factor is printed. The table of faults is in
alarms.py, which also says why some alerts are missing. All of them have a case in tests/prometheus.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bitrix_cdn.settings import Settings
from dev.lab import state
from roles.alertmanager import CONFIG as ALERTMANAGER_CONFIG
from tests.e2e.alarms import FAULTS, FIRES, Fault, Place, prometheus, replaced, told_otherwise
from tests.kit.alerting import rules
from tests.kit.compression import compressed
from tests.kit.deployment import pyinfra
from tests.kit.hosts import Cdn, Shop
from tests.kit.mounts import mounted_since, spooled
from tests.kit.receiver import Notice, Receiver, receiving
from tests.kit.support import Figure, Remote, wait_until

ENDS = 300.0
"""The same for its end."""

INTERVAL_S = 5
"""Seconds between two looks of Prometheus while time is compressed: the least that the settings take."""


@pytest.fixture(scope="module")
def receiver(lab: state.Lab) -> Iterator[Receiver]:
    """What the lab's Alertmanager tells for as long as these tests run."""
    machine = lab.host("cdn").address.rpartition(".")[0] + ".1"
    with receiving(machine, 9099) as receiver:
        told = pyinfra("-y", lab=lab.name, receiver=receiver.url(machine))
        assert told.status == 0, told.output
        try:
            yield receiver
        finally:
            untold = pyinfra("-y", lab=lab.name)
    assert untold.status == 0, untold.output


@pytest.fixture
def place(shop: Shop, cdn: Cdn, bitrix: Remote, receiver: Receiver, settings: Settings) -> Iterator[Place]:
    """Each test ends with all as it was."""
    yield Place(shop, cdn, bitrix, receiver, settings)
    for remote, name in ((bitrix, "resize-cache"), (cdn.remote, "originals")):
        mounted_since(remote, name, 0, 60)
    wait_until("an empty spool", lambda: spooled(bitrix), lambda files: not files, timeout=60)
    wait_until("a healthy daemon", cdn.daemon_ready, timeout=60)


def test_faults_that_come_at_once_are_all_told_and_all_end(place: Place, figure: Figure) -> None:
    faults = [fault for fault in FAULTS if fault.at_once]
    assert len(faults) > 5
    assert all(fault.factor == 1 for fault in faults)
    told_and_ended(faults, place, figure)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_rings_and_its_repair_ends_that(fault: Fault, place: Place, figure: Figure) -> None:
    told_and_ended([fault], place, figure, fault.factor)


def told_and_ended(faults: Sequence[Fault], place: Place, figure: Figure, factor: int = 1) -> None:
    """Makes faults, waits for all of their alerts, repairs them, and waits for the alerts' ends."""
    told: list[tuple[Fault, str, dict[str, str], Notice]] = []
    with time_compressed(place, factor):
        started = time.time()
        with ExitStack() as broken:
            for fault in faults:
                broken.enter_context(fault.make(place))
            for fault in faults:
                for name, labels in fault.expected():
                    notice = place.receiver.wait_for(name, timeout=FIRES, since=started, **labels)
                    assert notice.annotations["runbook_url"].endswith(f"#{name.lower()}")
                    # What a template makes of a value or a label that it doesn't have.
                    text = " ".join(notice.annotations.values())
                    assert not re.search(r"NaN|\bInf\b|<no value>|<error|%!", text), text
                    told.append((fault, name, labels, notice))
            # The end of what is repaired first may arrive before all is.
            repairing = time.time()
        repaired = time.time()
        for fault, name, labels, notice in told:
            over = place.receiver.wait_for(name, "resolved", timeout=ENDS, since=repairing, **labels)
            figure(
                f"{name} ({notice.labels['severity']}): told {notice.arrived - started:.0f} s after "
                f"{fault.name}, its end {max(0, over.arrived - repaired):.0f} s after the repair"
                + (f"; time of the rules divided by {factor}" if factor != 1 else "")
            )


@contextmanager
def time_compressed(place: Place, factor: int) -> Iterator[None]:
    """Prometheus has the deployed rules with their time divided by `factor`, and looks every `INTERVAL_S`;
    Alertmanager doesn't wait for company."""
    if factor == 1:
        yield
        return
    own = place.settings.monitoring.prometheus.model_copy(update={"interval_s": INTERVAL_S})
    monitoring = place.settings.monitoring.model_copy(update={"prometheus": own})
    files = rules(place.settings.model_copy(update={"monitoring": monitoring}))
    with (
        prometheus(every_interval)(place),
        told_otherwise(place, ALERTMANAGER_CONFIG, "prometheus-alertmanager", without_delay),
        ExitStack() as rewritten,
    ):
        try:
            for name, content in files.items():
                rewritten.enter_context(replaced(place.monitoring, f"/etc/prometheus/rules/{name}", content))
            groups = reloaded(place)
            for name in files:
                mine = [group for group in groups if group["file"].endswith(f"/{name}")]
                text = compressed(mine, factor, INTERVAL_S)
                place.monitoring.put(f"/etc/prometheus/rules/{name}", text.encode())
            assert reloaded(place) != groups
            yield
        finally:
            rewritten.close()
            place.monitoring.run("systemctl", "reload", "prometheus")


def every_interval(config: str) -> str:
    """Prometheus' configuration with other intervals."""
    new, found = re.subn(
        r"^(  (?:scrape_interval|scrape_timeout|evaluation_interval)): .*$",
        rf"\1: {INTERVAL_S}s",
        config,
        flags=re.MULTILINE,
    )
    assert found == 3, f"{found} intervals in Prometheus' configuration"
    return new


def without_delay(config: str) -> str:
    """Alertmanager's configuration with shorter waits for company."""
    new, found = re.subn(r"(group_(?:wait|interval)): (?:30s|1m)$", r"\1: 5s", config, flags=re.MULTILINE)
    assert found == 2, f"{found} waits in Alertmanager's configuration"
    return new


def reloaded(place: Place) -> list[dict[str, Any]]:
    """The groups of rules after Prometheus has read its configuration again."""
    url = f"http://127.0.0.1:{place.settings.monitoring.prometheus.port}"
    groups: list[dict[str, Any]] = place.monitoring.python(_RELOADED, url)
    return groups


_RELOADED = """
import json, subprocess, time, urllib.request
url, = arguments
def asked(path):
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return answer.read().decode()
def read_at():
    names = ("success_timestamp_seconds", "successful")
    names = [f"prometheus_config_last_reload_{name} " for name in names]
    lines = asked("/metrics").splitlines()
    return [float(line.split()[-1]) for name in names for line in lines if line.startswith(name)]
before = read_at()
deadline = time.monotonic() + 40
while time.monotonic() < deadline:
    subprocess.run(["systemctl", "reload", "prometheus"], check=True)
    time.sleep(1)
    at, succeeded = read_at()
    assert succeeded == 1, "Prometheus refuses its configuration"
    if at > before[0]:
        break
else:
    raise SystemExit("Prometheus has not read its configuration again")
keys = ("name", "type", "query", "duration", "labels", "annotations")
result = [
    {**{key: group[key] for key in ("name", "file", "interval")},
     "rules": [{key: rule[key] for key in keys if key in rule} for rule in group["rules"]]}
    for group in json.loads(asked("/api/v1/rules"))["data"]["groups"]
]
"""


@pytest.mark.both
def test_the_watchdog_arrives_again_and_again(receiver: Receiver) -> None:
    first = receiver.wait_for("Watchdog", timeout=FIRES)
    receiver.wait_for("Watchdog", since=first.arrived + 1, timeout=FIRES)

"""Role alertmanager: it runs for its own host alone, keeps its secrets, and knows whom to tell."""

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.alerting import AlertmanagerSettings
from roles.alertmanager import ACCOUNT, CONFIG, UNIT
from roles.topology import BEHIND
from tests.kit.inventory import Inventory


@pytest.fixture(scope="module")
def monitoring(inventory: Inventory) -> Host:
    return inventory.host("monitoring")


@pytest.fixture(scope="module")
def own(settings: Settings) -> AlertmanagerSettings:
    found: AlertmanagerSettings = settings.monitoring.alertmanager
    return found


def amtool(host: Host, own: AlertmanagerSettings, *arguments: str) -> str:
    command = f"amtool --alertmanager.url=http://127.0.0.1:{own.port} --timeout=5s"
    said: str = host.check_output(f"{command}{' %s' * len(arguments)}", *arguments)
    return said


@pytest.mark.smoke
def test_it_runs_under_an_account_of_its_own(monitoring: Host) -> None:
    service = monitoring.service(UNIT)
    assert service.is_enabled
    assert service.is_running
    pid = monitoring.check_output("systemctl show -p MainPID --value %s", UNIT)
    assert monitoring.check_output("ps -o user:32= -p %s", pid) == ACCOUNT


def test_it_listens_for_this_host_alone_and_has_no_others(
    monitoring: Host, own: AlertmanagerSettings
) -> None:
    pid = monitoring.check_output("systemctl show -p MainPID --value %s", UNIT)
    lines = monitoring.check_output("ss -Htulnp").splitlines()
    listening = [line.split()[4] for line in lines if f"pid={pid}," in line]
    assert listening == [f"{BEHIND}:{own.port}"]


@pytest.mark.parametrize("account", ["prometheus", "www-data", "nobody"])
def test_its_secrets_are_for_nobody_else(monitoring: Host, account: str) -> None:
    assert monitoring.run("runuser -u %s -- cat %s", account, CONFIG).rc != 0
    assert monitoring.run("runuser -u %s -- cat %s", ACCOUNT, CONFIG).rc == 0
    file = monitoring.file(CONFIG)
    assert (file.user, file.group, file.mode) == ("root", ACCOUNT, 0o640)


@pytest.mark.parametrize("path", ["/etc/prometheus", "/var/lib/prometheus", "/tmp", "/root"])
def test_it_writes_nowhere_but_into_its_own_directory(monitoring: Host, path: str) -> None:
    pid = monitoring.check_output("systemctl show -p MainPID --value %s", UNIT)
    script = 'nsenter -t "$1" -m -- runuser -u "$2" -- touch "$3/testinfra"'
    touch = "sh -c %s sh %s %s %s"
    # Its /tmp is private.
    expected = path == "/tmp"
    assert (monitoring.run(touch, script, pid, ACCOUNT, path).rc == 0) == expected
    assert not monitoring.file(f"{path}/testinfra").exists
    assert monitoring.run(touch, script, pid, ACCOUNT, "/var/lib/alertmanager").rc == 0
    monitoring.check_output("rm /var/lib/alertmanager/testinfra")


@pytest.mark.smoke
def test_its_configuration_is_what_it_checks_as_good(monitoring: Host) -> None:
    assert "SUCCESS" in monitoring.check_output("amtool check-config %s 2>&1", CONFIG)


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
def test_an_alert_goes_to_the_receiver_of_its_severity(
    monitoring: Host, own: AlertmanagerSettings, severity: str
) -> None:
    arguments = ("config", "routes", "test", f"severity={severity}", "alertname=X", "host=cdn")
    assert severity in amtool(monitoring, own, *arguments).split()


def test_its_rules_are_those_of_the_project(monitoring: Host) -> None:
    checked = monitoring.check_output("promtool check rules /etc/prometheus/rules/*.yml")
    assert "FAILED" not in checked
    assert "SUCCESS" in checked

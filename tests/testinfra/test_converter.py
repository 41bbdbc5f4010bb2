"""Role converter: installed without a package index, run in a sandbox, alive."""

import json

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.topology import BEHIND, LOOPBACK
from tests.kit.inventory import listening

UNIT = "webp-converter.service"


@pytest.mark.smoke
def test_it_runs_as_www_data(cdn: Host) -> None:
    pid = cdn.check_output("systemctl show -p MainPID --value %s", UNIT)
    assert cdn.check_output("ps -o user= -p %s", pid) == "www-data"
    assert cdn.service(UNIT).is_enabled


@pytest.mark.smoke
def test_it_calls_itself_healthy(cdn: Host, settings: Settings) -> None:
    health = json.loads(_fetch(cdn, f"http://127.0.0.1:{settings.converter.api.port}/health"))
    assert health["status"] == "ok"


@pytest.mark.smoke
def test_what_runs_is_the_current_release_and_the_last_of_the_history(cdn: Host, settings: Settings) -> None:
    status = json.loads(_fetch(cdn, f"http://127.0.0.1:{settings.converter.api.port}/api/status"))
    assert cdn.file("/opt/webp-converter/current/release").content_string.split() == [status["release"]]
    assert cdn.file("/opt/webp-converter/history").content_string.split()[-1] == status["release"]
    assert not cdn.file("/var/lib/bitrix-cdn/converter-trial").exists


@pytest.mark.smoke
def test_prometheus_can_ask_it(cdn: Host, settings: Settings) -> None:
    metrics = _fetch(cdn, f"http://127.0.0.1:{settings.converter.metrics.port}/metrics")
    assert "webp_" in metrics


def test_its_ports_are_for_this_host_alone(cdn: Host, settings: Settings) -> None:
    assert listening(cdn, settings.converter.api.port) == {LOOPBACK}
    # The gate, and the converter behind it.
    assert listening(cdn, settings.converter.metrics.port) == {LOOPBACK, BEHIND}


def test_its_token_is_for_root_and_itself(cdn: Host, settings: Settings) -> None:
    file = cdn.file(str(settings.converter.api.token_file))
    assert (file.user, file.group, file.mode) == ("www-data", "root", 0o400)
    assert len(file.content_string.strip()) >= 32


@pytest.mark.parametrize(("authorization", "status"), [("", 401), ("Bearer wrong", 401), ("TOKEN", 202)])
def test_it_takes_orders_from_whoever_bears_the_token(
    cdn: Host, settings: Settings, authorization: str, status: int
) -> None:
    if authorization == "TOKEN":
        authorization = f"Bearer {cdn.file(str(settings.converter.api.token_file)).content_string.strip()}"
    answered = cdn.check_output(
        "python3 -c 'import http.client, sys; "
        "api = http.client.HTTPConnection(sys.argv[1], timeout=5); "
        'api.request("POST", "/api/scan", headers={"Authorization": sys.argv[2]}); '
        "print(api.getresponse().status)' %s %s",
        f"127.0.0.1:{settings.converter.api.port}",
        authorization,
    )
    assert int(answered) == status


@pytest.mark.smoke
def test_its_configuration_is_what_it_checks_as_good(cdn: Host) -> None:
    checked = cdn.run(
        "/opt/webp-converter/current/bin/webp-converter config check --config /etc/webp-converter/config.toml"
    )
    assert checked.rc == 0, checked.stderr


@pytest.mark.parametrize(
    ("path", "writable"),
    [("{cdn.root}/.webp-converter", True), ("{cdn.variants}/upload", True), ("/etc", False), ("/opt", False)],
)
def test_it_can_write_where_it_must_and_nowhere_else(
    cdn: Host, settings: Settings, path: str, writable: bool
) -> None:
    pid = cdn.check_output("systemctl show -p MainPID --value %s", UNIT)
    place = path.format(cdn=settings.cdn)
    # Root, in the daemon's own view of the file system.
    tried = cdn.run(
        'nsenter -t %s -m -- sh -c \'touch "$1/testinfra" && rm "$1/testinfra"\' sh %s', pid, place
    )
    assert (tried.rc == 0) == writable, tried.stderr


def test_it_never_sees_the_mount_of_the_originals(cdn: Host, settings: Settings) -> None:
    # A process that is blocked in FUSE can't be killed.
    pid = cdn.check_output("systemctl show -p MainPID --value %s", UNIT)
    assert cdn.run("nsenter -t %s -m -- ls %s/", pid, settings.cdn.originals).stdout == ""


def _fetch(cdn: Host, url: str) -> str:
    output: str = cdn.check_output(
        "python3 -c 'import sys, urllib.request; "
        "print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())' %s",
        url,
    )
    return output

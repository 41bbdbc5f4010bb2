"""Role varnish: the cases of `tests/varnish` on the host's own Varnish, and the one that runs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.varnish import VCL, source_of_cdn
from tests.kit.deployment import ROOT
from tests.testinfra.vcl import Case, outcomes, quick

CASES = sorted((ROOT / "tests/varnish").glob("*.vtc"))


@pytest.fixture(scope="module")
def results(cdn: Host, settings: Settings) -> dict[str, Case]:
    def vcl(port: int) -> str:
        return quick(settings, replace(source_of_cdn(settings), port=port))

    return outcomes(cdn, CASES, vcl)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_vcl_keeps_its_promises(results: dict[str, Case], case: Path) -> None:
    result = results[case.stem]
    assert result.status == 0, result.output


@pytest.mark.smoke
def test_it_listens_for_this_host_alone(cdn: Host, settings: Settings) -> None:
    for port in (settings.varnish.port, settings.varnish.console_port):
        lines = cdn.check_output("ss -Htln sport = :%s", str(port)).splitlines()
        assert [line.split()[3] for line in lines] == [f"127.0.0.1:{port}"]


@pytest.mark.smoke
def test_its_probe_finds_the_originals(cdn: Host, settings: Settings) -> None:
    listed = cdn.check_output(
        "varnishadm -T 127.0.0.1:%s -S /etc/varnish/secret backend.list", str(settings.varnish.console_port)
    )
    assert re.search(r"originals\s+probe\s+\S+\s+healthy", listed), listed


def test_its_memory_is_what_was_set(cdn: Host, settings: Settings) -> None:
    pid = cdn.check_output("systemctl show -p MainPID --value varnish.service")
    command = cdn.check_output("tr '\\0' ' ' < /proc/%s/cmdline", pid)
    assert f"malloc,{settings.varnish.memory.removesuffix('b')}" in command


def test_the_checker_tells_good_from_bad(cdn: Host) -> None:
    refused = "printf 'vcl 4.1;\\nnonsense;\\n' > $f; varnishd -C -f $f; s=$?; rm $f; exit $s"
    assert cdn.run(f"f=$(mktemp); chmod 644 $f; {refused}").rc != 0
    assert cdn.run("varnishd -C -f %s", VCL).rc == 0

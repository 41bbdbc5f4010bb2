"""Role varnish: the cases of `tests/varnish` on the host's own Varnish, and the one that runs."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from testinfra.host import Host

from extensions.files import rendered
from roles.nginx import accepts
from roles.varnish import VCL
from settings import Settings
from tests.deployment import ROOT

CASES = sorted((ROOT / "tests/varnish").glob("*.vtc"))


@dataclass(frozen=True)
class Case:
    status: int
    output: str


@pytest.fixture(scope="module")
def results(cdn: Host, settings: Settings) -> dict[str, Case]:
    """All cases, each with the role's VCL, with seconds instead of minutes and without the probe.

    One after the other: side by side they are late for their own seconds.
    """
    place = cdn.check_output("mktemp -d")
    script = []
    for number, case in enumerate(CASES):
        port = 20081 + number
        vcl = _vcl(settings, port)
        base = f"{place}/{case.stem}"
        cdn.check_output("printf %%s %s > %s", vcl, f"{base}.vcl")
        cdn.check_output("printf %%s %s > %s", case.read_text(), f"{base}.vtc")
        run = f"varnishtest -Dvcl={base}.vcl -Dport={port} {base}.vtc > {base}.log 2>&1"
        script.append(f"{run}; echo $? > {base}.rc")
    cdn.check_output(f"chmod -R a+rX {place}; {'; '.join(script)}")
    found = {
        case.stem: Case(
            int(cdn.check_output("cat %s", f"{place}/{case.stem}.rc")),
            cdn.check_output(
                "grep -aE '^\\*+ +(top|c[0-9]|s[0-9]|v1)|^#' %s | tail -n 40 || true",
                f"{place}/{case.stem}.log",
            ),
        )
        for case in CASES
    }
    cdn.check_output("rm -rf %s", place)
    return found


def _vcl(settings: Settings, port: int) -> str:
    # Without validation: 1 s is less than the settings allow.
    encoding = settings.converter.encoding.model_copy(update={"avif": True})
    quick = settings.model_copy(
        update={
            "originals": settings.originals.model_copy(update={"port": port}),
            "varnish": settings.varnish.model_copy(update={"fresh_s": 1, "pending_s": 1, "absent_s": 1}),
            "converter": settings.converter.model_copy(update={"encoding": encoding}),
        }
    )
    files = rendered("varnish", only=[VCL], settings=quick, accepts=accepts)
    text = files[0].content
    without_probe = re.sub(r"probe mount \{.*?\}\n", "", text, flags=re.DOTALL).replace(
        "    .probe = mount;\n", ""
    )
    assert "probe" in text
    assert ".probe" not in without_probe
    return without_probe


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

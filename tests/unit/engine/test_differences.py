"""What a dry run reports, and that one without a listener reports, and reads, nothing more."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitrix_cdn.engine import differences, files, findings
from bitrix_cdn.engine.files import Contents, Existing, File, Obstacles, Paths, stale, surplus
from bitrix_cdn.engine.findings import Finding, SurplusFile, WrongFile
from bitrix_cdn.engine.services import faults, start_script

RIGHT = File("/etc/right", "right\n")
WRONG = File("/etc/wrong", "s3cret\n", "640", "root", "redis")


class Host:
    """A host that answers as it is told to."""

    name = "pics"
    current_op_hash = "1-2"

    def __init__(self) -> None:
        self.asked: list[type] = []

    def get_fact(self, fact: type, **_: Any) -> Any:
        self.asked.append(fact)
        changed = (File("/etc/wrong", "hunter2\n").state[0], "644", "root", "root")
        answers: dict[type, Any] = {
            Paths: {"/etc/right": RIGHT.state, "/etc/wrong": changed},
            Contents: [("file", b"hunter2\n")],
            Existing: ["/etc/surplus"],
            Obstacles: [],
        }
        return answers[fact]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    for module in (files, differences):
        monkeypatch.setattr(module, "host", made)
    monkeypatch.setattr(differences, "_managed", {})
    monkeypatch.setattr(differences, "_reported", {})
    return made


@pytest.fixture
def told(host: Host) -> Iterator[list[Finding]]:
    found: list[Finding] = []
    findings.collect(found.append)
    yield found
    findings.collect(None)


def test_where_nobody_asks_no_content_is_asked_for_and_nothing_kept(host: Host) -> None:
    assert stale([RIGHT, WRONG]) == [WRONG]
    assert surplus(["/etc/surplus"]) == ["/etc/surplus"]
    assert host.asked == [Paths, Obstacles, Existing]
    assert differences._managed == {}


def test_whoever_asks_is_told_both_contents(host: Host, told: list[Finding]) -> None:
    # As often as the body is run, once is enough.
    for _ in range(2):
        assert stale([RIGHT, WRONG]) == [WRONG]
        assert surplus(["/etc/surplus"]) == ["/etc/surplus"]
    file, other = told
    access, must = ("644", "root", "root"), ("640", "root", "redis")
    wrong = WrongFile("/etc/wrong", "file", access, must, "hunter2\n", "s3cret\n")
    assert file == Finding("pics", "1-2", wrong)
    assert other == Finding("pics", "1-2", SurplusFile("/etc/surplus"))
    assert differences.managed().files == {"/etc/right", "/etc/wrong"}
    assert differences.reported("1-2")
    assert not differences.reported("1-3")


def test_a_host_as_it_must_be_costs_no_further_question(host: Host, told: list[Finding]) -> None:
    assert stale([RIGHT]) == []
    assert host.asked == [Paths]
    assert told == []


def test_contents_are_read_of_files_only_and_of_no_large_ones(tmp_path: Path) -> None:
    (tmp_path / "it's").write_bytes(b"\xff\x00x\n")
    (tmp_path / "large").write_bytes(bytes(Contents.LIMIT + 1))
    (tmp_path / "link").symlink_to("/dev/null")
    names = ("it's", "large", "link", "missing", ".")
    command = Contents().command([str(tmp_path / name) for name in names])
    output = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert Contents().process(output.splitlines()) == [
        ("file", b"\xff\x00x\n"),
        ("file", None),
        ("link to /dev/null", None),
        ("nothing", None),
        ("directory", None),
    ]
    assert base64.b64encode(b"\xff\x00x\n").decode() in output


GOOD = {"active": "active", "enabled": "enabled", "ready": "yes", "start": "a", "started": "a"}
GOOD |= {"reload": "b", "reloaded": "b"}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({}, []),
        ({"enabled": "masked"}, ["is masked"]),
        ({"enabled": "masked-runtime"}, ["is masked"]),
        ({"enabled": "disabled"}, ["is disabled, must be enabled"]),
        ({"enabled": ""}, ["is unknown to systemd, must be enabled"]),
        ({"enabled": "static"}, []),
        ({"active": "inactive", "started": ""}, ["is inactive, must be active"]),
        ({"active": "failed", "enabled": "masked"}, ["is masked", "is failed, must be active"]),
        ({"started": "other"}, ["runs with other files than it was started with"]),
        ({"reloaded": "other"}, ["has not taken its files as they are now"]),
        ({"ready": "no"}, ["is not ready"]),
    ],
)
def test_what_is_wrong_with_a_unit(now: dict[str, str], said: list[str]) -> None:
    assert faults({**GOOD, **now}) == said


def test_a_masked_unit_is_unmasked_before_it_is_enabled() -> None:
    script = start_script("mtail.service")
    assert "unmask -q --no-reload mtail.service; systemctl unmask -q --no-reload --runtime mtail" in script
    assert (
        script.index("systemctl unmask") < script.index("systemctl enable -q") < script.index("daemon-reload")
    )

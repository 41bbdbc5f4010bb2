from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitrix_cdn.engine.files import rendered
from bitrix_cdn.settings import Settings
from host_agent.mount import report
from host_agent.mount.config import ConfigError, parse
from host_agent.mount.linux import parse_mounts
from roles.mounts import OPTIONS


@pytest.mark.parametrize("name", ["resize-cache", "originals"])
def test_what_the_role_writes_is_what_the_guard_reads(name: str) -> None:
    path = f"/etc/mount-guard/{name}.toml"
    [file] = rendered(
        "mounts",
        only=[path],
        settings=Settings(),
        options=OPTIONS[name],
        known_hosts="/k",
        reader="cdn-reader",
        group="www-data",
    )
    config = parse(name, file.content)
    assert config.spool == (name == "resize-cache")
    assert config.min_free == 256_000_000
    # No process waits longer than the figure to hold.
    assert config.probe_interval + config.probe_timeout <= 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('mount_point = "/mnt/a/upload"', ""), "mount_point is missing"),
        (("probe_interval = 2.0", 'probe_interval = "2"'), "probe_interval = '2': float is needed"),
        (("spool = false", "spool = 1"), "spool = 1: bool is needed"),
        (("push_workers = 8", "push_workers = true"), "push_workers = True: int is needed"),
        (('mount_point = "/mnt/a/upload"', 'mount_point = "/mnt/a/upload"\nspol = true'), "unknown key spol"),
        (("spool = false", "spool ="), "Invalid value"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(change: tuple[str, str], message: str) -> None:
    [file] = rendered(
        "mounts",
        only=["/etc/mount-guard/originals.toml"],
        settings=Settings.model_validate({"cdn": {"originals": "/mnt/a/upload"}}),
        options="ro",
        known_hosts="/k",
        reader="cdn-reader",
        group="www-data",
    )
    assert change[0] in file.content
    with pytest.raises(ConfigError, match=message):
        parse("originals", file.content.replace(*change))


def status(**changes: object) -> report.Status:
    values = {
        "name": "resize-cache", "state": "mounted", "since": 100.0, "reason": "", "mount_point": "/m",
        "latency": 0.002, "last_good_probe": 160.0, "reconnects": 0, "refused": "", "free": 5,
        "spool_files": 0, "spool_bytes": 0, "pushed_files": 0, "pushed_bytes": 0, "pid": 1, "written": 161.0,
    }  # fmt: skip
    return report.Status(**(values | changes))  # type: ignore[arg-type]


def test_a_line_for_a_person() -> None:
    assert report.sentence(status(), 161) == "resize-cache: mounted for 61 s, answers in 2 ms"
    away = status(state="waiting", reason="no answer for 3 s", spool_files=1234, spool_bytes=9, reconnects=2)
    assert report.sentence(away, 7300) == (
        "resize-cache: waiting for 2 h: no answer for 3 s; 1,234 files (9 bytes) wait in the spool; "
        "2 reconnects"
    )


def test_metrics_are_prometheus_text() -> None:
    lines = report.metrics(status(state="full", refused="host_key")).splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['mount_guard_up{mount="resize-cache"}'] == "0.0"
    assert values['mount_guard_full{mount="resize-cache"}'] == "1.0"
    assert values['mount_guard_refused{mount="resize-cache",reason="host_key"}'] == "1.0"
    assert values['mount_guard_refused{mount="resize-cache",reason="login"}'] == "0.0"
    assert values['mount_guard_seconds_since_last_good_probe{mount="resize-cache"}'] == "1.0"
    assert sum(line.startswith("# TYPE") for line in lines) == len({name.split("{")[0] for name in values})


def test_a_status_survives_its_file(tmp_path: Path) -> None:
    report.write(tmp_path / "status.json", report.as_json(status()))
    assert report.read(tmp_path / "status.json") == status()
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    assert json.loads(report.as_json(status()))["state"] == "mounted"


@pytest.mark.parametrize(
    ("said", "reason", "kind"),
    [
        (
            ["ssh: connect to host h port 22: Connection timed out", "read: Connection reset by peer"],
            "ssh: connect to host h port 22: Connection timed out",
            "",
        ),
        (["a@h: Permission denied (publickey).", "read: x"], "a@h: Permission denied (publickey).", "login"),
        ([], "sshfs ended", ""),
    ],
)
def test_the_reason_is_what_ssh_says(said: list[str], reason: str, kind: str) -> None:
    assert report.explain(said, "/k") == (reason, kind)


def test_another_host_key_is_said_in_one_clear_line() -> None:
    reason, kind = report.explain(["@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @", "x"], "/k")
    assert kind == "host_key"
    assert "another host key than the one pinned in /k" in reason


def test_the_kernels_table_of_mounts() -> None:
    mounts = parse_mounts(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "90 22 0:50 / /mnt/a\\040b rw shared:2 master:3 - fuse.sshfs peer:/x rw,user_id=0\n"
    )
    assert [(m.id, m.device, m.point, m.kind) for m in mounts] == [
        (22, "8:1", "/", "ext4"),
        (90, "0:50", "/mnt/a b", "fuse.sshfs"),
    ]

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import host

from extensions import services
from extensions.ahead import look_ahead
from extensions.services import Applied, running
from tests.unit.extensions.machines import machines, ran
from tests.unit.extensions.test_ahead import add, changed, execute, host_of

# As systemd's does: 254 and newer prints a line for a unit that isn't there, older ones stop at it.
SYSTEMCTL = """#!/bin/sh
verb=$1; shift
for unit; do
    case $verb-$unit in
        is-active-missing*) echo inactive ;;
        is-active-*) echo active ;;
        is-enabled-missing*) [ {newer} = yes ] && echo not-found || exit 1 ;;
        is-enabled-off*) echo disabled ;;
        is-enabled-*) echo enabled ;;
    esac
done
"""

UNITS = ("first.service", "missing.service", "off@1.service", "last.timer")


@pytest.fixture(params=["no", "yes"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd, older and newer than 254, and a place for stamps."""
    command = tmp_path / "bin/systemctl"
    command.parent.mkdir()
    command.write_text(SYSTEMCTL.replace("{newer}", request.param))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setattr(services, "STAMPS", str(tmp_path / "stamps"))


def questions(tmp_path: Path) -> list[dict[str, Any]]:
    """One for each unit, with files, stamps and readiness of all kinds."""
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    asked = []
    for number, unit in enumerate(UNITS):
        file = tmp_path / f"file {number}"
        if number != 1:
            file.write_text(f"ready {number}\nactive\n")
            (stamps / unit).write_text(f"started {number}\nreloaded none\n")
        ready = ("false", "true", "exit 0", "true")[number]
        asked.append({"unit": unit, "start": [str(file)], "reload": [], "ready": ready})
    return asked


@pytest.mark.usefixtures("systemd")
def test_units_asked_together_are_what_each_is_by_itself(tmp_path: Path) -> None:
    asked = questions(tmp_path)
    with machines("one") as state:
        fact = Applied()
        alone = [host.get_fact(Applied, **question) for question in asked]
        _, output = host_of(state).run_shell_command(fact.together(asked))
        parts = fact.parts(output.stdout_lines, asked)
        assert [fact.process(part) for part in parts] == alone
    assert [one["active"] for one in alone] == ["active", "inactive", "active", "active"]
    assert [one["enabled"] in {"enabled", "disabled"} for one in alone] == [True, False, True, True]
    assert [one["ready"] for one in alone] == ["no", "yes", "", "yes"]
    assert [one.get("started") for one in alone] == ["0", None, "2", "3"]
    assert len({one["start"] for one in alone}) == 4


@pytest.mark.usefixtures("systemd")
def test_many_units_take_one_trip(tmp_path: Path) -> None:
    with machines("one") as state:
        look_ahead(host_of(state))
        stamps = tmp_path / "stamps"
        stamps.mkdir()
        for number in range(20):
            (stamps / f"{number}.service").write_text("started none\nreloaded none\n")
            add(state, running, "one", unit=f"{number}.service")
        execute(state)
        assert changed(state) == [False] * 20
        assert len(ran(host_of(state))) == 1
        # All units, and the second `systemctl` as well.
        assert ran(host_of(state))[0].count("is-active") == 1


def test_an_output_of_other_units_is_no_answer() -> None:
    asked = [{"unit": "a.service"}, {"unit": "b.service"}]
    with pytest.raises(ValueError, match="1 units of 2"):
        Applied().parts(["active x", "active y", "enabled x", "enabled y", "ready yes"], asked)

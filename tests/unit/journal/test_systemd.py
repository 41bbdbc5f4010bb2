"""What systemd is asked, with programs that tell how they were called."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.systemd import Systemd


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("systemctl", "journalctl"):
        program = tmp_path / name
        program.write_text(
            '#!/bin/sh\necho "$@"\necho noise >&2\ncase "$*" in *restart*|is-active*) exit 1; esac\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_a_unit_is_told_what_to_do_and_says_nothing_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert Systemd().do("start", "a.service")
    assert not Systemd().do("restart", "a.service")
    assert Systemd().do("daemon-reload")
    # What is printed is JSON, and the last line of the errors is what the operator is shown.
    assert capfd.readouterr() == ("", "")


def test_states_are_told_also_of_what_does_not_run() -> None:
    assert Systemd().state("a.service") == "is-active a.service"
    assert Systemd().enabled("a.service") == "is-enabled a.service"


def test_the_last_words_begin_with_the_second_of_the_change() -> None:
    said = Systemd().last_words("a.service", 8, since=1_795_886_999.9)
    assert said == "-u a.service --no-pager -o cat -n 8 --since @1795886999"

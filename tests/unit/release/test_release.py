"""The converter's releases, on a directory that stands for the host, with a daemon that is ill when told."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from host_agent import flock
from host_agent.journal.undo import undo
from host_agent.json_output import AgentError
from host_agent.release import Listed, Releases
from host_agent.release.switch import UNIT, Health, Switch, Wanted
from tests.unit.journal.machine import Machine, finishes

CHECKER = """#!/bin/sh
! grep -q refused "$4" || { echo "$4: what is this?" >&2; exit 2; }
"""
START = """
log() { echo "$1" > "$UNITS/%(unit)s.active"; echo "restart %(unit)s" >> "$UNITS/log"; }
if [ -e "$UNITS/dead-$(cat "$HOME_OF_ALL/current/release")" ]; then log failed; exit 1; fi
log active
mkdir -p "$STAMPS"; cat "$HOME_OF_ALL/current/release" "$CONFIG" > "$STAMPS/%(unit)s"
"""


class Ill(Health):
    """The health of a daemon that runs the current release, unless that is ill."""

    def __init__(self, cdn: Cdn) -> None:
        self.cdn = cdn
        self.asked: list[str] = []

    def now(self) -> str:
        return "disk"

    def wait(self, release: str, seconds: float, before: str) -> str:
        assert before == "disk"
        self.asked.append(f"{release} within {seconds} s")
        if self.cdn.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.cdn.current != release:
            return "another release answers"
        if "ill" in self.cdn.configuration:
            return "disk: full"
        return "queue: away" if (self.cdn.services.place / f"sick-{release}").exists() else ""


class Cdn(Machine):
    """One with releases of the converter."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.home, self.stamp_file = root / "opt", root / "lib/applied" / UNIT
        (self.home / "releases").mkdir(parents=True)
        self.releases = Releases(self.home, root / "lib/converter-trial", self.journal.place)
        self.config = self.etc / "config.toml"
        self.config.write_text("mine = 1\n")
        self.health = Ill(self)
        self.killed = False
        self.services.be(UNIT, "active")

    @property
    def configuration(self) -> str:
        return self.config.read_text()

    def deploy_configuration(self, text: str) -> None:
        self.record(self.config, trial=self.releases.trial.place)
        self.config.write_text(text)

    def install(self, *releases: str) -> None:
        for id in releases:
            place = self.releases.path(id)
            (place / "bin").mkdir(parents=True)
            (place / "release").write_text(f"{id}\n")
            (place / "bin/webp-converter").write_text(CHECKER)
            (place / "bin/webp-converter").chmod(0o755)

    def falls(self, how: str, release: str) -> None:
        (self.services.place / f"{how}-{release}").touch()
        if how == "dead":
            self.services.start_fails = lambda: (self.services.place / f"dead-{self.current}").exists()

    def switch(self, release: str, *, back: bool = False, restart: bool = True) -> None:
        variables = {
            "UNITS": self.services.place,
            "HOME_OF_ALL": self.home,
            "CONFIG": self.config,
            "STAMPS": self.stamp_file.parent,
        }
        set_ = "".join(f"{name}='{value}'\n" for name, value in variables.items())
        action = "restart" if restart else ""
        wanted = Wanted(release, 1, set_ + START % {"unit": UNIT}, str(self.stamp_file), action, back)
        Switch(self.releases, self.services, self.health, config=self.config).to(wanted)

    def ok(self, release: str, *, back: bool = False) -> None:
        self.switch(release, back=back)
        assert (self.current, self.trial_open) == (release, False)

    def refused(self, release: str, *, back: bool = False) -> str:
        with pytest.raises(AgentError) as refused:
            self.switch(release, back=back)
        return str(refused.value)

    @property
    def current(self) -> str:
        return (self.home / "current").readlink().name

    @property
    def trial_open(self) -> bool:
        return self.releases.trial.is_open

    @property
    def history(self) -> list[str]:
        return self.releases.history

    @property
    def stamp(self) -> str:
        return self.stamp_file.read_text()

    def surplus(self, keep: int) -> set[str]:
        return set(self.releases.surplus(keep))


@pytest.fixture
def cdn(tmp_path: Path) -> Cdn:
    cdn = Cdn(tmp_path)
    cdn.install("aa", "bb", "cc")
    return cdn


def test_releases_become_current_one_after_another_and_the_way_back_is_the_way_they_came(cdn: Cdn) -> None:
    assert cdn.releases.listed() == Listed("", [], ["aa", "bb", "cc"], [])
    for id in ("aa", "bb", "cc"):
        cdn.ok(id)
    assert cdn.releases.listed() == Listed("cc", ["aa", "bb", "cc"], ["aa", "bb", "cc"], [])
    assert cdn.releases.listed(keep=1).surplus == ["aa"]
    cdn.ok("bb", back=True)
    assert cdn.history == ["aa", "bb"]
    # Back again is further back, not to what was just taken back.
    cdn.ok("aa", back=True)
    assert cdn.history == ["aa"]
    cdn.ok("cc", back=True)
    assert cdn.history == ["aa", "cc"]


def test_without_any_release_there_is_nothing_to_list_or_to_remove(tmp_path: Path) -> None:
    releases = Releases(tmp_path / "opt", tmp_path / "trial", tmp_path / "journal")
    assert releases.listed(keep=1) == Listed("", [], [], [])


def test_a_release_that_is_deployed_again_is_the_last_in_the_history_and_in_it_once(cdn: Cdn) -> None:
    for id in ("aa", "bb", "aa"):
        cdn.ok(id)
    assert cdn.history == ["bb", "aa"]


def test_where_nobody_has_noted_what_is_current_it_is_what_there_is_to_go_back_to(cdn: Cdn) -> None:
    (cdn.home / "current").symlink_to("releases/aa")
    cdn.ok("bb")
    assert cdn.history == ["aa", "bb"]


def test_one_that_runs_with_its_files_already_is_not_restarted_when_taken_back(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.journal.open()
    cdn.switch("aa", restart=False)
    cdn.services.done()
    undo(cdn.journal, cdn.services)
    assert cdn.services.done() == ["daemon-reload"]


@pytest.mark.parametrize("fault", ["sick", "dead"])
def test_a_release_that_does_not_get_healthy_is_taken_back_with_its_configuration(
    cdn: Cdn, fault: str
) -> None:
    cdn.ok("aa")
    stamp = cdn.stamp
    cdn.falls(fault, "bb")
    for _ in range(2):  # the same again fails again
        cdn.deploy_configuration("new = 1\n")
        cdn.services.done()
        cdn.health.asked.clear()
        said = cdn.refused("bb")
        what = {"sick": "queue: away", "dead": "it does not start (exit-code)"}[fault]
        then = "release aa runs again, with its configuration"
        assert said == (
            f"release bb does not get healthy: {what}; {then}. Its last lines:\nlast words of {UNIT}"
        )
        assert (cdn.current, cdn.history, cdn.configuration) == ("aa", ["aa"], "mine = 1\n")
        assert (cdn.stamp, cdn.trial_open) == (stamp, False)
        restart = [f"restart {UNIT}"]
        assert cdn.services.done() == [
            *restart,
            "daemon-reload",
            f"reset-failed {UNIT}",
            *restart,
            f"start {UNIT}",
        ]
        # Nothing is won by giving up what was healthy before.
        assert cdn.health.asked[-1] == "aa within 60 s"
    cdn.deploy_configuration("new = 1\n")
    cdn.ok("cc")
    assert cdn.history == ["aa", "cc"]


def test_a_configuration_that_makes_the_same_release_ill_is_taken_back(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.deploy_configuration("ill = 1\n")
    assert "disk: full; release aa runs again, with its configuration" in cdn.refused("aa")
    assert cdn.configuration == "mine = 1\n"


def test_what_was_ill_before_with_the_same_files_stays_as_it_is(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.falls("sick", "aa")
    assert "queue: away; there is nothing that could be taken back" in cdn.refused("aa")


def test_a_stamp_of_another_unit_is_no_configuration(cdn: Cdn) -> None:
    cdn.ok("aa")
    other = cdn.stamp_file.with_name("webp-converter-misses.socket")
    cdn.record(late=(other,), trial=cdn.releases.trial.place)
    cdn.falls("sick", "bb")
    assert cdn.refused("bb").startswith(
        "release bb does not get healthy: queue: away; release aa runs again. Its"
    )


def test_without_an_earlier_release_it_stays_and_is_not_taken_for_done(cdn: Cdn) -> None:
    cdn.falls("sick", "aa")
    for _ in range(2):
        assert "it stays, as there is no earlier one to go back to" in cdn.refused("aa")
        assert (cdn.current, cdn.trial_open) == ("aa", True)
    # Nor is it what a later one is taken back to.
    cdn.falls("sick", "bb")
    assert "no earlier one" in cdn.refused("bb")
    cdn.ok("cc")
    assert cdn.history == ["cc"]


def test_an_earlier_release_that_is_ill_as_well_is_said_and_nothing_is_taken_for_done(cdn: Cdn) -> None:
    cdn.ok("aa")
    for id in ("aa", "bb"):
        cdn.falls("dead", id)
    assert f"release aa does not come back either: {UNIT} does not come back. Its last lines" in cdn.refused(
        "bb"
    )
    assert cdn.trial_open
    cdn.services.start_fails = lambda: False
    cdn.ok("cc")


def test_an_earlier_release_that_starts_and_is_ill_now_is_said(cdn: Cdn) -> None:
    cdn.ok("aa")
    for id in ("aa", "bb"):
        cdn.falls("sick", id)
    assert "release aa does not come back either: queue: away." in cdn.refused("bb")


@pytest.mark.parametrize("mended", [True, False])
def test_what_a_deploy_that_was_killed_has_left_is_no_release_to_go_back_to(cdn: Cdn, mended: bool) -> None:
    cdn.ok("aa")
    cdn.deploy_configuration("new = 1\n")
    # Killed while it waits for the health of bb.
    cdn.killed = True
    assert not finishes(lambda: cdn.switch("bb"), 0)
    cdn.killed = False
    assert (cdn.current, cdn.trial_open) == ("bb", True)
    if mended:
        cdn.ok("cc")
        assert (cdn.history, cdn.configuration) == (["aa", "cc"], "new = 1\n")
        return
    cdn.falls("sick", "cc")
    assert "release aa runs again, with its configuration" in cdn.refused("cc")
    assert (cdn.current, cdn.history, cdn.configuration) == ("aa", ["aa"], "mine = 1\n")


def test_killed_before_any_step_the_next_deploy_finishes_or_takes_back_to_what_was_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    step, finished = 0, False
    while not finished:
        step += 1
        cdn = Cdn(tmp_path / str(step))
        cdn.install("aa", "bb", "cc")
        cdn.ok("aa")
        cdn.deploy_configuration("new = 1\n")
        finished = finishes(lambda cdn=cdn: cdn.switch("bb"), step)  # type: ignore[misc]
        # At once complete or not at all.
        assert cdn.history in (["aa"], ["aa", "bb"])
        if finished:
            break
        if step % 2:
            cdn.falls("sick", "cc")
            assert "runs again" in cdn.refused("cc")
            healthy = ("aa", "mine = 1\n") if cdn.history == ["aa"] else (cdn.current, cdn.configuration)
            assert (cdn.current, cdn.configuration) == healthy, f"killed at step {step}"
        else:
            cdn.ok("cc")
            assert "aa" in cdn.history
            assert cdn.history[-1] == "cc"
    assert step > 10, "nothing was ever killed"


def test_going_back_first_takes_back_what_a_killed_deploy_has_left(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.ok("bb")
    cdn.deploy_configuration("refused = 1\n")
    cdn.ok("aa", back=True)
    assert cdn.configuration == "mine = 1\n"


def test_a_release_that_refuses_the_configuration_is_not_gone_back_to(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.ok("bb")
    cdn.config.write_text("refused = 1\n")
    cdn.services.done()
    said = cdn.refused("aa", back=True)
    assert said == (
        "release aa refuses the configuration that is deployed: "
        f"{cdn.config}: what is this?; deploy from its sources"
    )
    assert (cdn.current, cdn.history, cdn.trial_open) == ("bb", ["aa", "bb"], False)
    assert cdn.services.done() == []


def test_the_journal_of_a_rollout_takes_back_a_release_too(cdn: Cdn) -> None:
    cdn.ok("aa")
    before = (cdn.current, cdn.history, cdn.stamp)
    cdn.journal.open()
    cdn.deploy_configuration("new = 1\n")
    cdn.ok("bb")
    cdn.deploy_configuration("newer = 1\n")
    assert cdn.trial_open
    cdn.undo()
    assert (cdn.current, cdn.history, cdn.stamp) == before
    assert (cdn.configuration, cdn.trial_open) == ("mine = 1\n", False)


def test_an_undo_waits_for_a_switch_that_is_at_work(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.journal.open()
    waiting, healthy = threading.Event(), cdn.health.wait

    def wait(release: str, seconds: float, before: str) -> str:
        waiting.set()
        time.sleep(0.3)
        return healthy(release, seconds, before)

    cdn.health.wait = wait  # type: ignore[method-assign]
    switching = threading.Thread(target=cdn.switch, args=("bb",))
    switching.start()
    assert waiting.wait(10)
    cdn.undo()
    switching.join()
    assert (cdn.current, cdn.history) == ("aa", ["aa"])


def test_two_at_once_are_one_after_the_other(cdn: Cdn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_agent.release._PATIENCE_S", 0.1)
    with flock.opened(cdn.home / "lock") as other:
        flock.locked(other, flock.EXCLUSIVE, 0)
        assert cdn.refused("aa") == "another deploy or rollback is at work here"
        with pytest.raises(AgentError, match="another deploy or rollback is at work here"):
            cdn.releases.prune(1)
    cdn.ok("aa")


def test_the_last_releases_are_kept_in_the_order_in_which_they_were_current(cdn: Cdn) -> None:
    cdn.install("dd", "ee")
    for id in ("dd", "cc", "bb", "aa"):
        cdn.ok(id)
    assert cdn.surplus(5) == set()
    assert cdn.surplus(4) == {"ee"}  # was never current
    assert cdn.surplus(3) == {"dd", "ee"}
    assert set(cdn.releases.prune(3)) == {"dd", "ee"}
    assert {path.name for path in (cdn.home / "releases").iterdir()} == {"aa", "bb", "cc"}
    assert cdn.surplus(3) == set()


def test_what_is_needed_is_never_removed(cdn: Cdn) -> None:
    for id in ("aa", "bb", "cc"):
        cdn.ok(id)
    assert cdn.surplus(1) == {"aa"}  # neither the current one nor the one before it
    cdn.journal.open()
    cdn.install("dd", "ee")
    cdn.ok("dd")
    cdn.ok("ee")
    assert cdn.surplus(1) == {"aa", "bb"}  # an undo goes back to cc


def test_what_a_trial_goes_back_to_is_never_removed(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.install("dd")
    cdn.killed = True
    for id in ("bb", "cc"):
        assert not finishes(lambda id=id: cdn.switch(id), 0)  # type: ignore[misc]
    # It wasn't recorded.
    cdn.releases.noted.unlink()
    assert cdn.trial_open
    assert cdn.surplus(1) == {"bb", "dd"}


def test_a_release_that_still_runs_is_not_removed(cdn: Cdn) -> None:
    for id in ("aa", "bb", "cc"):
        cdn.ok(id)
    own = cdn.home / "releases/aa/bin/sleep"
    own.write_bytes(Path("/bin/sleep").read_bytes())
    own.chmod(0o755)
    process = subprocess.Popen([own, "60"])
    try:
        assert cdn.surplus(1) == set()
    finally:
        process.kill()
        process.wait()
    assert cdn.surplus(1) == {"aa"}


def test_one_that_was_not_installed_whole_is_removed_and_never_gone_back_to(cdn: Cdn) -> None:
    cdn.ok("aa")
    (cdn.home / "releases/bb/release").unlink()
    assert cdn.releases.listed().complete == ["aa", "cc"]
    assert cdn.surplus(3) == {"bb"}


def test_one_that_is_gone_is_none_to_go_back_to(cdn: Cdn) -> None:
    for id in ("aa", "bb"):
        cdn.ok(id)
    (cdn.home / "releases/aa/release").unlink()
    assert cdn.releases.listed().history == ["bb"]
    cdn.ok("cc")
    assert cdn.history == ["bb", "cc"]

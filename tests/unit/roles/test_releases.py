"""The scripts that change the converter's release and remove old ones, on a directory as the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bitrix_cdn.engine.files import File, _install, _packed
from bitrix_cdn.engine.journal import undo_script
from roles.agent import COMMAND
from roles.releases import Installed, Releases, prune_script, surplus_script, switch_script
from tests.unit.engine.machines import GROUP, OWNER
from tests.unit.machine import Machine

UNIT = "webp-converter.service"

# What the real one is asked for: how the parts do now, or whether a release is healthy.
HEALTH = """#!/bin/sh
[ $# -gt 2 ] || { echo none; exit 0; }
release=$3
[ "$(cat $UNITS/../opt/current/release)" = $release ] || { echo "another release answers"; exit 1; }
[ ! -e $UNITS/sick-$release ] || { echo "queue: away"; exit 1; }
"""
CHECKER = """#!/bin/sh
! grep -q refused "$4" || { echo "$4: what is this?" >&2; exit 2; }
"""
RESTARTING = """#!/bin/sh
# A release that can't start: `restart` fails as long as it is current.
case $1 in restart|start)
    if [ -e "$UNITS/dead-$(cat $UNITS/../opt/current/release)" ]; then
        echo failed > $UNITS/webp-converter.service.active; exit 1
    fi ;;
show) echo exit-code; exit 0 ;;
esac
exec $0.real "$@"
"""


class Cdn(Machine):
    """One with releases of the converter."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.home, self.state = root / "opt", root / "lib"
        (self.home / "releases").mkdir(parents=True)
        self.state.mkdir()
        (self.bin / "systemctl").rename(self.bin / "systemctl.real")
        self.command("systemctl", RESTARTING)
        self.command("cdn-host", HEALTH)
        self.configure("mine = 1\n")

    def script(self, script: str) -> str:
        """A script of the host's, for this directory instead."""
        for path, here in (
            ("/opt/webp-converter", self.home),
            ("/var/lib/bitrix-cdn", self.state),
            ("/etc/webp-converter", self.etc),
            (COMMAND, self.bin / "cdn-host"),
        ):
            script = script.replace(path, str(here))
        return script

    def configure(self, text: str) -> None:
        (self.etc / "config.toml").write_text(text)

    @property
    def configuration(self) -> str:
        return (self.etc / "config.toml").read_text()

    def deploy_configuration(self, text: str) -> None:
        files = [File("/etc/webp-converter/config.toml", text, "644", OWNER, GROUP)]
        script = _install(files, [], "/etc", None, trial="/var/lib/bitrix-cdn/converter-trial")
        # The archive has the real path in it.
        script = self.script(script).replace(f'"$S/new"{self.etc}', '"$S/new"/etc/webp-converter')
        self.done(f"exec <<'END'\n{_packed(files)}END\n{script}")

    def install(self, *releases: str) -> None:
        for id in releases:
            place = self.home / "releases" / id
            (place / "bin").mkdir(parents=True)
            (place / "release").write_text(f"{id}\n")
            (place / "bin/webp-converter").write_text(CHECKER)
            (place / "bin/webp-converter").chmod(0o755)

    def switch(
        self, release: str, *, back: bool = False, restart: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.run(self.script(switch_script(release, healthy_within_s=1, restart=restart, back=back)))

    def ok(self, release: str, *, back: bool = False) -> None:
        result = self.switch(release, back=back)
        assert result.returncode == 0, result.stderr
        assert (self.current, self.trial_open) == (release, False)

    def refused(self, release: str, *, back: bool = False) -> str:
        result = self.switch(release, back=back)
        assert result.returncode == 1, result.stdout
        return result.stderr

    @property
    def current(self) -> str:
        return (self.home / "current").readlink().name

    @property
    def trial_open(self) -> bool:
        return (self.state / "converter-trial").is_dir()

    @property
    def history(self) -> list[str]:
        return (self.home / "history").read_text().split()

    @property
    def stamp(self) -> str:
        return (self.state / "applied" / UNIT).read_text()

    def releases(self) -> Releases:
        return Installed().process(self.done(self.script(Installed().command())).splitlines())

    def surplus(self, keep: int) -> set[str]:
        return set(self.done(self.script(surplus_script(keep))).split())


@pytest.fixture
def cdn(tmp_path: Path) -> Cdn:
    cdn = Cdn(tmp_path)
    cdn.install("aa", "bb", "cc")
    cdn.unit(UNIT, "active", "enabled")
    return cdn


def test_releases_become_current_one_after_another_and_the_way_back_is_the_way_they_came(cdn: Cdn) -> None:
    for id in ("aa", "bb", "cc"):
        cdn.ok(id)
    assert cdn.history == ["aa", "bb", "cc"]
    assert cdn.releases() == Releases("cc", ("aa", "bb", "cc"), ("aa", "bb", "cc"))
    cdn.ok(cdn.releases().target(), back=True)
    assert (cdn.current, cdn.history) == ("bb", ["aa", "bb"])
    # Back again is further back, not to what was just taken back.
    cdn.ok(cdn.releases().target(), back=True)
    assert (cdn.current, cdn.history) == ("aa", ["aa"])
    with pytest.raises(ValueError, match="no release was current before aa; there is bb, cc"):
        cdn.releases().target()
    cdn.ok(cdn.releases().target("cc"), back=True)
    assert cdn.history == ["aa", "cc"]


def test_a_release_that_is_deployed_again_is_the_last_in_the_history_and_in_it_once(cdn: Cdn) -> None:
    for id in ("aa", "bb", "aa"):
        cdn.ok(id)
    assert cdn.history == ["bb", "aa"]


def test_where_nobody_has_noted_what_is_current_it_is_what_there_is_to_go_back_to(cdn: Cdn) -> None:
    (cdn.home / "current").symlink_to("releases/aa")
    cdn.ok("bb")
    assert cdn.releases().target() == "aa"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("dd", "no release dd; there is aa, cc"),
        ("bb", "release bb is current already; there is aa, cc"),
        ("", "no release was current before bb; there is aa, cc"),
    ],
)
def test_a_release_that_there_is_no_way_to_is_refused_with_those_there_are(wanted: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Releases("bb", ("bb",), ("aa", "bb", "cc")).target(wanted)


def test_a_release_may_be_named_by_how_its_id_begins() -> None:
    releases = Releases("f00", ("f00",), ("abc1", "abd2", "f00"))
    assert releases.target("abd") == "abd2"
    with pytest.raises(ValueError, match="several releases ab; there is abc1, abd2"):
        releases.target("ab")


@pytest.mark.parametrize("fault", ["sick", "dead"])
def test_a_release_that_does_not_get_healthy_is_taken_back_with_its_configuration(
    cdn: Cdn, fault: str
) -> None:
    cdn.ok("aa")
    stamp = cdn.stamp
    (cdn.units / f"{fault}-bb").touch()
    for _ in range(2):  # the same again fails again
        cdn.deploy_configuration("new = 1\n")
        said = cdn.refused("bb")
        what = {"sick": "queue: away", "dead": "it does not start (exit-code)"}[fault]
        then = "release aa runs again, with its configuration"
        assert said == (
            f"release bb does not get healthy: {what}; {then}. Its last lines:\nlast words of {UNIT}\n"
        )
        assert (cdn.current, cdn.history, cdn.configuration) == ("aa", ["aa"], "mine = 1\n")
        assert (cdn.stamp, cdn.trial_open) == (stamp, False)
        assert cdn.log()[-2:] == [f"restart {UNIT}", f"start {UNIT}"]
    cdn.deploy_configuration("new = 1\n")
    cdn.ok("cc")
    assert cdn.history == ["aa", "cc"]


def test_a_configuration_that_makes_the_same_release_ill_is_taken_back(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.deploy_configuration("new = 1\n")
    cdn.command("cdn-host", HEALTH + '! grep -q new "$2" || { echo "disk: full"; exit 1; }\n')
    assert "disk: full; release aa runs again, with its configuration" in cdn.refused("aa")
    assert cdn.configuration == "mine = 1\n"


def test_without_an_earlier_release_it_stays_and_is_not_taken_for_done(cdn: Cdn) -> None:
    (cdn.units / "sick-aa").touch()
    for _ in range(2):
        assert "it stays, as there is no earlier one to go back to" in cdn.refused("aa")
        assert (cdn.current, cdn.trial_open) == ("aa", True)
    # Nor is it what a later one is taken back to.
    (cdn.units / "sick-bb").touch()
    assert "no earlier one" in cdn.refused("bb")
    cdn.ok("cc")
    assert cdn.history == ["cc"]


def test_an_earlier_release_that_is_ill_as_well_is_said_and_nothing_is_taken_for_done(cdn: Cdn) -> None:
    cdn.ok("aa")
    for id in ("aa", "bb"):
        (cdn.units / f"dead-{id}").touch()
    assert "release aa does not come back either: webp-converter.service does not come back" in cdn.refused(
        "bb"
    )
    assert cdn.trial_open
    cdn.ok("cc")


@pytest.mark.parametrize("mended", [True, False])
def test_what_a_deploy_that_was_killed_has_left_is_no_release_to_go_back_to(cdn: Cdn, mended: bool) -> None:
    cdn.ok("aa")
    cdn.deploy_configuration("new = 1\n")
    # Killed while it waits for the health of bb.
    killing = (
        "#!/bin/sh\n[ $# -gt 2 ] || { echo none; exit 0; }\nread script < $UNITS/script\nkill -9 $script\n"
    )
    cdn.command("cdn-host", killing)
    script = cdn.script(switch_script("bb", healthy_within_s=1, restart=True))
    assert cdn.run(f"echo $$ > $UNITS/script\n{script}").returncode == -9
    assert (cdn.current, cdn.trial_open) == ("bb", True)
    cdn.command("cdn-host", HEALTH)
    if mended:
        cdn.ok("cc")
        assert (cdn.history, cdn.configuration) == (["aa", "cc"], "new = 1\n")
        return
    (cdn.units / "sick-cc").touch()
    assert "release aa runs again, with its configuration" in cdn.refused("cc")
    assert (cdn.current, cdn.history, cdn.configuration) == ("aa", ["aa"], "mine = 1\n")


def test_going_back_first_takes_back_what_a_killed_deploy_has_left(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.ok("bb")
    cdn.deploy_configuration("refused = 1\n")
    cdn.ok("aa", back=True)
    assert cdn.configuration == "mine = 1\n"


def test_a_release_that_refuses_the_configuration_is_not_gone_back_to(cdn: Cdn) -> None:
    cdn.ok("aa")
    cdn.ok("bb")
    cdn.configure("refused = 1\n")
    (cdn.units / "log").unlink()
    said = cdn.refused("aa", back=True)
    assert said.startswith("release aa refuses the configuration that is deployed: ")
    assert "what is this?" in said
    assert len(said.splitlines()) == 1
    assert (cdn.current, cdn.history, cdn.trial_open) == ("bb", ["aa", "bb"], False)
    assert not (cdn.units / "log").exists()


def test_the_journal_of_a_rollout_takes_back_a_release_too(cdn: Cdn) -> None:
    cdn.ok("aa")
    before = (cdn.current, cdn.history, cdn.stamp)
    (cdn.state / "journal").mkdir()
    cdn.deploy_configuration("new = 1\n")
    cdn.ok("bb")
    cdn.deploy_configuration("newer = 1\n")
    assert cdn.trial_open
    cdn.done(cdn.script(undo_script()))
    assert (cdn.current, cdn.history, cdn.stamp) == before
    assert (cdn.configuration, cdn.trial_open) == ("mine = 1\n", False)


def test_the_last_releases_are_kept_in_the_order_in_which_they_were_current(cdn: Cdn) -> None:
    cdn.install("dd", "ee")
    for id in ("dd", "cc", "bb", "aa"):
        cdn.ok(id)
    assert cdn.surplus(5) == set()
    assert cdn.surplus(4) == {"ee"}  # was never current
    assert cdn.surplus(3) == {"dd", "ee"}
    cdn.done(cdn.script(prune_script(3)))
    assert {path.name for path in (cdn.home / "releases").iterdir()} == {"aa", "bb", "cc"}
    assert cdn.surplus(3) == set()


def test_what_is_needed_is_never_removed(cdn: Cdn) -> None:
    for id in ("aa", "bb", "cc"):
        cdn.ok(id)
    assert cdn.surplus(1) == {"aa"}  # neither the current one nor the one before it
    (cdn.state / "journal").mkdir()
    cdn.install("dd", "ee")
    cdn.ok("dd")
    cdn.ok("ee")
    assert cdn.surplus(1) == {"aa", "bb"}  # an undo goes back to cc


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
    assert cdn.releases().complete == ("aa", "cc")
    assert cdn.surplus(3) == {"bb"}

from __future__ import annotations

from host_agent.mount.spool_rules import Identity, Journal, Pushed, Remote, Verdict, decide

HERE = Identity(inode=7, size=100, mtime_ns=5_000_000_000, ctime_ns=5_100_000_000)
CHANGED = Identity(inode=7, size=100, mtime_ns=5_000_000_000, ctime_ns=9_000_000_000)
PUSHED = Pushed(size=100, mtime=5, sha256="ab")
OURS = Remote(size=100, mtime=5)


def test_what_the_other_host_lacks_is_pushed() -> None:
    assert decide(HERE, None, None, None, None) is Verdict.CREATE
    assert decide(HERE, None, None, None, 50) is Verdict.CREATE


def test_what_it_has_from_before_is_compared_and_the_spool_wins() -> None:
    assert decide(HERE, None, None, Remote(100, 49), None) is Verdict.COMPARE
    assert decide(HERE, None, None, Remote(90, 49), 50) is Verdict.COMPARE


def test_what_the_site_has_written_through_the_mount_since_is_not_replaced() -> None:
    assert decide(HERE, None, None, Remote(90, 50), 50) is Verdict.DROP
    assert decide(CHANGED, HERE, PUSHED, Remote(90, 51), 50) is Verdict.DROP


def test_before_the_mount_a_clock_that_runs_ahead_means_nothing() -> None:
    assert decide(HERE, None, None, Remote(100, 2**40), None) is Verdict.COMPARE


def test_what_was_pushed_and_written_again_is_pushed_again() -> None:
    assert decide(CHANGED, HERE, PUSHED, OURS, 3) is Verdict.COMPARE


def test_what_was_pushed_and_is_unchanged_goes_whatever_the_other_host_has_now() -> None:
    for remote in (None, OURS, Remote(1, 1)):
        assert decide(HERE, HERE, PUSHED, remote, 50) is Verdict.DROP


def test_the_journal_tells_the_sites_removals_from_ours() -> None:
    lines = [
        Journal.push_line("kept", PUSHED),
        Journal.push_line("removed by the site", PUSHED),
        Journal.push_line("dropped by us \udcff", PUSHED),
        Journal.drop_line("dropped by us \udcff"),
        '["push", "cut o',
    ]
    journal = Journal.read(lines)
    assert journal.removed(["kept"]) == {"removed by the site": PUSHED}

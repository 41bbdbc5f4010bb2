"""Accounts, passwords, codes, sessions, and the audit log, without pages."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
import threading
from pathlib import Path

import pyotp
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from web_kit.accounts import IDLE_S, INVITED_S, LONGEST_S, Accounts
from web_kit.audit import Audit, as_data
from web_kit.database import Database
from web_kit.errors import RefusedError
from web_kit.limits import Limit
from web_kit.passwords import Passwords
from web_kit.roles import Role

from tests.kit.console import PASSWORD, QUICK, Clock
from web_kit import passwords


class World:
    """A database with one account, `ann`."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "state" / "kit.db"
        self.database = Database(self.file)
        self.database.migrate("web_kit")
        self.clock = Clock()
        self.audit = Audit(self.database, self.clock)
        self.accounts = Accounts(self.database, self.audit, QUICK, self.clock)
        self.first = self.accounts.accept(self.accounts.invite("", "", "ann", Role.ADMIN), PASSWORD, "", "")

    def cookie(self, code: str = "") -> str:
        return self.accounts.log_in("ann", PASSWORD, code, "1.2.3.4", "browser").cookie


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    "password", ["", "short", "x" * 257, "aaaaaaaaaaaaaaa", "ababababababab", "I am ANN, really"]
)
def test_a_password_that_is_easy_to_guess_is_refused(password: str) -> None:
    with pytest.raises(RefusedError):
        passwords.check("ann", password)


def test_hashes_are_argon2id_of_the_librarys_strength() -> None:
    made = Passwords().hash(PASSWORD)
    assert made.startswith("$argon2id$v=19$m=65536,")
    assert QUICK.is_outdated(made)


def test_a_hash_of_old_parameters_is_made_again_at_the_next_login(world: World) -> None:
    stronger = Accounts(world.database, world.audit, Passwords(), world.clock)
    before = world.accounts.own(world.first.who).password
    stronger.log_in("ann", PASSWORD, "", "", "")
    after = world.accounts.own(world.first.who).password
    assert before != after
    assert after.startswith("$argon2id$v=19$m=65536,")


def test_codes_are_those_of_the_rfc() -> None:
    # RFC 6238, appendix B, cut to six digits.
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert passwords.step_of(secret, "287 082", 59.0) == 1
    assert passwords.step_of(secret, "287082", 59.0 + 30) == 1
    assert passwords.step_of(secret, "287082", 59.0 + 60) is None
    assert passwords.step_of(secret, "", 59.0) is None
    assert passwords.step_of(secret, "٢٨٧٠٨٢", 59.0) is None


def test_a_code_is_needed_and_good_once(world: World) -> None:
    secret = passwords.new_secret()
    now = pyotp.TOTP(secret).at(int(world.clock.now))
    with pytest.raises(RefusedError, match="code is wrong"):
        world.accounts.use_authenticator(world.first.who, "", PASSWORD, secret, "000000x")
    with pytest.raises(RefusedError, match="password is wrong"):
        world.accounts.use_authenticator(world.first.who, "", "another one", secret, now)
    world.accounts.use_authenticator(world.first.who, "", PASSWORD, secret, now)
    # The one that was used to begin is used.
    for code in ("", "12345", now):
        with pytest.raises(RefusedError, match="wrong"):
            world.cookie(code)
    world.clock.now += 30
    later = pyotp.TOTP(secret).at(int(world.clock.now))
    assert world.cookie(later)
    with pytest.raises(RefusedError, match="wrong"):
        world.cookie(later)


def test_sessions_end_by_rest_by_age_and_by_a_new_password(world: World) -> None:
    cookie, other = world.cookie(), world.cookie()
    world.clock.now += IDLE_S + 1
    assert world.accounts.of_cookie(cookie) is None
    cookie, other = world.cookie(), world.cookie()
    for _ in range(LONGEST_S // 3600):
        assert world.accounts.of_cookie(cookie)
        world.clock.now += 3600
    world.clock.now += 1
    assert world.accounts.of_cookie(cookie) is None
    cookie, other = world.cookie(), world.cookie()
    who = world.accounts.of_cookie(cookie)
    assert who
    world.accounts.change_password(who, "", PASSWORD, "quite another phrase")
    assert world.accounts.of_cookie(cookie)
    assert world.accounts.of_cookie(other) is None


def test_somebody_ends_own_sessions_only(world: World) -> None:
    link = world.accounts.invite("ann", "", "bob", Role.VIEWER)
    bob = world.accounts.accept(link, PASSWORD, "", "")
    world.accounts.end_session(bob.who, "", world.first.who.session)
    assert world.accounts.of_cookie(world.first.cookie)
    world.accounts.end_sessions(world.first.who, "", bob.who.account)
    assert world.accounts.of_cookie(bob.cookie) is None


def test_a_link_ends_by_time_and_a_new_one_ends_it(world: World) -> None:
    first = world.accounts.invite("", "", "bob", Role.VIEWER)
    second = world.accounts.invite("", "", "bob", Role.VIEWER)
    with pytest.raises(RefusedError):
        world.accounts.invitation(first)
    world.clock.now += INVITED_S + 1
    with pytest.raises(RefusedError):
        world.accounts.accept(second, PASSWORD, "", "")
    with pytest.raises(RefusedError, match="there already"):
        world.accounts.invite("", "", "ann", Role.VIEWER)
    with pytest.raises(RefusedError, match="no account"):
        world.accounts.invite("", "", "bob", Role.VIEWER, reset=True)
    for name in ("", "Ann", "a b", "../x", "a\n", "x" * 65):
        with pytest.raises(RefusedError, match="a name has"):
            world.accounts.invite("", "", name, Role.VIEWER)


def test_a_reset_ends_sessions_tokens_and_authenticator_and_keeps_the_role(world: World) -> None:
    who = world.first.who
    token = world.accounts.make_token(who, "", "cron", ["status"], 1, ["status"])
    secret = passwords.new_secret()
    code = pyotp.TOTP(secret).at(int(world.clock.now))
    world.accounts.use_authenticator(who, "", PASSWORD, secret, code)
    link = world.accounts.invite("", "", "ann", Role.VIEWER, reset=True)
    assert world.accounts.of_cookie(world.first.cookie)
    made = world.accounts.accept(link, "quite another phrase", "", "")
    assert made.who.role == Role.ADMIN
    assert world.accounts.of_cookie(world.first.cookie) is None
    assert world.accounts.of_token(token) is None
    assert world.accounts.own(made.who).totp_secret == ""


def test_tokens_end_by_time_and_by_their_owner(world: World) -> None:
    who = world.first.who
    token = world.accounts.make_token(who, "", "cron", ["status"], 2, ["status", "users"])
    found = world.accounts.of_token(token)
    assert found
    assert found.may(Role.ADMIN, "status")
    assert not found.may(Role.VIEWER, "users")
    world.clock.now += 2 * 86400 + 1
    assert world.accounts.of_token(token) is None
    again = world.accounts.make_token(who, "", "cron", ["status"], 2, ["status"])
    world.accounts.end_token(who, "", world.accounts.tokens(who)[-1].id)
    assert world.accounts.of_token(again) is None
    for name, scopes, days in (("", ["status"], 1), ("x", [], 1), ("x", ["all"], 1), ("x", ["status"], 366)):
        with pytest.raises(RefusedError):
            world.accounts.make_token(who, "", name, scopes, days, ["status"])


def test_what_is_in_the_file_lets_nobody_in(world: World) -> None:
    cookie = world.cookie()
    token = world.accounts.make_token(world.first.who, "", "cron", ["status"], 1, ["status"])
    link = world.accounts.invite("", "", "bob", Role.VIEWER)
    world.database.close()
    data = b"".join(path.read_bytes() for path in world.file.parent.iterdir())
    for secret in (cookie, token, link, PASSWORD):
        assert secret.encode() not in data
    assert {stat.S_IMODE(path.stat().st_mode) for path in world.file.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(world.file.parent.stat().st_mode) == 0o700


def test_tries_at_once_are_no_more_than_one_after_the_other(world: World) -> None:
    refused: list[int] = []

    def attempt() -> None:
        try:
            world.accounts.log_in("ann", "wrong password", "", "1.2.3.4", "")
        except RefusedError as error:
            refused.append(error.status)

    threads = [threading.Thread(target=attempt) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(refused) == [401] * 5 + [429] * 15


@pytest.mark.parametrize(
    ("failed_at", "wait_s"),
    [([], 0), ([80.0], 0), ([80.0, 90.0], 40.0), ([10.0, 90.0], 0), ([90.0, 60.0, 80.0], 40.0)],
)
def test_how_long_to_wait(failed_at: list[float], wait_s: float) -> None:
    assert Limit(2, 60).wait_s(failed_at, 100.0) == wait_s


# The audit log


def test_the_log_can_not_be_changed_by_the_program(world: World) -> None:
    for line in ("UPDATE audit SET who='x'", "DELETE FROM audit"):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            world.database.engine.begin() as connection,
        ):
            connection.exec_driver_sql(line)


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("UPDATE audit SET who='eve' WHERE number=3", 3),
        ("UPDATE audit SET detail=detail || ' ' WHERE number=4", 4),
        ("DELETE FROM audit WHERE number=2", 2),
        ("DELETE FROM audit WHERE number=1", 1),
        ("UPDATE audit SET number=100 WHERE number=5", 5),
        ("UPDATE audit SET at=at+1 WHERE number=6", 6),
    ],
)
def test_the_entry_that_was_tampered_with_is_named(world: World, tampering: str, broken: int) -> None:
    for number in range(6):
        world.audit.write("ann", "1.2.3.4", "test", f"target {number}")
    assert world.audit.verify().broken is None
    _tamper(world, tampering)
    assert world.audit.verify().broken == broken


def test_what_was_cut_off_shows_by_an_earlier_hash(world: World) -> None:
    world.audit.write("ann", "", "test")
    head = world.audit.verify().head
    world.audit.write("ann", "", "test")
    assert world.audit.verify(head).broken is None
    _tamper(world, "DELETE FROM audit WHERE number >= 3")
    assert world.audit.verify().broken is None
    assert world.audit.verify(head).broken == 3


def _tamper(world: World, line: str) -> None:
    """As somebody with the file does."""
    with sqlite3.connect(world.file) as file:
        for verb in ("update", "delete"):
            file.execute(f"DROP TRIGGER audit_no_{verb}")
        file.execute(line)


def test_entries_of_many_writers_make_one_chain(world: World) -> None:
    def write() -> None:
        for _ in range(10):
            world.audit.write("ann", "", "test")

    before = world.audit.verify().count
    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = world.audit.verify()
    assert (found.count, found.broken) == (before + 40, None)


def test_entries_are_found_by_their_text_the_newest_first(world: World) -> None:
    for number in range(3):
        world.audit.write("ann", "", "job.apply", f"100%_{number}", detail="Ёлка")
    found = [one.target for one in world.audit.search("100%_")]
    assert found == ["100%_2", "100%_1", "100%_0"]
    assert not world.audit.search("100__")
    assert [one.target for one in world.audit.search("job", before=world.audit.search()[0].number)] == found[
        1:
    ]
    assert len(world.audit.search("", who="ann", most=2)) == 2


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("ёлка", True),  # also of letters that SQLite doesn't know small and large
        ("JOB.app", True),
        ("y:", True),  # too short for the index
        ("b", True),
        ('say "hi', True),
        ('"', True),
        ("job OR nothing", False),
        ("nothing* OR job", False),
        ("detail:hi", False),
        ("job.apply say", False),  # not in one field
        ("jo\0", False),
        ("", True),
    ],
)
def test_a_text_is_found_as_it_is(world: World, wanted: str, found: bool) -> None:
    world.audit.write("bob", "", "job.apply", "ЁЛКА", detail='say "hi" OR y:')
    entries = world.audit.search(wanted, most=1)
    assert [one.who for one in entries] == (["bob"] if found else [])


def test_a_text_is_found_of_one_person_among_many_of_others(world: World) -> None:
    world.audit.write("eve", "", "job.apply")
    for _ in range(5):
        world.audit.write("ann", "", "job.apply")
    assert [one.who for one in world.audit.search("apply", who="eve", most=2)] == ["eve"]


def test_entries_of_before_the_index_are_found(tmp_path: Path) -> None:
    database = Database(tmp_path / "old.db")
    database.migrate("web_kit", "0001")
    with database.writing() as work:
        columns = ("number", "at", "who", "address", "what", "target", "result", "detail", "hash")
        values = "7, 0, 'ann', '', 'login', 'old', 'ok', '', ''"
        work.execute(text(f"INSERT INTO audit ({', '.join(columns)}) VALUES ({values})"))
    database.migrate("web_kit")
    assert [one.number for one in Audit(database).search("old")] == [7]


def test_what_fails_leaves_no_entry(world: World) -> None:
    before = world.audit.verify().count
    with pytest.raises(RefusedError, match="no such account"):
        world.accounts.change(world.first.who, "", 999, Role.VIEWER, disabled=False)
    assert world.audit.verify().count == before


def test_an_entry_that_was_written_again_with_its_own_hash_shows_at_the_next(world: World) -> None:
    for number in range(4):
        world.audit.write("ann", "", "test", f"target {number}")
    entries = list(world.audit.entries())
    before, forged = entries[2].hash, as_data(entries[3]) | {"who": "eve"}
    fields = [before, *(value for name, value in forged.items() if name != "hash")]
    hashed = hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()
    _tamper(world, f"UPDATE audit SET who='eve', hash='{hashed}' WHERE number=4")
    assert world.audit.verify().broken == 5

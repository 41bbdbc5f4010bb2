"""Accounts: logging in, what somebody may change of one's own, and what an admin may.

Each function that changes something records it in the audit log in the same transaction.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session as Transaction

from web_kit import limits, passwords
from web_kit.audit import Audit
from web_kit.database import Database
from web_kit.errors import RefusedError
from web_kit.models import Account, Failure, Invitation, Session, Token
from web_kit.passwords import Passwords
from web_kit.roles import Role, Who

IDLE_S: Final = 2 * 3600
"""After which a session ends by itself."""

LONGEST_S: Final = 12 * 3600
"""Of a session, however busy."""

INVITED_S: Final = 24 * 3600
TOKEN_DAYS: Final = 365
TOKEN_PREFIX: Final = "bxc_"  # noqa: S105 -- scanners of leaked secrets know tokens by it

_SEEN_S = 60
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Login:
    """What a browser that has logged in gets."""

    cookie: str
    who: Who


class Accounts:
    """The accounts of one database."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        hashes: Passwords | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._audit = audit
        self._hashes = hashes or Passwords()
        self._clock = clock

    # Invitations

    def invite(self, by: str, address: str, name: str, role: Role, *, reset: bool = False) -> str:
        """What is to be in a link by which somebody sets a password, once.

        :param reset: for an account that is there: sets a new password, and removes its authenticator.
        :raises RefusedError: the name can't be one, or is taken.
        """
        if not _NAME.fullmatch(name):
            raise RefusedError(422, "a name has 1 to 64 of a-z, 0-9 and . _ @ -")
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        with self._database.writing() as work:
            account = _named(work, name)
            if account and not reset:
                raise RefusedError(409, "{name} is there already", name=name)
            if reset and not account:
                raise RefusedError(404, "there is no account {name}", name=name)
            work.execute(delete(Invitation).where((Invitation.name == name) | (Invitation.ends < now)))
            kept = account.role if account else role.value
            work.add(Invitation(digest=_digest(secret), name=name, role=kept, ends=now + INVITED_S))
            what = "account.reset" if reset else "account.invite"
            self._audit.add(work, by, address, what, name, detail=kept)
        return secret

    def invitation(self, secret: str) -> Invitation:
        """
        :raises RefusedError: there is none, or it was used, or is over.
        """
        with self._database.reading() as work:
            return self._invitation(work, secret)

    def _invitation(self, work: Transaction, secret: str) -> Invitation:
        found = work.get(Invitation, _digest(secret))
        if found is None or found.ends < self._clock():
            raise RefusedError(404, "this link was used, or is over; ask for another one")
        return found

    def accept(self, secret: str, password: str, address: str, agent: str) -> Login:
        """Sets the password of the account that the link is for, and logs in.

        :raises RefusedError: the link is no longer good, or the password is refused.
        """
        invited = self.invitation(secret)
        passwords.check(invited.name, password)
        hashed = self._hashes.hash(password)
        with self._database.writing() as work:
            invited = self._invitation(work, secret)
            work.delete(invited)
            account = _named(work, invited.name)
            if account is None:
                account = Account(name=invited.name, role=invited.role, created=self._clock())
                account.language, account.disabled = "", False
                work.add(account)
            account.password, account.totp_secret, account.totp_step = hashed, "", 0
            work.flush()
            _end_sessions(work, account)
            work.execute(delete(Token).where(Token.account_id == account.id))
            self._audit.add(work, account.name, address, "account.password", account.name, detail="by a link")
            return self._begin(work, account, address, agent)

    @property
    def are_there(self) -> bool:
        """Whether there is anybody yet."""
        with self._database.reading() as work:
            return work.scalars(select(Account.id).limit(1)).first() is not None

    # Logging in

    def log_in(self, name: str, password: str, code: str, address: str, agent: str) -> Login:
        """
        :raises RefusedError: one of these is wrong (which, isn't told), or there were too many tries.
        """
        name = name.strip().casefold()[:64]
        tried = self._try(name, address)
        with self._database.reading() as work:
            account = _named(work, name)
        right = self._hashes.is_right(account.password if account else None, password)
        login = None
        with self._database.writing() as work:
            account = _named(work, name)
            if right and account and not account.disabled and self._code_is_right(account, code):
                if self._hashes.is_outdated(account.password):
                    account.password = self._hashes.hash(password)
                work.execute(delete(Failure).where(Failure.counted == tried))
                self._audit.add(work, name, address, "login", name)
                login = self._begin(work, account, address, agent)
            else:
                # A name that nobody has may be a password that was typed in the wrong field.
                self._audit.add(work, name if account else "?", address, "login", result="refused")
        if login is None:
            raise RefusedError(401, "name, password or code are wrong")
        return login

    def _try(self, name: str, address: str) -> str:
        """Counts a try before it is judged, so that many at once are no more than one after the other.

        :returns: what is counted of this name from this address.
        :raises RefusedError: there were too many.
        """
        now = self._clock()
        rules = limits.of_login(name, address)
        with self._database.writing() as work:
            oldest = now - max(one.within_s for one in rules.values())
            work.execute(delete(Failure).where(Failure.at < oldest))
            waits = []
            for counted, limit in rules.items():
                query = (
                    select(Failure.at)
                    .where(Failure.counted == counted)
                    .order_by(Failure.at.desc())
                    .limit(limit.failures)
                )
                waits.append(limit.wait_s(work.scalars(query).all(), now))
            if not any(waits):
                work.add_all(Failure(counted=counted, at=now) for counted in rules)
        if wait := max(waits):
            raise RefusedError(
                429, "too many tries; the next one in {minutes} min", minutes=math.ceil(wait / 60)
            )
        return next(iter(rules))

    def _code_is_right(self, account: Account, code: str) -> bool:
        if not account.totp_secret:
            return True
        step = passwords.step_of(account.totp_secret, code, self._clock())
        if step is None or step <= account.totp_step:
            return False
        account.totp_step = step
        return True

    def _begin(self, work: Transaction, account: Account, address: str, agent: str) -> Login:
        """A new session: what a browser had before is never made one."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        session = Session(
            digest=_digest(cookie),
            account=account,
            csrf=secrets.token_urlsafe(32),
            created=now,
            seen=now,
            address=address[:255],
            agent=agent[:255],
        )
        work.add(session)
        work.execute(delete(Session).where(_over(now)))
        work.flush()
        return Login(cookie, _who(session))

    def of_cookie(self, cookie: str) -> Who | None:
        """Whose session a cookie is of; None: of none."""
        now = self._clock()
        with self._database.reading() as work:
            session = work.get(Session, _digest(cookie))
        if session is None or session.account.disabled:
            return None
        if session.seen + IDLE_S < now or session.created + LONGEST_S < now:
            return None
        if session.seen + _SEEN_S < now:
            with self._database.writing() as work:
                if again := work.get(Session, session.digest):
                    again.seen = now
        return _who(session)

    def of_token(self, token: str) -> Who | None:
        """Whose program bears a token; None: nobody's."""
        now = self._clock()
        with self._database.reading() as work:
            found = work.scalars(select(Token).where(Token.digest == _digest(token))).first()
        if found is None or found.account.disabled or found.ends < now:
            return None
        if found.used + _SEEN_S < now:
            with self._database.writing() as work:
                if again := work.get(Token, found.id):
                    again.used = now
        account = found.account
        return Who(
            account.id,
            account.name,
            Role(account.role),
            account.language,
            scopes=frozenset(found.scopes.split()),
        )

    def log_out(self, who: Who, address: str) -> None:
        self.end_session(who, address, who.session)

    # One's own account

    def own(self, who: Who) -> Account:
        with self._database.reading() as work:
            return _own(work, who)

    def change_password(self, who: Who, address: str, old: str, new: str) -> None:
        """Also ends all other sessions.

        :raises RefusedError: the old one is wrong, or the new one is refused.
        """
        passwords.check(who.name, new)
        self._confirm(who, address, old)
        hashed = self._hashes.hash(new)
        with self._database.writing() as work:
            account = _own(work, who)
            account.password = hashed
            _end_sessions(work, account, but=who.session)
            self._audit.add(work, who.name, address, "account.password", who.name)

    def _confirm(self, who: Who, address: str, password: str) -> None:
        """
        :raises RefusedError: it isn't the account's: a browser that somebody left open isn't enough.
        """
        tried = self._try(who.name, address)
        if not self._hashes.is_right(self.own(who).password, password):
            self._audit.write(who.name, address, "account.confirm", who.name, result="refused")
            raise RefusedError(403, "the password is wrong")
        with self._database.writing() as work:
            work.execute(delete(Failure).where(Failure.counted == tried))

    def use_authenticator(self, who: Who, address: str, password: str, secret: str, code: str) -> None:
        """Asks for codes of an authenticator from now on.

        :raises RefusedError: it doesn't show the right code yet, or the password is wrong.
        """
        self._confirm(who, address, password)
        step = (
            passwords.step_of(secret, code, self._clock()) if re.fullmatch(r"[A-Z2-7]{32}", secret) else None
        )
        if step is None:
            raise RefusedError(422, "the code is wrong; is the clock of the telephone right?")
        with self._database.writing() as work:
            account = _own(work, who)
            account.totp_secret, account.totp_step = secret, step
            self._audit.add(work, who.name, address, "account.authenticator", who.name)

    def drop_authenticator(self, who: Who, address: str, password: str) -> None:
        self._confirm(who, address, password)
        with self._database.writing() as work:
            _own(work, who).totp_secret = ""
            self._audit.add(work, who.name, address, "account.authenticator", who.name, detail="removed")

    def choose_language(self, who: Who, code: str) -> None:
        with self._database.writing() as work:
            _own(work, who).language = code

    def sessions(self, who: Who) -> Sequence[Session]:
        with self._database.reading() as work:
            mine = (Session.account_id == who.account) & ~_over(self._clock())
            return work.scalars(select(Session).where(mine).order_by(Session.seen.desc())).all()

    def end_session(self, who: Who, address: str, digest: str) -> None:
        """Ends one of one's own sessions; one that is over already stays so."""
        with self._database.writing() as work:
            session = work.get(Session, digest)
            if session and session.account_id == who.account:
                work.delete(session)
                self._audit.add(work, who.name, address, "logout", who.name, detail=session.address)

    def tokens(self, who: Who) -> Sequence[Token]:
        with self._database.reading() as work:
            return work.scalars(select(Token).where(Token.account_id == who.account).order_by(Token.id)).all()

    def make_token(
        self, who: Who, address: str, name: str, scopes: Collection[str], days: int, known: Collection[str]
    ) -> str:
        """A token, which is shown once.

        :param known: all scopes that there are.
        :raises RefusedError: it can't be so.
        """
        if not name.strip() or len(name) > 64:
            raise RefusedError(422, "a token has a name of 1 to 64 characters")
        if not scopes or not set(scopes) <= set(known):
            raise RefusedError(422, "choose what the token is for")
        if not 1 <= days <= TOKEN_DAYS:
            raise RefusedError(422, "a token is good for 1 to {days} days", days=TOKEN_DAYS)
        token, now = TOKEN_PREFIX + secrets.token_urlsafe(32), self._clock()
        text = " ".join(sorted(scopes))
        with self._database.writing() as work:
            work.add(
                Token(
                    digest=_digest(token),
                    account=_own(work, who),
                    name=name.strip(),
                    scopes=text,
                    created=now,
                    ends=now + days * 86400,
                    used=0.0,
                )
            )
            self._audit.add(work, who.name, address, "token.make", name.strip(), detail=text)
        return token

    def end_token(self, who: Who, address: str, id: int) -> None:
        with self._database.writing() as work:
            token = work.get(Token, id)
            if token and token.account_id == who.account:
                work.delete(token)
                self._audit.add(work, who.name, address, "token.end", token.name)

    # What an admin does

    def all(self) -> Sequence[Account]:
        with self._database.reading() as work:
            return work.scalars(select(Account).order_by(Account.name)).all()

    def change(self, who: Who, address: str, id: int, role: Role, *, disabled: bool) -> None:
        """
        :raises RefusedError: nobody is there, or no admin would be left.
        """
        with self._database.writing() as work:
            account = work.get(Account, id)
            if account is None:
                raise RefusedError(404, "there is no such account")
            account.role, account.disabled = role.value, disabled
            work.flush()
            admins = (Account.role == Role.ADMIN.value) & ~Account.disabled
            if work.scalars(select(Account.id).where(admins).limit(1)).first() is None:
                raise RefusedError(409, "one admin must be left")
            if disabled:
                _end_sessions(work, account)
            detail = f"{role.value}{', disabled' if disabled else ''}"
            self._audit.add(work, who.name, address, "account.change", account.name, detail=detail)

    def end_sessions(self, who: Who, address: str, id: int) -> None:
        """Logs somebody out everywhere."""
        with self._database.writing() as work:
            if account := work.get(Account, id):
                _end_sessions(work, account)
                self._audit.add(work, who.name, address, "account.logout", account.name)


def _digest(secret: str) -> str:
    # They are 256 random bits: nothing slower is needed.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _named(work: Transaction, name: str) -> Account | None:
    return work.scalars(select(Account).where(Account.name == name)).first()


def _own(work: Transaction, who: Who) -> Account:
    return work.get_one(Account, who.account)


def _over(now: float):  # type: ignore[no-untyped-def] # a condition, whose type SQLAlchemy doesn't name
    return (Session.seen < now - IDLE_S) | (Session.created < now - LONGEST_S)


def _end_sessions(work: Transaction, account: Account, but: str = "") -> None:
    work.execute(delete(Session).where(Session.account_id == account.id, Session.digest != but))


def _who(session: Session) -> Who:
    account = session.account
    return Who(account.id, account.name, Role(account.role), account.language, session.digest, session.csrf)

"""The tables of accounts and of the audit log. Times are seconds of the wall clock, UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, ForeignKey, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s"})
    type_annotation_map = {float: Double, str: String(255)}  # noqa: RUF012 -- SQLAlchemy's own way


class Account(Base):
    """Somebody who may log in."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    password: Mapped[str]
    """Its hash."""
    totp_secret: Mapped[str] = mapped_column(String(64), default="")
    """Of an authenticator; empty: none is used."""
    totp_step: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of the last code that was used: none is good twice."""
    language: Mapped[str] = mapped_column(String(8), default="")
    disabled: Mapped[bool] = mapped_column(default=False)
    created: Mapped[float]


class Session(Base):
    """A browser that somebody has logged in with."""

    __tablename__ = "session"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of what the cookie has: whoever reads the table can't use it."""
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    account: Mapped[Account] = relationship(lazy="joined")
    csrf: Mapped[str]
    created: Mapped[float]
    seen: Mapped[float]
    address: Mapped[str]
    agent: Mapped[str]


class Token(Base):
    """What a program of somebody's logs in with."""

    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    account: Mapped[Account] = relationship(lazy="joined")
    name: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str]
    """With a space between them."""
    created: Mapped[float]
    ends: Mapped[float]
    used: Mapped[float] = mapped_column(default=0.0)


class Invitation(Base):
    """A link by which somebody sets a password, once."""

    __tablename__ = "invitation"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    ends: Mapped[float]


class Failure(Base):
    """A try to log in that has failed, or has not ended yet."""

    __tablename__ = "failure"

    id: Mapped[int] = mapped_column(primary_key=True)
    counted: Mapped[str] = mapped_column(String(400), index=True)
    at: Mapped[float]


class Entry(Base):
    """What somebody did. Never changed and never removed."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_who_number", "who", "number"),)

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """From 1, without a gap."""
    at: Mapped[float]
    who: Mapped[str] = mapped_column(String(64))
    address: Mapped[str]
    what: Mapped[str] = mapped_column(String(64))
    """Such as `login`, or `job.apply`."""
    target: Mapped[str] = mapped_column(String(400))
    result: Mapped[str] = mapped_column(String(16))
    """`ok`, `refused` or `failed`."""
    detail: Mapped[str] = mapped_column(Text)
    hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the fields above and of the entry before."""

"""The console's own tables. Times are seconds of the wall clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Double, ForeignKey, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    metadata = MetaData()


class Fired(Base):
    """An alert that fires, or has fired."""

    __tablename__ = "fired"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    began: Mapped[float] = mapped_column(Double, primary_key=True)
    """Seconds of the wall clock."""
    ended: Mapped[float | None] = mapped_column(Double)
    """When it was first seen no longer; None: it fires."""
    name: Mapped[str] = mapped_column(String(128))
    severity: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(255))
    summary: Mapped[str] = mapped_column(Text)
    runbook: Mapped[str] = mapped_column(String(128))

    def as_data(self) -> dict[str, Any]:
        return {column.name: getattr(self, column.name) for column in self.__table__.columns}


class Job(Base):
    """Something that is done, or is to be done, to the hosts."""

    __tablename__ = "job"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), index=True)
    by: Mapped[str] = mapped_column(String(64))
    """Who asked for it."""
    address: Mapped[str] = mapped_column(String(255))
    """Where that came from."""
    limit: Mapped[str] = mapped_column(String(400), default="")
    """Names of hosts or groups, with a space between them; empty: all."""
    release: Mapped[str] = mapped_column(String(64), default="")
    """To go back to; empty: the one before."""
    plan_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    """The job that made the plan that is applied."""
    approved_by: Mapped[str] = mapped_column(String(64), default="")
    asked: Mapped[float] = mapped_column(Double)
    began: Mapped[float | None] = mapped_column(Double)
    ended: Mapped[float | None] = mapped_column(Double)
    number: Mapped[int] = mapped_column(default=0)
    """Of the step that runs."""
    total: Mapped[int] = mapped_column(default=0)
    step: Mapped[str] = mapped_column(Text, default="")
    found: Mapped[int | None]
    """Changes that it made or would make, or differences; None: nothing of that kind."""
    why: Mapped[str] = mapped_column(Text, default="")
    """It did not succeed."""
    log: Mapped[str] = mapped_column(Text, default="")
    """A file of this machine with all that was said."""

    def as_data(self) -> dict[str, Any]:
        return {column.name: getattr(self, column.name) for column in self.__table__.columns}


class JobLine(Base):
    """What a job told as it went on."""

    __tablename__ = "job_line"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), index=True)
    text: Mapped[str] = mapped_column(Text)


class JobResult(Base):
    """What a job found: apart from it, as it may be long."""

    __tablename__ = "job_result"

    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), primary_key=True)
    hosts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """By host what differs, as `drift --json` has it."""
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """As `plan --save` writes it."""

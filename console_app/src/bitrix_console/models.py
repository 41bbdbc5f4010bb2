"""The console's own tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double, MetaData, String, Text
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

"""The database of an application: SQLite, in a file that nobody else may read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.orm import Session


class Database:
    """Connections to one database."""

    def __init__(self, file: Path) -> None:
        """
        :param file: made where it isn't there, with its directory.
        """
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives the files beside it the same mode.
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
        self.engine = create_engine(f"sqlite:///{file}")
        event.listen(self.engine, "connect", _prepare)
        event.listen(self.engine, "begin", _begin)
        self._writer = self.engine.execution_options(writes=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction, from its beginning on the only one that writes: what it reads is still so when it
        writes."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self, package: str, revision: str = "head") -> None:
        """Brings the tables of a package to a revision, by default the newest; see its `migrations/`."""
        config = Config()
        config.set_main_option("script_location", f"{package}:migrations")
        with self._writer.begin() as connection:
            config.attributes["connection"] = connection
            config.attributes["table"] = f"{package}_revision"
            command.upgrade(config, revision)

    def close(self) -> None:
        self.engine.dispose()


def change_tables() -> None:
    """What the `migrations/env.py` of each package does."""
    attributes = context.config.attributes
    context.configure(connection=attributes["connection"], version_table=attributes["table"])
    with context.begin_transaction():
        context.run_migrations()


def _prepare(connection: Any, _: object) -> None:
    # The driver would begin a transaction only at the first write; `_begin` does it instead.
    connection.isolation_level = None
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {line}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

"""Alembic runs this module to change tables."""

from web_kit.database import change_tables

change_tables()

"""Foreseeable errors, each reported in one line."""

from bitrix_cdn.fleet import HostError


class MigrationError(HostError):
    """A failure whose message is one line that says what to do; the site goes on working as it did."""

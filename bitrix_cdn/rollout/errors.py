"""Foreseeable errors, each reported in one line."""

from collections.abc import Sequence

from bitrix_cdn import fleet


class RolloutError(fleet.HostError):
    """A failure whose message is one line.

    :param more: further lines that help to understand it.
    """

    def __init__(self, message: str, more: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.more = more


class RefusedError(RolloutError, fleet.RefusedError):
    """Nothing was begun, and nothing was changed on any host."""

"""What is refused, and why."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that isn't carried out; whoever sent it is told why, in their language."""

    def __init__(self, status: int, message: str, **values: object) -> None:
        """
        :param status: of HTTP.
        :param message: in English, as the tables of languages have it.
        :param values: of the message.
        """
        super().__init__(message.format(**values))
        self.status = status
        self.message = message
        self.values = values

"""Errors that an operator is told in one line."""

from __future__ import annotations

from pyinfra.api.exceptions import PyinfraError


class OneLineError(PyinfraError):
    """Ends a run with its message alone."""

    # pyinfra would put the file and the line that raised it before the message.
    __traceback__ = property(lambda self: None, lambda self, traceback: None)

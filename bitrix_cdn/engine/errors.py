"""Errors that are shown to the operator as one line."""

from __future__ import annotations

from pyinfra.api.exceptions import PyinfraError


class OneLineError(PyinfraError):
    """Ends a run with its message alone."""

    # pyinfra would put the file and the line that raised it before the message.
    __traceback__ = property(lambda self: None, lambda self, traceback: None)


class RefusalError(OneLineError):
    """Something on a host has to be repaired first.

    Raised by the body of an operation, it ends a run before its first change: see
    :mod:`bitrix_cdn.engine.prefetch`.
    """

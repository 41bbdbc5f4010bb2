"""What can go wrong and can be foreseen, said in one line."""

from hosts import HostError


class RolloutError(HostError):
    """A failure whose message is one line."""


class RefusedError(RolloutError):
    """Nothing was begun, and nothing was changed on any host."""

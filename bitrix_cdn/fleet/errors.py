"""Foreseeable errors of hosts, each reported in one line."""


class HostError(Exception):
    """A host, or the inventory, isn't as it must be; the message is one line that says which."""


class UsageError(HostError):
    """What was asked for can't be: the inventory, a name, an option. No host was connected to for it."""


class RefusedError(HostError):
    """Somebody else holds a host, or it isn't what the operator saw; nothing was changed."""

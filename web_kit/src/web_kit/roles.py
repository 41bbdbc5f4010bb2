"""Who may do what: a role is allowed all that the roles below it are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The lowest first."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Who:
    """Who asks: a person in a browser, or a program with a token of theirs."""

    account: int
    name: str
    role: Role
    language: str
    """Empty: the browser's."""
    session: str = ""
    """Of a browser; empty: a program."""
    csrf: str = ""
    """What each form of the session must bear."""
    scopes: frozenset[str] | None = None
    """Of a program's token; None: all."""

    def may(self, role: Role, scope: str) -> bool:
        """Whether this is allowed what needs a role, within a scope."""
        return self.role.includes(role) and (self.scopes is None or scope in self.scopes)

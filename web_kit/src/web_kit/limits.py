"""How often somebody may try to log in. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """So many failures within so many seconds; after that, a wait until the oldest is that old."""

    failures: int
    within_s: float

    def wait_s(self, failed_at: Sequence[float], now: float) -> float:
        """Seconds until the next try; 0: now.

        :param failed_at: when earlier tries failed, seconds of the wall clock.
        """
        recent = sorted(at for at in failed_at if at > now - self.within_s)
        if len(recent) < self.failures:
            return 0.0
        return recent[-self.failures] + self.within_s - now


def of_login(name: str, address: str) -> dict[str, Limit]:
    """The limits of a login, by what they count.

    Whoever tries many passwords for one account locks himself out, and not its owner elsewhere, unless he has
    many addresses; whoever tries many accounts is stopped by his address.
    """
    return {
        f"{name} from {address}": Limit(5, 900),
        f"from {address}": Limit(30, 900),
        f"{name} from anywhere": Limit(50, 3600),
    }

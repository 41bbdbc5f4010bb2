"""Two who would change the same host."""

from __future__ import annotations

from host_agent.lock import Holder

ANN = Holder("ann", "laptop", "2026-01-02 03:04:05 UTC", "rollout of inventories/it's a shop.py", "a" * 32)
BOB = Holder("bob", "ci", "2026-01-02 03:05:00 UTC", "rollout of inventories/shop.py", "b" * 32)

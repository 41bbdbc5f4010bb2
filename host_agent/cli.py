"""The command `cdn-host`: what the deploy and systemd run on a host.

See `cdn-host PART --help`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

PARTS = {
    "mount": ("host_agent.mount.cli", "the mounts' guard: run it, and tell how the mounts are"),
    "export": ("host_agent.export", "what is root's in the directory that the CDN host may read"),
    "backup": ("host_agent.backup.cli", "make, list, check and put back the backups of this host"),
    "audit": ("host_agent.audit.log", "tell who changed this host, and when"),
    "journal": ("host_agent.journal.cli", "take back what a deploy has done to this host"),
    "release": (
        "host_agent.release.cli",
        "the converter's releases: list them, and go from one to another",
    ),
    "integrity": ("host_agent.integrity", "whether programs are as their packages brought them"),
    "lock": ("host_agent.lock.cli", "who is at work on this host"),
    "health": ("host_agent.health.converter", "wait until the converter is healthy"),
    "redis": ("host_agent.redis.cli", "ask a Redis of this host, as redis-cli does"),
    "redis-users": ("host_agent.redis.users", "put together who may ask a Redis, and what"),
    "redis-mend": ("host_agent.health.redis_mend", "let a Redis start whose file a power cut damaged"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one part and returns its exit status; 2 for a wrong command."""
    part, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if part in ("-h", "--help"):
        print(f"usage: cdn-host PART ...\n\n{__doc__}\n")
        print("\n".join(f"  {name:12}{text}" for name, (_, text) in PARTS.items()))
        return 0
    if part not in PARTS:
        print(f"cdn-host: {part!r}: {', '.join(PARTS)} or --help is allowed", file=sys.stderr)
        return 2
    # Only the part that is wanted: a guard that runs for months needn't hold the rest in its memory.
    module = importlib.import_module(PARTS[part][0])
    status: int = module.main(rest[:-1])
    return status

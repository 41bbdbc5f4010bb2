"""The order of the hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Those that visitors can be led past come first, then the one that these get everything from. The balancer
# has no second to lead past it; it comes when all behind it work.
_ONE_BY_ONE = ("cdn", "bitrix", "monitoring")


def batches(
    groups: Mapping[str, Sequence[str]], *, size: int = 1, canary: str | None = None
) -> list[tuple[str, ...]]:
    """The hosts in the order of a rollout, each once; those of one batch are changed together.

    :param groups: the names of each group's hosts.
    :param size: how many edges make a batch, at least 1.
    :param canary: a host that comes before all others, alone.
    :raises ValueError: the canary is none of the hosts, or the size is none.
    """
    if size < 1:
        raise ValueError(f"{size} hosts make no batch; 1 or more are allowed")
    known = list(dict.fromkeys(name for group in groups.values() for name in group))
    if canary is not None and canary not in known:
        raise ValueError(f"{canary}: no such host; there are {', '.join(known)}")
    first = [canary] if canary else []
    last = [name for name in groups.get("balancer", ()) if name not in first]
    edges = [name for name in groups.get("edge", ()) if name not in (*first, *last)]
    order = [tuple(first)] if first else []
    order += [tuple(edges[start : start + size]) for start in range(0, len(edges), size)]
    taken = {*first, *last, *edges}
    for group in (*_ONE_BY_ONE, *(group for group in groups if group not in _ONE_BY_ONE)):
        for name in groups.get(group, ()):
            if name not in taken:
                taken.add(name)
                order.append((name,))
    return order + [(name,) for name in last]

"""Reads a host's exporters on the host itself, without Prometheus or an open port."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from bitrix_cdn.fleet import Remote
from bitrix_cdn.rollout.http import parse

# They listen on loopback or on the host's own address.
_ASK = """
for port in %s; do
    for address in 127.0.0.1 $(hostname -I); do
        if timeout 10 bash -c "exec 3<>/dev/tcp/$address/$port &&
            printf 'GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 &&
            cat <&3" 2>/dev/null; then break; fi
    done
    printf '\\0'
done
"""


def expositions(remote: Remote, ports: Sequence[int]) -> dict[int, str]:
    """What those exporters of a host say that answer, by port, in Prometheus' text format.

    :raises HostError: the host can't be reached.
    """
    output = remote.run(_ASK % " ".join(map(str, ports)), silence=60).out
    found = {}
    for port, told in zip(ports, output.split(b"\0"), strict=False):
        with contextlib.suppress(ValueError):
            answer = parse(told)
            if answer.status == 200:
                found[port] = answer.body.decode(errors="replace")
    return found

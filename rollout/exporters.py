"""What a host's exporters tell, asked on the host itself: so no Prometheus is needed, and no open port."""

from __future__ import annotations

from collections.abc import Sequence

from hosts import Remote

# They listen on loopback or on the host's own address.
_ASK = """
for port in %s; do
    for address in 127.0.0.1 $(hostname -I); do
        if timeout 10 bash -c "exec 3<>/dev/tcp/$address/$port &&
            printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3" 2>/dev/null; then break; fi
    done
    printf '\\0'
done
"""


def expositions(remote: Remote, ports: Sequence[int]) -> dict[int, str]:
    """What those exporters of a host say that answer, by port, in Prometheus' text format.

    :raises hosts.HostError: the host can't be reached.
    """
    output = remote.run(_ASK % " ".join(map(str, ports)), silence=60).out.decode(errors="replace")
    found = {}
    for port, answer in zip(ports, output.split("\0"), strict=False):
        head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
        if head.partition("\n")[0].split(" ")[1:2] == ["200"]:
            found[port] = body
    return found

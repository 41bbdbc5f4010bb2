"""What listens on the lab's hosts while they are deployed."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from tests.kit.lab import LabDriver

# A bare host may not have `ss`. What a package brings must not listen before nginx has files of ours. What
# does so listens for seconds; looking more often would slow down the deploy. Whether it is before that is
# asked last: what was seen by then was seen before.
_LOOP = """
while sleep 0.3; do
    seen=$(awk '$4 == "0A" { print $2 }' /proc/net/tcp /proc/net/tcp6)
    t=before; for f in /etc/nginx/conf.d/*.conf; do [ ! -e "$f" ] || t=after; done
    for socket in $seen; do echo $t $socket; done >> /run/listening
done
"""


@contextmanager
def listening(lab: str, hosts: Sequence[str]) -> Iterator[dict[str, set[tuple[str, str, int]]]]:
    """Notes what listens beyond loopback on each host: `before` or `after` nginx was configured, where."""
    seen: dict[str, set[tuple[str, str, int]]] = {}
    driver = LabDriver(lab)
    for host in hosts:
        driver.run("exec", host, "--", "systemd-run", "-q", "--unit=listening", "sh", "-c", _LOOP)
    try:
        yield seen
    finally:
        for host in hosts:
            driver.run("exec", host, "--", "systemctl", "stop", "listening")
            counted = Counter(driver.shell(host, "cat /run/listening").splitlines())
            # What is seen once is nginx checking a configuration: for a moment that opens its ports.
            seen[host] = set(beyond_loopback(line for line, times in counted.items() if times > 1))


def beyond_loopback(lines: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Reads lines of a word and an address as the kernel writes it."""
    for line in lines:
        when, _, socket = line.partition(" ")
        words, _, port = socket.partition(":")
        raw = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
        address = ipaddress.ip_address(raw)
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_loopback:
            yield when, str(mapped or address), int(port, 16)

"""Tries all TCP ports of an address, with Python's standard library alone: hosts run it from standard input.

    python3 - ADDRESS < dev/audit/scan.py

Prints the ports that take connections.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
from collections.abc import Iterable, Iterator

AT_ONCE = 400
PATIENCE = 2.0
"""Seconds that a port may leave a try unanswered."""


def reachable(address: str, ports: Iterable[int] = range(1, 65536)) -> Iterator[int]:
    """Those of the ports of an address that take connections."""
    waiting = iter(ports)
    left = True
    with selectors.DefaultSelector() as selector:
        while left or selector.get_map():
            while left and len(selector.get_map()) < AT_ONCE:
                port = next(waiting, 0)
                left = port > 0
                if left:
                    tried = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                    tried.setblocking(False)
                    tried.connect_ex((address, port))
                    selector.register(tried, selectors.EVENT_WRITE, (port, time.monotonic() + PATIENCE))
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    yield key.data[0]
                selector.unregister(key.fileobj)
                key.fileobj.close()
            for key in [one for one in selector.get_map().values() if one.data[1] < time.monotonic()]:
                assert isinstance(key.fileobj, socket.socket)
                selector.unregister(key.fileobj)
                key.fileobj.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", help="of IPv4 or IPv6")
    print(*sorted(reachable(parser.parse_args().address)))

"""The operator's own SSH connection."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager

from pyinfra.api import Host
from pyinfra.connectors.ssh import SSHConnector


def send_at_once(host: Host) -> None:
    """Sets TCP_NODELAY on the connection, which halves the time of each command.

    paramiko leaves Nagle's algorithm on, and every command waits for the other side's delayed
    acknowledgement (about 40 ms).
    """
    connector = host.connector
    if not isinstance(connector, SSHConnector) or connector.client is None:
        return
    transport = connector.client.get_transport()
    if transport is not None and isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def new_connection(host: Host) -> Generator[SSHConnector, None, None]:
    """A login of its own, beside the one that the deploy uses.

    :raises pyinfra.api.exceptions.ConnectError: the host lets nobody in.
    """
    connector = SSHConnector(host.state, host)
    try:
        connector.connect()
        yield connector
    finally:
        if connector.client is not None:
            connector.client.close()

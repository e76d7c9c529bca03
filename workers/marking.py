"""The marks of a rank's own connections: the DSCP of what it sends on each, in its sockets (`IP_TOS`).

gloo does not say which sockets are its own and has no option for their class, so its descriptors are taken
from outside. A mark can change while a connection is in use: packets that the kernel makes from then on have
it. Those that wait in the server's own queue keep theirs.
"""

import os
import socket
from collections.abc import Iterable

from controller.protocol import TcpConnection


class Marker:
    """Marks the connections of this process. Each begins with `control_dscp`, as acknowledgements have it."""

    def __init__(self, control_dscp: int) -> None:
        self._control_dscp = control_dscp
        self._sockets: dict[TcpConnection, socket.socket] = {}

    def take(self, connection: TcpConnection, fd: int) -> None:
        """Keep a duplicate of descriptor `fd`, on which this process sends on `connection`, and mark it.

        A duplicate, because the number may belong to another connection once its owner has closed it.
        """
        self._sockets[connection] = socket.socket(fileno=os.dup(fd))
        self.mark((connection,), self._control_dscp)

    def mark(self, connections: Iterable[TcpConnection], dscp: int) -> None:
        """Mark what is sent from now on. Raises `KeyError` for an unknown connection."""
        for connection in connections:
            self._sockets[connection].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos_of(dscp))


def tos_of(dscp: int) -> int:
    """The byte in the IP header: six bits of DSCP. The kernel keeps the two bits of ECN to itself."""
    return dscp << 2

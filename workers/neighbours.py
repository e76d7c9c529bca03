"""What servers hear of each other on the data network: a datagram a second from each to each.

The control plane may use another network, and a link that is cut closes no connection: without datagrams
nobody would know which server it was.
"""

import contextlib
import socket
from collections.abc import Iterable

from workers.marking import tos_of


class Neighbours:
    """The servers at the addresses `others`, as the one at `own` hears them. All use UDP port `port`.

    What is sent is marked with `dscp`, if there is one, so that no flow can starve it. Raises `OSError` if
    the port cannot be had.
    """

    def __init__(self, own: str, port: int, others: Iterable[str], dscp: int | None) -> None:
        self._others = tuple(others)
        self._port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if dscp is not None:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos_of(dscp))
            self._socket.bind((own, port))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def greet(self) -> None:
        """Send each of them a datagram. One that cannot be sent is lost, as on a link that is cut."""
        for address in self._others:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"\0", (address, self._port))

    def heard(self) -> tuple[str, ...]:
        """The addresses of those that were heard since the last call."""
        found: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                _, (address, _) = self._socket.recvfrom(16)
                found.add(address)
        return tuple(sorted(found.intersection(self._others)))

    def close(self) -> None:
        self._socket.close()

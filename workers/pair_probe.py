"""What a pair of servers can do: do marks survive on the way, and how much does one connection carry?

The receiver listens with UDP and TCP on one port. The sender sends datagrams with each mark, and then bytes
on a TCP connection for a while. The receiver says which marks it saw, and how fast the bytes came.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence

from workers.agent_protocol import PairSeen
from workers.marking import tos_of

_DATAGRAMS = 5  # of each mark: some may get lost
_GAP_S = 0.002
_CHUNK = 1 << 20
_PATIENCE_S = 5.0


def receive(address: str, seconds: float, listening: Callable[[int], None]) -> PairSeen:
    """Listen at `address` on a free port, call `listening` with it, and return what a `send` to it brought.

    Raises `OSError`, for instance a `TimeoutError` if nobody comes.
    """
    with socket.create_server((address, 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        port = server.getsockname()[1]
        datagrams.bind((address, port))
        datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        server.settimeout(seconds + _PATIENCE_S)
        listening(port)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(seconds + _PATIENCE_S)
            count, begin = 0, time.monotonic()
            while part := connection.recv(_CHUNK):
                count += len(part)
            took = time.monotonic() - begin
        return PairSeen(dscps=_marks(datagrams), bytes=count, seconds=took)


def _marks(datagrams: socket.socket) -> dict[int, int]:
    """The DSCP that the datagrams of each mark had. Each says in its payload how it was marked."""
    datagrams.setblocking(False)
    seen: dict[int, int] = {}
    with contextlib.suppress(BlockingIOError):
        while True:
            data, ancillary, _, _ = datagrams.recvmsg(16, socket.CMSG_SPACE(1))
            for level, kind, value in ancillary:
                if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS) and len(data) == 1:
                    seen[data[0]] = struct.unpack("B", value[:1])[0] >> 2
    return seen


def send(own: str, address: str, port: int, dscps: Sequence[int], seconds: float) -> None:
    """Send from address `own` to a `receive`: datagrams of each mark, then bytes for `seconds`."""
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind((own, 0))
        for dscp in dscps:
            datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos_of(dscp))
            for _ in range(_DATAGRAMS):
                datagrams.sendto(bytes([dscp]), (address, port))
                time.sleep(_GAP_S)
    block = memoryview(bytearray(_CHUNK))
    with socket.create_connection(
        (address, port), timeout=_PATIENCE_S, source_address=(own, 0)
    ) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(block)

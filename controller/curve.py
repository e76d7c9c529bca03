"""Keys of a control plane that crosses a network: CURVE, ZeroMQ's encryption, and the end that connects.

Both ends prove that they have their secret keys, and all messages are encrypted. `controller.gate` is the end
that binds, and `testbed.cluster.keys` makes the files of the keys.
"""

from typing import Any, Final

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

MOST_BYTES: Final = 256 * 2**20
"""How large a message may be: the records of a rank at the end of a run are the largest."""

MOST_FRAME_BYTES: Final = 2**20
"""How large a frame of a message may be, encrypted. ZeroMQ makes room for one before it knows whether its
sender has a key, so this is what a stranger can make a process hold for each connection."""

_PIECE_BYTES: Final = 2**19

HELLO: Final = b""
"""What a peer that can be sent to says first: messages for it may have waited."""


_BROKEN: Final = 3


def frames(message: bytes) -> list[bytes]:
    """Return `message` in frames that the end that binds takes. The receiver joins them."""
    return [message[i : i + _PIECE_BYTES] for i in range(0, len(message), _PIECE_BYTES)] or [b""]


class ServerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the end that binds, in Z85. Only peers whose public key is in `allowed` may connect."""

    public: str
    secret: str
    allowed: tuple[str, ...]


class ClientKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of an end that connects, in Z85. It talks to nobody but the owner of the key `server`."""

    server: str
    public: str
    secret: str


class Handshakes:
    """Whether the peer that `socket` connects to takes its key. One thread uses both."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self._socket = socket
        events = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.HANDSHAKE_FAILED_AUTH
        events |= zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
        self._monitor: Any = socket.get_monitor_socket(events)
        self._broken = 0
        self._refused = False

    def refused(self) -> bool:
        """Whether the peer has refused the key, or has broken off several handshakes in a row, as one does
        that is not the owner of the key `server`."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            succeeded = event == zmq.Event.HANDSHAKE_SUCCEEDED
            self._broken = 0 if succeeded else self._broken + 1
            self._refused |= event == zmq.Event.HANDSHAKE_FAILED_AUTH
        return self._refused or self._broken >= _BROKEN

    def close(self) -> None:
        """Has to be called before the context ends, which waits for it."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)


def connect(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: ClientKeys, name: str = ""
) -> "zmq.Socket[bytes]":
    """Return a DEALER that connects to `endpoint`, and again whenever the connection breaks.

    Messages to the peer `name` reach it. Without a name it only sends.
    """
    socket = context.socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
    if name:
        socket.setsockopt_string(zmq.IDENTITY, name)
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_serverkey = keys.server.encode()
    socket.connect(endpoint)
    return socket

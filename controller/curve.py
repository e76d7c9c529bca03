"""Keys of a control plane that crosses a network: CURVE, ZeroMQ's encryption, and the end that connects.

Both ends prove that they have their secret keys, and all messages are encrypted. `controller.gate` is the end
that binds, and `testbed.cluster.keys` makes the files of the keys.
"""

from typing import Final

import msgspec
import zmq

MOST_BYTES: Final = 256 * 2**20
"""How large a message may be: the records of a rank at the end of a run are the largest."""

HELLO: Final = b""
"""What a peer that can be sent to says first: messages for it may have waited."""


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

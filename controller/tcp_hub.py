"""A hub for peers on other machines: they connect to one address, and only with a key that is allowed."""

from collections.abc import Callable, Iterator
from typing import Final

import zmq

from controller.curve import HELLO, MOST_BYTES, ServerKeys
from controller.gate import Refusals, bind

_MOST_AT_ONCE: Final = 1000


class TcpHub:
    """Peers that connect to `endpoint` (`controller.curve.connect`): a `controller.wire.Hub`.

    A message may have several frames, which are joined. `refused` is told of peers that are not let in, and
    of messages of more than `most_bytes`, which are dropped.

    Messages to a peer that has not said anything, such as `HELLO`, wait for it. Messages to one whose
    connection is lost are lost, too: whoever counts on the peer notices its silence. One thread uses a hub.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        keys: ServerKeys,
        refused: Callable[[str], None],
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.socket = bind(context, endpoint, keys, refused, most_bytes=most_bytes)
        self.sender = ""
        self._endpoint = endpoint
        self._most_bytes = most_bytes
        self._refused = Refusals(refused)
        self._waiting: dict[str, list[bytes]] = {}
        self._here: set[str] = set()

    def receive(self) -> bytes:
        return self.receive_from()[1]

    def receive_from(self) -> tuple[str, bytes]:
        """Return the name of a peer, empty if it has none, and its message. Raises `zmq.Again`."""
        while True:
            identity, *parts = self.socket.recv_multipart(zmq.NOBLOCK)
            name = "" if identity.startswith(b"\0") else identity.decode(errors="replace")
            if name and name not in self._here:
                self._here.add(name)
                for waiting in self._waiting.pop(name, ()):
                    self._send(name, waiting)
            if sum(map(len, parts)) > self._most_bytes:
                self._refused(f"dropped a message of more than {self._most_bytes} bytes at {self._endpoint}")
                continue
            message = parts[0] if len(parts) == 1 else b"".join(parts)
            if message != HELLO:
                self.sender = name
                return name, message

    def drain(self) -> Iterator[tuple[str, bytes]]:
        """Yield messages that have arrived, with the names of their senders: not so many that nothing else
        would be done."""
        for _ in range(_MOST_AT_ONCE):
            try:
                yield self.receive_from()
            except zmq.Again:
                return

    def send(self, name: str, frame: bytes) -> None:
        if name in self._here:
            self._send(name, frame)
        else:
            self._waiting.setdefault(name, []).append(frame)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._here))

    def close(self) -> None:
        """Stop listening. What is on its way to peers may be lost."""
        self.socket.close(linger=1000)

    def _send(self, name: str, frame: bytes) -> None:
        try:
            self.socket.send_multipart([name.encode(), frame], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

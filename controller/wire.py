"""Where a process of a run hears its peers and answers them, over ZeroMQ.

A process that serves others, the controller or the coordinator, has a `Hub`: it receives from all peers, and
sends to each by its name. On one machine a peer's inbox is an address of its own, in a directory that only
the run can see (`LocalHub`). Peers on other machines connect to one address (`controller.tcp_hub`).
"""

from collections.abc import Mapping
from typing import Protocol

import zmq


class Hub(Protocol):
    """A server's end of its connections. One thread uses it."""

    socket: "zmq.Socket[bytes]"
    """What to poll for messages."""

    sender: str
    """Who has sent the message that was received last; empty if that is not known."""

    def receive(self) -> bytes:
        """Return a message that has arrived. Raises `zmq.Again` if there is none."""
        ...

    def send(self, name: str, frame: bytes) -> None:
        """Send to the peer `name`, now or once it is there. Raises `KeyError` for a name that is none."""
        ...

    def names(self) -> tuple[str, ...]:
        """The peers that may be sent to."""
        ...


class LocalHub:
    """Peers on this machine: they push to `inbox`, and pull what is pushed to their `outs`, by name."""

    sender = ""

    def __init__(self, inbox: str, outs: Mapping[str, str]) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.socket = context.socket(zmq.PULL)
        self.socket.set_hwm(0)
        self.socket.bind(inbox)
        self._outs = {}
        for name, endpoint in outs.items():
            out = context.socket(zmq.PUSH)
            out.set_hwm(0)
            out.connect(endpoint)  # queues even before the other end is there
            self._outs[name] = out

    def receive(self) -> bytes:
        return self.socket.recv(zmq.NOBLOCK)

    def send(self, name: str, frame: bytes) -> None:
        self._outs[name].send(frame, zmq.NOBLOCK)

    def names(self) -> tuple[str, ...]:
        return tuple(self._outs)

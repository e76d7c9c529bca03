"""Two TCP connections share a port of rehearsed servers. A program for a sandbox: prints what each carried.

One connection carries a stream from h1 to h3. On the other, h1 and h2 send each other messages at the same
time, the next one when both are there.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

from testbed.cluster.namespaces import Namespaces, Network
from testbed.job import Scale
from testbed.topology import server_ip, star

LINE_BPS = 15_000_000
MESSAGE_BYTES = 60_000
SECONDS = 4.0
_PORT = 9000
_STREAM, _MESSAGES = server_ip(2), server_ip(1)


def measure() -> dict[str, int]:
    """The bytes that each connection carried from h1 in the same time."""
    network = Network(topology=star(servers=3, nic_bps=LINE_BPS), scale=Scale(time_dilation=1, bytes_scale=1))
    namespaces = Namespaces(network)

    def start(server: str, role: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            namespaces.inside(server, [sys.executable, __file__, role]), stdout=subprocess.PIPE, text=True
        )

    sink, peer = start("h3", "sink"), start("h2", "peer")
    for process in (sink, peer):
        assert process.stdout is not None
        process.stdout.readline()  # it listens
    sender = start("h1", "sender")
    carried: dict[str, int] = json.loads(sender.communicate(timeout=60)[0])
    return carried


def _listen() -> socket.socket:
    with socket.create_server(("0.0.0.0", _PORT)) as listening:
        print("listening", flush=True)
        return listening.accept()[0]


def _sink() -> None:
    connection = _listen()
    while connection.recv(65536):
        pass


def _peer() -> None:
    connection = _listen()
    while _exchange(connection):
        pass


def _sender() -> None:
    stream = socket.create_connection((_STREAM, _PORT))
    messages = socket.create_connection((_MESSAGES, _PORT))
    end_s = time.monotonic() + SECONDS
    carried = {"stream": 0, "messages": 0}

    def pour() -> None:
        while time.monotonic() < end_s:
            carried["stream"] += stream.send(bytes(65536))

    pouring = threading.Thread(target=pour)
    pouring.start()
    while time.monotonic() < end_s:
        _exchange(messages)
        carried["messages"] += MESSAGE_BYTES
    pouring.join()
    print(json.dumps(carried))


def _exchange(connection: socket.socket) -> bool:
    """Send a message and receive one at the same time. Returns whether one came."""
    sending = threading.Thread(target=_send, args=(connection,))
    sending.start()
    left = MESSAGE_BYTES
    with contextlib.suppress(ConnectionError):
        while left and (got := len(connection.recv(left))):
            left -= got
    sending.join()
    return not left


def _send(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):  # the other end has seen enough
        connection.sendall(bytes(MESSAGE_BYTES))


if __name__ == "__main__":
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role:
        {"sink": _sink, "peer": _peer, "sender": _sender}[role]()
    else:
        print(json.dumps(measure()))

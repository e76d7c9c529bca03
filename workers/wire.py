"""A worker's ends of the control plane: ZeroMQ sockets that do not use the links under test.

On one machine, a worker pushes to the addresses of others and binds its own. With keys, it is on another
machine, and connects to the addresses of those that serve it.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import zmq

from controller.curve import HELLO, ClientKeys, connect, frames

M = TypeVar("M")


class Outbox:
    """Pushes messages to one peer; any thread may send. With `keys`, the peer sees its `name`."""

    def __init__(self, endpoint: str, keys: ClientKeys | None = None, name: str = "") -> None:
        self._context = zmq.Context()
        self._remote = keys is not None
        if keys is None:
            self._socket = self._context.socket(zmq.PUSH)
            self._socket.set_hwm(0)
            self._socket.connect(endpoint)
        else:
            self._socket = connect(self._context, endpoint, keys, name)
        self._lock = threading.Lock()

    def send(self, message: bytes) -> None:
        with self._lock:
            if self._remote:
                self._socket.send_multipart(frames(message))
            else:
                self._socket.send(message)

    def close(self) -> None:
        """Return when everything queued has been handed over, or after five seconds."""
        with self._lock:
            self._socket.close(linger=5000)
            self._context.term()


class Inbox(Generic[M]):
    """Pulls messages in a thread of its own and gives each to `handle`.

    An exception in the thread is given to `failed` and ends it. With `keys`, the peer at `endpoint` sends to
    this end by its `name`.
    """

    def __init__(
        self,
        endpoint: str,
        decode: Callable[[bytes], M],
        handle: Callable[[M], None],
        failed: Callable[[BaseException], None],
        *,
        keys: ClientKeys | None = None,
        name: str = "",
    ) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._name = name
        self._decode = decode
        self._handle = handle
        self._failed = failed
        self._thread = threading.Thread(target=self._run, name=f"inbox {endpoint}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            socket = self._open()
            while True:
                self._handle(self._decode(socket.recv()))
        except BaseException as error:
            self._failed(error)

    def _open(self) -> "zmq.Socket[bytes]":
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        if self._keys is None:
            socket = context.socket(zmq.PULL)
            socket.set_hwm(0)
            socket.bind(self._endpoint)
        else:
            socket = connect(context, self._endpoint, self._keys, self._name)
            socket.send(HELLO)
        return socket

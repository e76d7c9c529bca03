"""A worker's ends of the control plane: one-way ZeroMQ sockets that do not use the links under test."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import zmq

M = TypeVar("M")


class Outbox:
    """Pushes messages to one peer; any thread may send."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.set_hwm(0)
        self._socket.connect(endpoint)
        self._lock = threading.Lock()

    def send(self, frame: bytes) -> None:
        with self._lock:
            self._socket.send(frame)

    def close(self) -> None:
        """Return when everything queued has been handed over, or after five seconds."""
        with self._lock:
            self._socket.close(linger=5000)
            self._context.term()


class Inbox(Generic[M]):
    """Pulls messages in a thread of its own and gives each to `handle`.

    An exception in the thread is given to `failed` and ends it.
    """

    def __init__(
        self,
        endpoint: str,
        decode: Callable[[bytes], M],
        handle: Callable[[M], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._endpoint = endpoint
        self._decode = decode
        self._handle = handle
        self._failed = failed
        self._thread = threading.Thread(target=self._run, name=f"inbox {endpoint}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        socket.set_hwm(0)
        socket.bind(self._endpoint)
        try:
            while True:
                self._handle(self._decode(socket.recv()))
        except BaseException as error:
            self._failed(error)

"""The end of a control plane that others connect to: it lets in those whose key it knows (CURVE, ZAP)."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from controller.curve import MOST_BYTES, MOST_FRAME_BYTES, ServerKeys

_DOMAIN = "mfs"
_RELEASE_S = 3.0  # ZeroMQ gives the port of the last run back in a thread of its own
_AGAIN_S = 60.0
_MOST_TEXTS = 20
_HANDSHAKE_MS = 10_000
_MOST_WAITING = 1000
"""How many messages of a peer wait here at most. Others wait where they come from."""
_REFUSED_BEFORE_KEYS = {
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "it does not speak CURVE, or has no key",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "it broke off the handshake, as one without a key does",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "its key is not one of those that may connect",
}


class Refusals:
    """Hands refusals on to `tell`, each text once in `_AGAIN_S`: a peer that is refused tries again at once,
    for as long as it lives. Of others there are at most `_MOST_TEXTS` in that time, since a stranger can make
    as many keys as it likes. Any thread may call it."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._told_s: dict[str, float] = {}
        self._full_s = -_AGAIN_S

    def __call__(self, text: str) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._told_s = {told: at_s for told, at_s in self._told_s.items() if now_s - at_s < _AGAIN_S}
            if text in self._told_s:
                return
            if len(self._told_s) < _MOST_TEXTS:
                self._told_s[text] = now_s
            elif now_s - self._full_s >= _AGAIN_S:
                self._full_s = now_s
                text = (
                    f"there are more than {_MOST_TEXTS} refusals in {_AGAIN_S:.0f} s; the others are not told"
                )
            else:
                return
        self._tell(text)


def bind(
    context: "zmq.Context[zmq.Socket[bytes]]",
    endpoint: str,
    keys: ServerKeys,
    refused: Callable[[str], None],
    *,
    most_bytes: int = MOST_BYTES,
) -> "zmq.Socket[bytes]":
    """Return a ROUTER that listens at `endpoint`, `tcp://ADDRESS:PORT`, to peers with an allowed key.

    `refused` is called, in another thread, with each peer that is not let in, in words. `let_in` has to run
    in this context. Raises `zmq.ZMQError` if the address cannot be bound.
    """
    socket = context.socket(zmq.ROUTER)
    socket.set_hwm(0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, _MOST_WAITING)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, min(most_bytes, MOST_FRAME_BYTES))
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer that lost its connection comes back under its name
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_server = True
    _watch(socket, endpoint, Refusals(refused))
    deadline = time.monotonic() + _RELEASE_S
    while True:
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            socket.close(linger=0)
            raise
        return socket


class _Guests:
    """Whom the authenticator asks about each key."""

    def __init__(self, allowed: Iterable[str], refused: Callable[[str], None]) -> None:
        self._allowed = frozenset(key.encode() for key in allowed)
        self._refused = refused

    def callback(self, domain: str, key: bytes) -> bool:
        if key in self._allowed:
            return True
        self._refused(f"refused a peer with the unknown key {key.decode(errors='replace')}")
        return False


def let_in(
    context: "zmq.Context[zmq.Socket[bytes]]", keys: ServerKeys, refused: Callable[[str], None]
) -> ThreadAuthenticator:
    """Start to judge the keys of peers (ZAP) in this context, before the first `bind`.

    Without it, ZeroMQ would let in everybody who has the server's public key. Call `stop` at the end.
    """
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(_DOMAIN, _Guests(keys.allowed, Refusals(refused)))
    return authenticator


def _watch(socket: "zmq.Socket[bytes]", endpoint: str, refused: Callable[[str], None]) -> None:
    """Tell of handshakes that fail, until the socket is closed."""
    events = zmq.Event.MONITOR_STOPPED
    for event in _REFUSED_BEFORE_KEYS:
        events |= event
    monitor: Any = socket.get_monitor_socket(events)

    def run() -> None:
        try:
            while True:
                message = recv_monitor_message(monitor)
                if message["event"] == zmq.Event.MONITOR_STOPPED:
                    return
                refused(f"refused a peer at {endpoint}: {_REFUSED_BEFORE_KEYS[message['event']]}")
        except zmq.ZMQError:
            return  # the context ends
        finally:
            monitor.close(linger=0)

    threading.Thread(target=run, name="refusals", daemon=True).start()

"""Asks the daemons of Open vSwitch, many times a second, whether they still turn their main loop.

`ovs-vswitchd` answers in the loop that, with the userspace datapath, also forwards every packet. So the wait
for an answer is how long packets waited, too. The protocol is that of `ovs-appctl`: JSON-RPC on a socket.
"""

import json
import socket
import threading
import time
from pathlib import Path

from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.coordinator.silence import PATIENCE_S
from testbed.fabric import RunFailed
from testbed.readable import readable

_EVERY_S = 0.05
_SLICE_S = 0.02
_QUESTION = b'{"id":0,"method":"version","params":[]}'


class DaemonPulse:
    """The longest time for which one daemon did not answer. Asks in a thread of its own."""

    def __init__(self, name: str, control_socket: Path) -> None:
        self.name = name
        self._path = control_socket
        self._longest = Pause(begin_wall_ns=0, wall_ns=0)
        self._waiting = self._longest
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pulse of {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raise `RunFailed` if the daemon has not answered for `PATIENCE_S`, or cannot be asked."""
        if self._failure is not None:
            what = f"{type(self._failure).__name__}: {self._failure}"
            raise RunFailed(f"{self.name} can no longer be asked whether it runs: {what}") from self._failure
        if self._waiting.wall_ns > PATIENCE_S * NS_PER_S:
            raise RunFailed(f"{self.name} has not answered for {PATIENCE_S:.0f} s")

    def stop(self) -> Pause:
        """Return the longest time without an answer, that of an open question included."""
        self._stop.set()
        return max(self._longest, self._waiting, key=lambda pause: pause.wall_ns)

    def _run(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to_daemon:
                to_daemon.settimeout(PATIENCE_S)
                to_daemon.connect(str(self._path))
                while not self._stop.wait(_EVERY_S):
                    self._ask(to_daemon)
        except BaseException as error:
            self._failure = error

    def _ask(self, to_daemon: socket.socket) -> None:
        begin_ns = time.monotonic_ns()
        to_daemon.sendall(_QUESTION)
        answer = b""
        waited_ns = 0
        while not self._stop.is_set():
            before_ns = time.monotonic_ns()
            ready = readable(to_daemon, _SLICE_S)
            # Longer than a slice is a pause of this process, and not of the daemon.
            waited_ns += min(time.monotonic_ns() - before_ns, round(_SLICE_S * NS_PER_S))
            self._waiting = Pause(begin_wall_ns=begin_ns, wall_ns=waited_ns)
            if not ready:
                continue
            part = to_daemon.recv(65536)
            if not part:
                raise ConnectionError("it has closed its control socket")
            answer += part
            if _is_whole(answer):
                break
        self._longest = max(self._longest, self._waiting, key=lambda pause: pause.wall_ns)


def _is_whole(answer: bytes) -> bool:
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True

"""The coordinator's side of the controller: queries its process, and reports its failures."""

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import zmq

from controller.flow import Batch
from controller.protocol import (
    AskFlows,
    AskLog,
    AskSending,
    AskStatus,
    BatchStarted,
    ClockStart,
    Down,
    LayerAdvanced,
    Log,
    Logged,
    Sending,
    Status,
    Trouble,
    Up,
    decode_down,
    encode,
)
from testbed.coordinator.memory import MemoryKills
from testbed.fabric import RunFailed
from workers.process import words_of_exit

M = TypeVar("M")

_START_S = 30.0
_ANSWER_S = 30.0
_OURSELVES = -1  # not a rank: in the micro workload no rank computes, so the coordinator reports the layers


def _nobody_takes(logged: Logged) -> None:
    raise RunFailed(f"the controller has logged {len(logged.decisions)} decisions, and nobody takes them")


class ControllerProcess:
    """Exchanges messages with the controller `process`, which serves `switches` switches.

    What goes to it is sent on `out`, what it sends arrives on `inbox`. Both may be the same socket.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        out: "zmq.Socket[bytes]",
        inbox: "zmq.Socket[bytes]",
        *,
        switches: int,
    ) -> None:
        self._process = process
        self._memory = MemoryKills()
        self._switches = switches
        self._out = out
        self.inbox = inbox
        self.logged: Callable[[Logged], None] = _nobody_takes
        """Takes what the controller has logged, as it comes."""
        self.implementation = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise `RunFailed` if the controller has died."""
        if self._process.poll() is not None:
            how = f"{words_of_exit(self._process.returncode)}{self._memory.note()}"
            raise RunFailed(f"the controller ended with {how}")

    def check_idle(self) -> None:
        """Raise `RunFailed` if the controller has died or has reported trouble.

        Only for times in which no answer is due: it drops answers.
        """
        self.check()
        while self.inbox.poll(0):
            self.receive()

    def wait_until_it_listens(self) -> None:
        """Return once the controller answers. By then it listens for switches, too."""
        self._send(AskStatus())
        self._answer(Status)

    def wait_for_switches(self) -> None:
        """Return once every switch is connected and has its rules. Raises `RunFailed` after 30 s."""
        self._wait(lambda status: status.ready, "switches to connect", _START_S)

    def wait_for_registrations(self, *, lanes: int, groups: int) -> None:
        self._wait(
            lambda status: status.lanes == lanes and status.groups == groups,
            f"{lanes} lanes and {groups} group ends to be registered",
            _START_S,
        )

    def _wait(self, done: Callable[[Status], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self._send(AskStatus())
            status = self._answer(Status)
            self.implementation = status.implementation
            if done(status):
                return
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"waited {seconds:.0f} s for {what}; there are {status.switches} of"
                    f" {self._switches} switches, {status.lanes} lanes, {status.groups} group ends"
                )
            time.sleep(0.02)

    def start_clock(self, zero_wall_ns: int, time_dilation: float) -> None:
        self._send(ClockStart(zero_wall_ns=zero_wall_ns, time_dilation=time_dilation))

    def batch_started(self, batch: Batch, ranks: tuple[int, ...]) -> None:
        """Announce a batch. The controller answers with `BatchKnown` on the inbox.

        Without `ranks`, the coordinator reports the layers of the batch (`layer_advanced`).
        """
        self._send(BatchStarted(batch=batch, ranks=ranks or (_OURSELVES,)))

    def layer_advanced(self, batch: str, layer: int) -> None:
        self._send(LayerAdvanced(batch=batch, rank=_OURSELVES, layer=layer))

    def ask_flows(self) -> None:
        """Ask what flows do. The controller answers with `FlowCounts` on the inbox."""
        self._send(AskFlows())

    def sending(self) -> Sending:
        """Return which flows have their permits and have not arrived. Drops other answers on the inbox."""
        self._send(AskSending())
        return self._answer(Sending)

    def receive(self) -> Down:
        """Return the next message; block until there is one. What was `Logged` is taken already.

        Raises `RunFailed` if it reports trouble.
        """
        message: Down = decode_down(self.inbox.recv())
        if isinstance(message, Trouble):
            raise RunFailed(message.message)
        if isinstance(message, Logged):
            self.logged(message)
        return message

    def log(self) -> Log:
        """Return the controller's log of the run. What it has `Logged` is taken before."""
        self._send(AskLog())
        return self._answer(Log)

    def _send(self, message: Up) -> None:
        self._out.send(encode(message))

    def _answer(self, kind: type[M]) -> M:
        """Return the next message of that kind, and drop any others that come before it."""
        deadline = time.monotonic() + _ANSWER_S
        while True:
            self.check()
            if self.inbox.poll(200):
                message = self.receive()
                if isinstance(message, kind):
                    return message
            elif time.monotonic() > deadline:
                raise RunFailed(f"the controller has not answered for {_ANSWER_S:.0f} s")

"""The coordinator's side of the controller: starts its process, queries it, and reports its failures."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from controller.flow import Batch
from controller.openflow import Wiring
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
    Sending,
    Status,
    Trouble,
    Up,
    decode_down,
    encode,
)
from controller.ryu_app import COORDINATOR, ShellConfig
from testbed.emulation.children import python_module
from testbed.emulation.endpoints import Endpoints
from testbed.emulation.memory import MemoryKills
from testbed.emulation.network import OPENFLOW_PORT
from testbed.fabric import RunFailed
from testbed.job import Job

M = TypeVar("M")

_START_S = 30.0
_ANSWER_S = 30.0
_OURSELVES = -1  # not a rank: in the micro workload no rank computes, so the coordinator reports the layers


class ControllerProcess:
    """Starts `controller.ryu_app`, with its files in `directory`, and exchanges messages with it."""

    def __init__(self, job: Job, wiring: Wiring, directory: Path) -> None:
        endpoints = Endpoints(directory)
        config = ShellConfig(
            wiring=wiring,
            policy=job.policy,
            policy_defaults=job.scheduler.defaults(),
            uplink=endpoints.to_controller,
            downlinks={
                COORDINATOR: endpoints.from_controller(COORDINATOR),
                **{str(r.rank): endpoints.from_controller(str(r.rank)) for r in job.placement.ranks},
            },
            openflow_host="127.0.0.1",
            openflow_port=OPENFLOW_PORT,
        )
        path = directory / "controller.msgpack"
        path.write_bytes(msgspec.msgpack.encode(config))
        with (directory / "controller.log").open("wb") as log:
            # Every permit waits for this process, so it runs at a higher priority than the workers.
            self._process = subprocess.Popen(
                ["nice", "-n", "-10", *python_module("controller.ryu_app", str(path))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._memory = MemoryKills()
        self._bridges = len(wiring.bridges)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._out = context.socket(zmq.PUSH)
        self._out.set_hwm(0)
        self._out.connect(endpoints.to_controller)
        self.inbox = context.socket(zmq.PULL)
        self.inbox.set_hwm(0)
        self.inbox.bind(endpoints.from_controller(COORDINATOR))
        self.implementation = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise `RunFailed` if the controller has died."""
        if self._process.poll() is not None:
            how = f"exit code {self._process.returncode}{self._memory.note()}"
            raise RunFailed(f"the controller ended with {how}")

    def check_idle(self) -> None:
        """Raise `RunFailed` if the controller has died or has reported trouble.

        Only for times in which no answer is due: it drops answers.
        """
        self.check()
        while self.inbox.poll(0):
            self.receive()

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
                    f" {self._bridges} switches, {status.lanes} lanes, {status.groups} group ends"
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
        """Return the next message; block until there is one. Raises `RunFailed` if it reports trouble."""
        message: Down = decode_down(self.inbox.recv())
        if isinstance(message, Trouble):
            raise RunFailed(message.message)
        return message

    def log(self) -> Log:
        """Return the controller's log of the run: decisions, paths, pruned requests, message counts."""
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

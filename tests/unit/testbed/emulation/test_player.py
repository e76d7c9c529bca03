"""The player against stand-ins for controller and ranks: when a run has stalled and when it only waits."""

import threading
import time
from collections.abc import Iterator
from typing import cast

import msgspec
import pytest
import zmq
from serving_world import job, placed

from controller.flow import Stage, Transfer
from testbed.emulation import player
from testbed.emulation.control import ControllerProcess
from testbed.emulation.ranks import RankProcesses
from testbed.fabric import RunFailed
from testbed.job import Job, MicroFlow
from testbed.serving.micro import MicroConductor
from workers.protocol import Arrived, Flows, FromRank, ToRank

STALL_S = 0.5


class StandIn:
    """Controller and ranks at once: after `arrives_s` wall seconds it reports that the flow has arrived."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], arrives_s: float | None) -> None:
        self.inbox = context.socket(zmq.PULL)
        self.inbox.bind(f"inproc://{id(self)}")
        self._outbox = context.socket(zmq.PUSH)
        self._outbox.connect(f"inproc://{id(self)}")
        self._arrives_s = arrives_s

    def send(self, rank: int, message: ToRank) -> None:
        assert isinstance(message, Flows)
        if self._arrives_s is not None:
            threading.Timer(self._arrives_s, self._outbox.send, [b"arrived"]).start()

    def receive(self, timeout_s: float) -> FromRank:
        self.inbox.recv()
        return Arrived(flow="f")

    def check(self) -> None:
        pass

    def ask_flows(self) -> None:
        pass

    def close(self) -> None:
        self._outbox.close(linger=0)
        self.inbox.close(linger=0)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as made:
        yield made


def play(
    context: zmq.Context[zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    start_s: float,
    arrives_s: float | None,
) -> None:
    """Play a job of one flow of a byte, a model second per wall second."""
    monkeypatch.setattr(player, "_STALL_S", STALL_S)
    monkeypatch.setattr(player, "_REPORT_S", 0.02)
    made = one_flow(round(start_s * 1e9))
    ranks, controller = StandIn(context, arrives_s), StandIn(context, None)
    try:
        player.Player(
            made,
            MicroConductor(made),
            cast(ControllerProcess, controller),
            cast(RankProcesses, ranks),
            lambda progress: None,
        ).play(time.monotonic_ns(), lambda: None)
    finally:
        ranks.close()
        controller.close()


def one_flow(start_ns: int) -> Job:
    transfer = Transfer(id="f", stage=Stage.P2D, src=0, dst=1, size_bytes=1)
    base = job(*placed())
    scale = msgspec.structs.replace(base.scale, time_dilation=1.0)
    return msgspec.structs.replace(
        base, flows=(MicroFlow(transfer=transfer, start_ns=start_ns),), scale=scale
    )


def test_a_flow_that_starts_late_is_waited_for(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(context, monkeypatch, start_s=2 * STALL_S, arrives_s=2 * STALL_S + 0.05)


def test_a_flow_that_does_not_arrive_ends_the_run(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFailed, match=r"nothing has moved for [01] s: 0 of 1 done; still on their way: f"):
        play(context, monkeypatch, start_s=0.05, arrives_s=None)

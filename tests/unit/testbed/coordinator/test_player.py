"""The player against stand-ins for controller and ranks: when a run has stalled and when it only waits."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
import zmq
from real_world import DENSE, real_job, request
from serving_world import job, placed

from controller.flow import Stage, Transfer
from controller.protocol import LoggedPath, Sending
from testbed.coordinator import player
from testbed.coordinator.controller import ControllerProcess
from testbed.coordinator.outages import Down
from testbed.coordinator.ranks import Ranks
from testbed.fabric import RunFailed
from testbed.job import Job, MicroFlow
from testbed.serving.actions import Expect, Post
from testbed.serving.conductor import Conductor
from testbed.serving.micro import MicroConductor
from testbed.serving.system import ServingSystem
from workers.options import ComputeMode
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute, LayerPlan, RequestPlan
from workers.protocol import Arrived, Flows, FromRank, Plan, ToRank, Transfers

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

    steps = 0
    away: tuple[str, ...] = ()

    def check(self) -> None:
        pass

    def sending(self) -> Sending:
        flow = LoggedPath(flow="f", ports=("h1->s1", "s1->h2"))
        return Sending(flows=(flow,), away=self.away)

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
    received: Callable[[], int] = int,
    outages: Sequence[Down] = (),
    faults: player.Faults = player.NO_FAULTS,
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
            cast(Ranks, ranks),
            lambda progress: None,
            received=received,
            silent_ports=lambda since_wall_ns: {"s1->h2", "s1->h3"},
            outages=lambda: outages,
            faults=faults,
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
    with pytest.raises(RunFailed) as caught:
        play(context, monkeypatch, start_s=0.05, arrives_s=None)
    assert str(caught.value) == (
        "nothing has moved for 0 s: 0 of 1 done; still on their way: f;"
        " permitted and not arrived: f (s1->h2 sends nothing)"
    )


def test_a_link_that_was_down_is_named_where_nothing_moves_any_more(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    down = Down(link="link h1-s1", begin_wall_ns=0, wall_ns=1_230_000_000)
    with pytest.raises(RunFailed, match=r"\(s1->h2 sends nothing\); link h1-s1 was down for 1\.2 s$"):
        play(context, monkeypatch, start_s=0.05, arrives_s=None, outages=(down,))


class Faulty:
    """A fault of the scenario that holds flows up for so long, or links that stay down."""

    def __init__(self, seconds: float = 0.0, *down: str) -> None:
        self._until = time.monotonic() + seconds
        self._down = down

    def holds_up(self) -> bool:
        return time.monotonic() < self._until

    def controller_away(self) -> bool:
        return False

    def for_good(self) -> Sequence[str]:
        return self._down


def test_while_a_fault_of_the_scenario_holds_a_flow_up_it_is_waited_for(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(context, monkeypatch, start_s=0.05, arrives_s=3 * STALL_S, faults=Faulty(3 * STALL_S))


def test_after_the_fault_it_is_not_waited_for_any_longer(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFailed, match="nothing has moved"):
        play(context, monkeypatch, start_s=0.05, arrives_s=None, faults=Faulty(2 * STALL_S))


def test_with_a_link_down_for_good_it_does_not_help_that_others_receive(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "_CUT_OFF_S", 0.1)
    count = itertools.count()
    down = Faulty(0.0, "link h1-s1 down")
    with pytest.raises(RunFailed, match=r"^link h1-s1 down \(faults\), and no request has got on for 1 s"):
        play(context, monkeypatch, start_s=0.05, arrives_s=None, received=lambda: next(count), faults=down)


def test_a_switch_that_is_away_is_what_a_run_that_stands_still_waits_for(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "away", ("s1",))
    with pytest.raises(RunFailed, match=r"on their way: f; bridges that are not connected: s1$"):
        play(context, monkeypatch, start_s=0.05, arrives_s=None)


def test_a_flow_whose_segments_are_received_is_waited_for(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment arrives with each look, for three times as long as a run may stand still."""
    play(context, monkeypatch, start_s=0.05, arrives_s=3 * STALL_S, received=itertools.count().__next__)


def test_a_batch_may_be_silent_for_its_longest_compute_or_decode_step() -> None:
    def plan(*layers: LayerPlan, decode_s: float = 0.0) -> BatchPlan:
        request = RequestPlan(
            request=0,
            replica=(0,),
            decode_ranks=(9,),
            new_tokens=1,
            local_tokens=0,
            remote_tokens=0,
            p2d_flows=(1,),
            decode_step_s=decode_s,
            deadline_ns=0,
        )
        return BatchPlan(
            id="b", unit="p0", ranks=(0, 1), layers=layers, requests=(request,), compute_s=0.0, formed_ns=0
        )

    def layer(*steps: Compute | Collective) -> LayerPlan:
        return LayerPlan(index=0, wait=(), steps=steps, post=())

    attention = Compute(label="attention", seconds=(0.1, 0.7), flops=(0, 0))
    mlp = Compute(label="mlp", seconds=(0.4, 0.2), flops=(0, 0))
    ring = Collective(
        id="c",
        group="sp",
        kind=CollectiveKind.RING_ATTENTION,
        sizes=((1,),),
        label="",
        round_seconds=((0.1, 0.2), (0.9, 0.1)),
    )
    assert player.longest_silence_s(plan(layer(attention, mlp), layer(mlp))) == 0.7
    assert player.longest_silence_s(plan(layer(attention, ring))) == 0.9
    assert player.longest_silence_s(plan(layer(mlp), decode_s=2.0)) == 2.0
    assert player.longest_silence_s(plan()) == 0.0


# --- real layers --------------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [ComputeMode.MODEL, ComputeMode.TIMED])
def test_holders_of_real_kv_are_told_for_which_request_they_send_it(compute: ComputeMode) -> None:
    """Unit p1 fetches two blocks of four that p0 has computed, from ranks 0 and 1. Rank 4 decodes."""
    first = request(0, 40, ())
    real = real_job(DENSE, [first, request(1, 40, first.blocks[:2])], units=2, per_unit=2)
    real = msgspec.structs.replace(real, workers=msgspec.structs.replace(real.workers, compute=compute))
    system = ServingSystem(real)
    system.arrive(0, real.requests[0])
    system.batch_done(0, "p0.b0")
    (plan,) = system.arrive(1, real.requests[1])
    assert isinstance(plan, BatchPlan)
    sent: list[tuple[int, ToRank]] = []
    ranks = SimpleNamespace(send=lambda rank, message: sent.append((rank, message)))
    playing = player.Player(
        real, cast(Conductor, None), cast(ControllerProcess, None), cast(Ranks, ranks), print
    )
    fetched = tuple(transfer for layer in plan.layers for transfer in layer.wait)
    playing._do([Expect(plan), Post(fetched)])
    assert [(rank, type(message)) for rank, message in sent] == [(4, Plan), (0, Transfers), (1, Transfers)]
    told = plan.requests if compute is ComputeMode.MODEL else ()
    assert [message.requests for _, message in sent if isinstance(message, Transfers)] == [told, told]

"""The decode worker's desk: a first token is out one step after the last piece of its KV."""

import queue
import threading

import msgspec

from controller.flow import Stage, Transfer
from workers.clock import Clock
from workers.decode import DecodeDesk
from workers.plan import BatchPlan, LayerPlan, RequestPlan
from workers.protocol import FirstToken, decode_from_rank
from workers.recorder import Recorder

MS = 1_000_000
WAIT_S = 5.0
DECODER = 8


class SteppedClock(Clock):
    """Stands still but for waits, which are over at once."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.model_ns = 0

    def now_ns(self) -> int:
        return self.model_ns

    def wait_for(self, seconds: float) -> None:
        self.model_ns += round(seconds * 1e9)


class Coordinator:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: queue.Queue[object] = queue.Queue()

    def send(self, frame: bytes) -> None:
        self.heard.put(decode_from_rank(frame))

    def next(self) -> object:
        return self.heard.get(timeout=WAIT_S)


def request(number: int, decode_rank: int, flows: int) -> RequestPlan:
    return RequestPlan(
        request=number,
        replica=(0, 1),
        decode_rank=decode_rank,
        new_tokens=10,
        local_tokens=0,
        remote_tokens=0,
        p2d_flows=flows,
        decode_step_s=0.03,
        deadline_ns=10**9,
    )


def plan(*requests: RequestPlan) -> BatchPlan:
    """Two layers and two senders, so four flows per request, named like `r1.l0.0`."""
    layers = tuple(
        LayerPlan(
            index=layer,
            wait=(),
            steps=(),
            post=tuple(
                Transfer(
                    id=f"r{r.request}.l{layer}.{src}",
                    stage=Stage.P2D,
                    src=src,
                    dst=r.decode_rank,
                    size_bytes=100,
                    batch="b",
                    request=r.request,
                    layer=layer,
                )
                for r in requests
                for src in r.replica
            ),
        )
        for layer in range(2)
    )
    return BatchPlan(
        id="b", unit="p0", ranks=(0, 1), requests=requests, layers=layers, compute_s=0.0, formed_ns=0
    )


class Desk:
    def __init__(self, *requests: RequestPlan) -> None:
        self.clock = SteppedClock()
        self.coordinator = Coordinator()
        self.recorder = Recorder()
        self.desk = DecodeDesk(DECODER, self.clock, self.coordinator, self.recorder)  # type: ignore[arg-type]
        self.desk.expect(plan(*requests))

    def arrives(self, flow: str, at_ms: int) -> bool:
        self.clock.model_ns = at_ms * MS
        return self.desk.arrived(flow, at_ms * MS)


def test_the_first_token_waits_for_the_last_flow_and_one_decode_step() -> None:
    desk = Desk(request(1, DECODER, 4))
    for at_ms, flow in ((5, "r1.l1.0"), (6, "r1.l0.0"), (7, "r1.l0.1")):
        assert desk.arrives(flow, at_ms)
    assert desk.coordinator.heard.empty()
    assert desk.arrives("r1.l1.1", 20)
    assert desk.coordinator.next() == FirstToken(request=1, p2d_end_ns=20 * MS, time_ns=50 * MS)
    (span,) = desk.recorder.spans
    assert (span.kind, span.batch, span.start_ns, span.end_ns) == ("decode", "b", 20 * MS, 50 * MS)


def test_a_lane_that_was_overtaken_after_it_read_the_clock_does_not_end_the_transfer_early() -> None:
    desk = Desk(request(1, DECODER, 4))
    for flow in ("r1.l0.0", "r1.l0.1"):
        desk.arrives(flow, 5)
    desk.arrives("r1.l1.1", 20)
    assert desk.desk.arrived("r1.l1.0", 17 * MS)  # said last, arrived before
    assert desk.coordinator.next() == FirstToken(request=1, p2d_end_ns=20 * MS, time_ns=50 * MS)


def test_requests_are_counted_apart() -> None:
    desk = Desk(request(1, DECODER, 4), request(2, DECODER, 4))
    for flow in ("r1.l0.0", "r2.l0.0", "r1.l0.1", "r2.l0.1", "r2.l1.0", "r1.l1.0"):
        desk.arrives(flow, 1)
    desk.arrives("r2.l1.1", 2)
    said = desk.coordinator.next()
    assert isinstance(said, FirstToken)
    assert said.request == 2
    assert desk.coordinator.heard.empty()


def test_flows_of_requests_that_decode_elsewhere_are_not_ours() -> None:
    desk = Desk(request(1, DECODER, 4), request(2, DECODER + 1, 4))
    assert not desk.arrives("r2.l0.0", 1)
    assert not desk.arrives("an S1 flow", 1)


def test_a_flow_counts_once() -> None:
    desk = Desk(request(1, DECODER, 4))
    assert desk.arrives("r1.l0.0", 1)
    assert not desk.arrives("r1.l0.0", 2)


def test_flows_that_arrive_at_the_same_time_on_many_lanes_make_one_first_token() -> None:
    desk = Desk(*(request(i, DECODER, 4) for i in range(40)))
    flows = [[f"r{i}.l{layer}.{src}" for i in range(40)] for layer in range(2) for src in range(2)]
    lanes = [threading.Thread(target=lambda f=f: [desk.arrives(x, 1) for x in f]) for f in flows]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    tokens = [desk.coordinator.next() for _ in range(40)]
    assert sorted(t.request for t in tokens if isinstance(t, FirstToken)) == list(range(40))
    assert desk.coordinator.heard.empty()


# --- a prompt in parts ------------------------------------------------------------------------------


def part(batch: str, flows: int, *, last: bool) -> BatchPlan:
    """Request 1 in one of several batches: four flows, named after the batch, of `flows` so far."""
    whole = plan(request(1, DECODER, flows))
    layers = tuple(
        msgspec.structs.replace(
            layer, post=tuple(msgspec.structs.replace(t, id=f"{batch}.{t.id}") for t in layer.post)
        )
        for layer in whole.layers
    )
    requests = (msgspec.structs.replace(whole.requests[0], last=last),)
    return msgspec.structs.replace(whole, id=batch, layers=layers, requests=requests)


FLOWS = ("r1.l0.0", "r1.l0.1", "r1.l1.0", "r1.l1.1")


def test_a_first_token_waits_for_the_flows_of_all_parts() -> None:
    desk = Desk()
    desk.desk.expect(part("b0", 4, last=False))
    for flow in FLOWS:
        assert desk.arrives(f"b0.{flow}", 1)
    assert desk.coordinator.heard.empty()
    desk.desk.expect(part("b1", 8, last=True))
    for flow in FLOWS:
        assert desk.coordinator.heard.empty()
        assert desk.arrives(f"b1.{flow}", 5)
    assert desk.coordinator.next() == FirstToken(request=1, p2d_end_ns=5 * MS, time_ns=35 * MS)
    (span,) = desk.recorder.spans
    assert span.batch == "b1"


def test_a_flow_of_an_earlier_part_may_be_the_last_to_arrive() -> None:
    desk = Desk()
    desk.desk.expect(part("b0", 4, last=False))
    desk.desk.expect(part("b1", 8, last=True))
    *others, late = (f"b0.{flow}" for flow in FLOWS)
    for flow in [f"b1.{flow}" for flow in FLOWS] + others:
        assert desk.arrives(flow, 1)
    assert desk.coordinator.heard.empty()
    assert desk.arrives(late, 9)
    assert desk.coordinator.next() == FirstToken(request=1, p2d_end_ns=9 * MS, time_ns=39 * MS)

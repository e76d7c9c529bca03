"""The decode worker's desk: a first token comes one decode step after the last of its KV."""

import queue
import threading

import msgspec
import pytest

from workers.clock import Clock
from workers.decode import DecodeDesk
from workers.first_tokens import FirstSteps
from workers.plan import BatchPlan, RequestPlan
from workers.protocol import FirstToken, decode_from_rank
from workers.recorder import Recorder

MS = 1_000_000
WAIT_S = 5.0
DECODER = 8


class SteppedClock(Clock):
    """Stands still except in waits, which end at once."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.model_ns = 0

    def now_ns(self) -> int:
        return self.model_ns

    def wait_for(self, seconds: float) -> None:
        self.model_ns += round(seconds * 1e9)


class Coordinator:
    """Keeps what it is sent."""

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
        decode_ranks=(decode_rank,),
        new_tokens=10,
        local_tokens=0,
        remote_tokens=0,
        p2d_flows=(flows,),
        decode_step_s=0.03,
        deadline_ns=10**9,
    )


def plan(*requests: RequestPlan, batch: str = "b") -> BatchPlan:
    return BatchPlan(
        id=batch, unit="p0", ranks=(0, 1), requests=requests, layers=(), compute_s=0.0, formed_ns=0
    )


class Desk:
    def __init__(self, *requests: RequestPlan) -> None:
        self.clock = SteppedClock()
        self.coordinator = Coordinator()
        self.recorder = Recorder()
        self.failures: queue.Queue[BaseException] = queue.Queue()
        self.desk = DecodeDesk(
            DECODER,
            self.clock,
            self.coordinator,
            self.recorder,
            self.failures.put,  # type: ignore[arg-type]
        )
        self.desk.expect(plan(*requests))

    def arrives(self, request: int, at_ms: int) -> None:
        self.clock.model_ns = at_ms * MS
        self.desk.arrived(request, at_ms * MS)


def test_the_first_token_waits_for_the_last_flow_and_one_decode_step() -> None:
    desk = Desk(request(1, DECODER, 4))
    for at_ms in (5, 6, 7):
        desk.arrives(1, at_ms)
    assert desk.coordinator.heard.empty()
    desk.arrives(1, 20)
    assert desk.coordinator.next() == FirstToken(request=1, ranks=1, p2d_end_ns=20 * MS, time_ns=50 * MS)
    (span,) = desk.recorder.spans
    assert (span.kind, span.batch, span.start_ns, span.end_ns) == ("decode", "b", 20 * MS, 50 * MS)


def test_a_lane_that_was_overtaken_after_it_read_the_clock_does_not_end_the_transfer_early() -> None:
    desk = Desk(request(1, DECODER, 4))
    for at_ms in (5, 5, 20):
        desk.arrives(1, at_ms)
    desk.desk.arrived(1, 17 * MS)  # said last, arrived before
    assert desk.coordinator.next() == FirstToken(request=1, ranks=1, p2d_end_ns=20 * MS, time_ns=50 * MS)


def test_flows_may_arrive_before_the_plan_they_are_of() -> None:
    desk = Desk()
    for at_ms in (5, 20):
        desk.arrives(1, at_ms)
    assert desk.coordinator.heard.empty()
    desk.desk.expect(plan(request(1, DECODER, 2)))
    assert desk.coordinator.next() == FirstToken(request=1, ranks=1, p2d_end_ns=20 * MS, time_ns=50 * MS)


def test_requests_are_counted_apart() -> None:
    desk = Desk(request(1, DECODER, 4), request(2, DECODER, 4))
    for number in (1, 2, 1, 2, 2, 1):
        desk.arrives(number, 1)
    desk.arrives(2, 2)
    said = desk.coordinator.next()
    assert isinstance(said, FirstToken)
    assert said.request == 2
    assert desk.coordinator.heard.empty()


def test_a_step_that_fails_is_told() -> None:
    """A step has a thread of its own. An exception that is lost there would make the run wait for ever."""
    desk = Desk(request(1, DECODER, 1))

    def broken(seconds: float) -> None:
        raise ZeroDivisionError(f"{seconds} s")

    desk.clock.wait_for = broken  # type: ignore[method-assign]
    desk.arrives(1, 5)
    assert str(desk.failures.get(timeout=WAIT_S)) == "0.03 s"
    assert desk.coordinator.heard.empty()


def test_flows_that_arrive_at_the_same_time_on_many_lanes_make_one_first_token() -> None:
    desk = Desk(*(request(i, DECODER, 4) for i in range(40)))
    lanes = [
        threading.Thread(target=lambda: [desk.arrives(i, 1) for i in range(40)])  # a flow of each request
        for _ in range(4)
    ]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    tokens = [desk.coordinator.next() for _ in range(40)]
    assert sorted(t.request for t in tokens if isinstance(t, FirstToken)) == list(range(40))
    assert desk.coordinator.heard.empty()


# --- a prompt in parts ------------------------------------------------------------------------------


def part(batch: str, flows: int, *, last: bool) -> BatchPlan:
    """Request 1 in one of several batches, with four flows in each: `flows` in the batches so far."""
    return plan(msgspec.structs.replace(request(1, DECODER, flows), last=last), batch=batch)


def test_a_first_token_waits_for_the_flows_of_all_parts() -> None:
    desk = Desk()
    desk.desk.expect(part("b0", 4, last=False))
    for _ in range(4):
        desk.arrives(1, 1)
    assert desk.coordinator.heard.empty()
    desk.desk.expect(part("b1", 8, last=True))
    for _ in range(4):
        assert desk.coordinator.heard.empty()
        desk.arrives(1, 5)
    assert desk.coordinator.next() == FirstToken(request=1, ranks=1, p2d_end_ns=5 * MS, time_ns=35 * MS)
    (span,) = desk.recorder.spans
    assert span.batch == "b1"


def test_a_flow_of_an_earlier_part_may_be_the_last_to_arrive() -> None:
    desk = Desk()
    desk.desk.expect(part("b0", 4, last=False))
    desk.desk.expect(part("b1", 8, last=True))
    for _ in range(7):
        desk.arrives(1, 1)
    assert desk.coordinator.heard.empty()
    desk.arrives(1, 9)
    assert desk.coordinator.next() == FirstToken(request=1, ranks=1, p2d_end_ns=9 * MS, time_ns=39 * MS)


def test_a_rank_of_a_worker_waits_for_its_own_flows_only() -> None:
    """The worker is rank 8 with one flow and rank 9 with three."""
    shared = msgspec.structs.replace(request(1, DECODER, 1), decode_ranks=(DECODER, 9), p2d_flows=(1, 3))
    desk = Desk(shared)
    desk.arrives(1, 20)
    assert desk.coordinator.next() == FirstToken(request=1, ranks=2, p2d_end_ns=20 * MS, time_ns=50 * MS)


def test_the_last_rank_of_a_worker_makes_the_first_token() -> None:
    """Reports may come in another order than the steps, and those of several requests mix."""
    steps = FirstSteps()
    assert steps.taken(FirstToken(request=1, ranks=2, p2d_end_ns=20, time_ns=50)) is None
    assert steps.taken(FirstToken(request=2, ranks=1, p2d_end_ns=3, time_ns=33)) is not None
    first = steps.taken(FirstToken(request=1, ranks=2, p2d_end_ns=10, time_ns=40))
    assert first is not None
    assert (first.request, first.p2d_end_ns, first.time_ns) == (1, 20, 50)


# --- a first token that is really computed ----------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [0, 3000])
def test_a_first_token_is_computed_in_its_decode_step(ahead_s: int) -> None:
    """The step takes 30 ms of model time. It is waited out, whatever part of it the computing took, and
    however far the clock of the server is ahead."""
    coordinator, computed = Coordinator(), []
    clock = Clock(1.0, offset_ns=ahead_s * 10**9)
    clock.start(clock.wall_ns())
    failures: queue.Queue[BaseException] = queue.Queue()
    desk = DecodeDesk(
        DECODER,
        clock,
        coordinator,  # type: ignore[arg-type]
        Recorder(),
        failures.put,
        lambda request: computed.append(request.request),
    )
    desk.expect(plan(request(1, DECODER, 1)))
    before_ns = clock.now_ns()
    desk.arrived(1, before_ns)
    said = coordinator.next()
    assert isinstance(said, FirstToken)
    assert computed == [1]
    assert said.time_ns - before_ns >= 30 * MS

"""What a rank does with flows that have arrived: what it reports, and what it keeps."""

import threading

import pytest

from controller.flow import Stage
from controller.protocol import Completion, FlowProgress, decode_up
from workers.arrivals import Arrivals
from workers.clock import Clock
from workers.lanes import Header
from workers.protocol import Arrived, decode_from_rank
from workers.recorder import Recorder


class Heard:
    """An outbox or a desk that keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.requests: list[int] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def arrived(self, request: int, now_ns: int) -> None:
        self.requests.append(request)


class World:
    def __init__(self) -> None:
        clock = Clock(1.0)
        clock.start(0)
        self.controller, self.coordinator, self.desk = Heard(), Heard(), Heard()
        self.recorder = Recorder()
        self.arrivals = Arrivals(
            clock,
            self.controller,  # type: ignore[arg-type]
            self.coordinator,  # type: ignore[arg-type]
            self.recorder,
            self.desk,  # type: ignore[arg-type]
        )

    def arrives(self, flow: str, stage: Stage, request: int | None) -> None:
        header = Header(flow=flow, size_bytes=10, wire_bytes=10, request=request)
        self.arrivals.arrived(stage, header, verified=None)


@pytest.mark.parametrize(("stage", "request_id"), [(Stage.KV_REUSE, 4), (Stage.P2D, 4), (Stage.P2D, None)])
def test_the_controller_hears_of_every_flow(stage: Stage, request_id: int | None) -> None:
    world = World()
    world.arrives("f", stage, request_id)
    assert [decode_up(frame) for frame in world.controller.frames] == [Completion(flow="f")]
    assert [row.id for row in world.recorder.received] == ["f"]


def test_the_coordinator_hears_only_of_flows_of_no_request() -> None:
    """A batch has thousands of flows, and the coordinator has no use for them."""
    world = World()
    world.arrives("s1", Stage.KV_REUSE, 4)
    world.arrives("s3", Stage.P2D, 4)
    assert world.coordinator.frames == []
    world.arrives("background", Stage.COLLECTIVE, None)
    world.arrives("micro", Stage.KV_REUSE, None)
    told = [decode_from_rank(frame) for frame in world.coordinator.frames]
    assert told == [Arrived(flow="background"), Arrived(flow="micro")]


def test_kv_for_a_first_token_goes_to_the_decode_desk() -> None:
    world = World()
    world.arrives("s3", Stage.P2D, 4)
    assert world.desk.requests == [4]


def test_nothing_is_kept_but_reused_kv_until_its_layer_has_waited_for_it() -> None:
    """Background decoding sends flows for as long as a run lasts, so they must leave nothing behind."""
    world = World()
    for i in range(100):
        world.arrives(f"decode.s{i}", Stage.COLLECTIVE, None)
        world.arrives(f"s3.{i}", Stage.P2D, i)
        world.arrives(f"s1.{i}", Stage.KV_REUSE, i)
    assert len(world.arrivals._fetched) == 100
    world.arrivals.take([f"s1.{i}" for i in range(100)])
    assert len(world.arrivals._fetched) == 0


def test_a_layer_waits_for_all_of_its_reused_kv() -> None:
    world = World()
    through = threading.Event()

    def layer() -> None:
        world.arrivals.take(["a", "b"])
        through.set()

    threading.Thread(target=layer, daemon=True).start()
    world.arrives("a", Stage.KV_REUSE, 1)
    assert not through.wait(0.05)
    world.arrives("b", Stage.KV_REUSE, 1)
    assert through.wait(5)


def test_progress_is_told_in_bytes_that_are_left() -> None:
    world = World()
    world.arrivals.progressed("f", 100, 30)
    (said,) = map(decode_up, world.controller.frames)
    assert said == FlowProgress(flow="f", bytes_left=70)
    assert [(mark.flow, mark.received_bytes) for mark in world.recorder.progress] == [("f", 30)]

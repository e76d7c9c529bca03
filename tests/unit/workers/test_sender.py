"""The sending side of a rank: it submits first, sends when it has the permit, and records both."""

import threading

import msgspec
import pytest
import torch

from controller.flow import ALL_PEERS, Level, Stage, Transfer
from controller.protocol import Completion, Permit, Submit, SubmitShare, decode_up
from workers.clock import Clock
from workers.lanes import Header, Load
from workers.recorder import Recorder
from workers.sender import Sender, wire_bytes

MS = 1_000_000


class Controller:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.told = threading.Event()

    def send(self, frame: bytes) -> None:
        self.heard.append(decode_up(frame))
        self.told.set()


class Lane:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[Header] = []
        self.loads: list[Load | None] = []

    def send(self, flow: Header, load: Load | None) -> None:
        self.sent.append(flow)
        self.loads.append(load)


class World:
    def __init__(self, *, bytes_scale: float = 1.0) -> None:
        self.controller = Controller()
        self.recorder = Recorder()
        self.lanes = {name: Lane(name) for name in ("one", "two")}
        clock = Clock(2.0)
        clock.start(0)
        self.sender = Sender(clock, self.controller, self.recorder, bytes_scale)  # type: ignore[arg-type]
        for lane in self.lanes.values():
            self.sender.add_lane(lane)  # type: ignore[arg-type]


TRANSFER = Transfer(
    id="f", stage=Stage.P2D, src=3, dst=9, size_bytes=1000, batch="b", request=4, layer=2, deadline_ns=77
)


SHARE = Transfer(
    id="c.3",
    stage=Stage.COLLECTIVE,
    src=3,
    dst=ALL_PEERS,
    size_bytes=30,
    batch="b",
    layer=1,
    coflow="c",
)


def permit(flow: str, lane: str, *, waited_ns: int = 0) -> Permit:
    return Permit(flow=flow, lane=lane, level=Level.P2, lane_wait_wall_ns=waited_ns)


def test_a_transfer_is_submitted_with_all_the_scheduler_has_to_know() -> None:
    world = World()
    world.sender.post(TRANSFER)
    (said,) = world.controller.heard
    assert isinstance(said, Submit)
    assert said.transfer == TRANSFER


def test_no_byte_goes_before_the_permit_and_then_to_the_permitted_lane() -> None:
    world = World(bytes_scale=0.25)
    world.sender.post(TRANSFER)
    assert world.lanes["two"].sent == []
    world.sender.permitted(permit("f", "two"))
    assert world.lanes["one"].sent == []
    assert world.lanes["two"].sent == [Header(flow="f", size_bytes=1000, wire_bytes=250, request=4)]


def test_the_record_tells_permit_latency_from_the_wait_for_a_lane() -> None:
    """The wait of 6 wall ms is 3 model ms at a dilation of 2. The rest of the time is the latency."""
    world = World()
    world.sender.post(TRANSFER)
    world.sender.permitted(permit("f", "one", waited_ns=6 * MS))
    (sent,) = world.recorder.sent
    assert sent.lane_wait_ns == 3 * MS
    taken_wall_ns = 2 * (sent.permit_ns - sent.submit_ns)
    assert sent.permit_latency_wall_ns == pytest.approx(taken_wall_ns - 6 * MS, abs=4)
    assert sent.transfer == TRANSFER


def test_a_share_waits_for_its_permit() -> None:
    world = World()
    done = threading.Event()

    def collective() -> None:
        world.sender.share_permitted(SHARE, "ep", {1: 10, 2: 20})
        done.set()

    threading.Thread(target=collective, daemon=True).start()
    assert world.controller.told.wait(5)
    (said,) = world.controller.heard
    assert isinstance(said, SubmitShare)
    assert (said.share, said.group, said.peer_bytes) == (SHARE, "ep", {1: 10, 2: 20})
    assert not done.wait(0.05)
    world.sender.permitted(permit("c.3", ""))
    assert done.wait(5)
    (sent,) = world.recorder.sent
    assert sent.transfer == SHARE
    world.sender.share_ended("c.3")
    assert world.controller.heard[1:] == [Completion(flow="c.3")]


@pytest.mark.parametrize(("size", "scale", "wire"), [(1000, 0.001, 1), (10, 0.001, 1), (3000, 0.5, 1500)])
def test_a_message_is_at_least_one_byte_on_the_wire(size: int, scale: float, wire: int) -> None:
    assert wire_bytes(size, scale) == wire


def test_only_transfers_of_requests_have_bytes_of_their_own() -> None:
    """Background traffic beside real layers has seeded bytes."""
    world = World()
    world.sender._load = lambda transfer: torch.full((transfer.size_bytes,), 7, dtype=torch.uint8)
    for transfer in (TRANSFER, msgspec.structs.replace(TRANSFER, id="g", request=None)):
        world.sender.post(transfer)
        world.sender.permitted(Permit(flow=transfer.id, lane="one", level=Level.P2, lane_wait_wall_ns=0))
    of_request, of_none = world.lanes["one"].loads
    assert of_request is not None
    assert of_request().tolist() == [7] * 1000
    assert of_none is None

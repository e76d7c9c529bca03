"""How much memory lanes may pin, worked out by hand and by what staging really takes."""

import queue
import time

import pytest
import torch
from late_streams import CHUNK, PAGE, InstantGroup
from worker_groups import CPU, WAIT_S

from controller.flow import Stage
from workers.lanes import Header, ReceiveLane, SendLane
from workers.payload import Payloads
from workers.pinned import most_pinned_bytes, refusal
from workers.protocol import LaneSpec
from workers.seeded_pages import SeededPages
from workers.staging import DeviceStaging

KIB, MIB, GIB = 2**10, 2**20, 2**30
LANES = tuple(
    LaneSpec(id=f"{src}-{dst}", stage=Stage.P2D, src=src, dst=dst) for src, dst in ((0, 1), (0, 2), (1, 0))
)


def test_a_lane_pins_two_chunks_to_send_and_its_window_to_receive() -> None:
    """With chunks of 16 MiB, 2 to send; 4 + 2 + 2 and the first one of 256 KiB to receive."""
    sending, receiving = 32 * MIB, 8 * 16 * MIB + 256 * KIB
    assert most_pinned_bytes(LANES, {2}, 16 * MIB) == receiving
    assert most_pinned_bytes(LANES, {0}, 16 * MIB) == 2 * sending + receiving
    assert most_pinned_bytes(LANES, {0, 1, 2}, 16 * MIB) == 3 * (sending + receiving)
    assert most_pinned_bytes(LANES, {3}, 16 * MIB) == 0


def test_small_chunks_fill_a_window_of_a_fixed_size() -> None:
    """8 MiB are 32 chunks of 256 KiB."""
    assert most_pinned_bytes(LANES, {2}, 256 * KIB) == (1 + 32 + 2 + 2) * 256 * KIB


def test_more_than_half_of_the_memory_is_refused_with_the_key() -> None:
    """Three lanes send 2 GiB each, and two receive 8 GiB each, if chunks are of 1 GiB."""
    needed = most_pinned_bytes(LANES, {0, 1}, GIB)
    assert refusal(LANES, {0, 1}, GIB, 2 * needed) is None
    told = refusal(LANES, {0, 1}, GIB, 2 * needed - 2)
    assert told is not None
    assert told.startswith(
        "workers.chunk_kib: with chunks of 1048576 KiB, the lanes of the 2 ranks on this machine may pin"
        " 22.0 GiB of its 44.0 GiB of memory;"
    )


def test_lanes_pin_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of 40 chunks, all of it compared. What would be pinned on a GPU is counted here on a CPU."""
    monkeypatch.setattr("workers.lanes.WINDOW_BYTES", 0)
    monkeypatch.setattr("workers.pinned.WINDOW_BYTES", 0)
    taken: list[int] = []

    def counted(size_bytes: int, device: torch.device) -> torch.Tensor:
        taken.append(size_bytes)
        return torch.empty(size_bytes, dtype=torch.uint8)

    for module in ("buffers", "staging"):
        monkeypatch.setattr(f"workers.{module}.host_memory", counted)
    payloads = Payloads(1)
    pages = SeededPages(payloads, CPU, page_bytes=PAGE, chunk_bytes=CHUNK, lanes=1)
    staging = DeviceStaging(payloads, CPU, pages)
    group = InstantGroup()
    arrived: queue.Queue[object] = queue.Queue()
    ReceiveLane(
        "lane",
        group,
        staging,
        CHUNK,
        1.0,
        progressed=lambda *_: None,
        arrived=lambda header, verified: arrived.put((header.flow, verified)),
        failed=arrived.put,
    )
    SendLane("lane", group, staging, CHUNK, arrived.put).send(
        Header(flow="m", size_bytes=40 * CHUNK, wire_bytes=40 * CHUNK)
    )
    assert arrived.get(timeout=WAIT_S) == ("m", True)
    lane = (LaneSpec(id="lane", stage=Stage.P2D, src=0, dst=0),)
    read_back = 2 * CHUNK  # by the pages, which are not counted here
    assert CHUNK < sum(taken) <= most_pinned_bytes(lane, {0}, CHUNK) - read_back


def test_a_short_message_pins_no_whole_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def counted(size_bytes: int, device: torch.device) -> torch.Tensor:
        taken.append(size_bytes)
        return torch.empty(size_bytes, dtype=torch.uint8)

    monkeypatch.setattr("workers.buffers.host_memory", counted)
    payloads = Payloads(1)
    pages = SeededPages(payloads, CPU, page_bytes=PAGE, chunk_bytes=CHUNK, lanes=1)
    failed: queue.Queue[object] = queue.Queue()
    lane = SendLane("lane", InstantGroup(), DeviceStaging(payloads, CPU, pages), GIB, failed.put)
    lane.send(Header(flow="m", size_bytes=CHUNK, wire_bytes=CHUNK))
    deadline = time.monotonic() + WAIT_S
    while not taken:
        assert failed.empty()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert taken == [2 * CHUNK]

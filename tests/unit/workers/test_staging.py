"""Staging for a GPU, on a CPU: nothing is sent, reused or kept before its copy is over."""

import queue
import zlib
from typing import Any

import pytest
import torch
from late_streams import CHUNK, PAGE, InstantGroup, late
from worker_groups import CPU, WAIT_S, connected

from workers.lanes import Header, ReceiveLane, SendLane
from workers.payload import BLOCK_BYTES, Payloads, WrongPayload
from workers.seeded_pages import SeededPages
from workers.staging import Staging, staging_for

PAYLOADS = Payloads(1)


@pytest.fixture(params=["gloo", "instant"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Both ends of a lane, which receives in a few buffers only."""
    monkeypatch.setattr("workers.lanes.WINDOW_BYTES", 0)
    return connected(2) if request.param == "gloo" else [InstantGroup()] * 2


def sent(
    ends: list[Any], sender: Staging, receiver: Staging, *messages: tuple[Header, torch.Tensor | None]
) -> tuple["queue.Queue[tuple[str, object]]", "queue.Queue[BaseException]"]:
    """Send messages on a lane. Returns what is kept or arrives, and what goes wrong."""
    events: queue.Queue[tuple[str, object]] = queue.Queue()
    errors: queue.Queue[BaseException] = queue.Queue()
    ReceiveLane(
        "lane",
        ends[1],
        receiver,
        CHUNK,
        1.0,
        progressed=lambda *_: None,
        arrived=lambda header, verified: events.put((header.flow, verified)),
        failed=errors.put,
        keep=lambda flow, content: events.put((flow, content.clone())),
    )
    lane = SendLane("lane", ends[0], sender, CHUNK, errors.put)
    for header, content in messages:
        lane.send(header, None if content is None else lambda content=content: content)  # type: ignore[misc]
    return events, errors


def seeded(name: str, size: int) -> tuple[Header, None]:
    return Header(flow=name, size_bytes=size, wire_bytes=size), None


def content(name: str, size: int) -> tuple[Header, torch.Tensor]:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    made = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    return Header(flow=name, size_bytes=size, wire_bytes=size), made


SIZES = (1, CHUNK, CHUNK + 1, 7 * CHUNK + 3, 40 * CHUNK)


@pytest.mark.parametrize("ways", ["both late", "sender late", "receiver late"])
def test_seeded_bytes_are_right_however_late_copies_are(ends: list[Any], ways: str) -> None:
    plain = Staging(PAYLOADS, CPU)
    sender = plain if ways == "receiver late" else late(PAYLOADS)
    receiver = plain if ways == "sender late" else late(PAYLOADS)
    events, errors = sent(ends, sender, receiver, *(seeded(f"f{size}", size) for size in SIZES))
    for size in SIZES:
        assert events.get(timeout=WAIT_S) == (f"f{size}", True)
    assert errors.empty()


@pytest.mark.parametrize("ways", ["both late", "sender late", "receiver late"])
def test_content_is_right_however_late_copies_are(ends: list[Any], ways: str) -> None:
    plain = Staging(PAYLOADS, CPU)
    sender = plain if ways == "receiver late" else late(PAYLOADS)
    receiver = plain if ways == "sender late" else late(PAYLOADS)
    messages = [content(f"f{size}", size) for size in SIZES]
    events, errors = sent(ends, sender, receiver, *messages)
    for header, expected in messages:
        name, kept = events.get(timeout=WAIT_S)
        assert name == header.flow
        assert torch.equal(kept, expected)  # type: ignore[arg-type]
        assert events.get(timeout=WAIT_S) == (header.flow, True)
    assert errors.empty()


def test_wrong_seeded_bytes_in_pages_are_noticed(ends: list[Any]) -> None:
    _, errors = sent(ends, late(Payloads(2)), late(PAYLOADS), seeded("f", 2500))
    error = errors.get(timeout=WAIT_S)
    assert isinstance(error, WrongPayload)
    assert str(error).startswith("f/0: ")


def test_chunk_i_plus_1_is_copied_while_chunk_i_is_sent() -> None:
    """A chunk may not be posted before its copy, nor a buffer be copied to before its last chunk has left."""
    happened: list[str] = []

    class Work:
        def __init__(self, number: int) -> None:
            self.number = number

        def wait(self) -> None:
            happened.append(f"left {self.number}")

    staging = late(PAYLOADS)
    posted: list[bytes] = []

    def post(place: torch.Tensor) -> Work:
        happened.append(f"post {len(posted)}")
        posted.append(bytes(place.numpy()))
        return Work(len(posted) - 1)

    def part(number: int) -> torch.Tensor:
        happened.append(f"copy {number}")
        return torch.full((2,), number, dtype=torch.uint8)

    staging.send([2, 2, 2, 2], part, post)
    assert posted == [bytes([number, number]) for number in range(4)]
    assert happened == [
        *("copy 0", "post 0", "copy 1", "post 1"),
        *("left 0", "copy 2", "post 2", "left 1", "copy 3", "post 3", "left 2", "left 3"),
    ]


def test_on_a_cpu_bytes_are_sent_from_where_they_are() -> None:
    staging = staging_for(CPU, PAYLOADS, page_bytes=PAGE, chunk_bytes=CHUNK, lanes=1)
    posted: list[torch.Tensor] = []
    staging.send([100], lambda _: staging.source("f", 100), posted.append)
    assert posted[0].data_ptr() == PAYLOADS.of("f", 100).data_ptr()


@pytest.mark.parametrize("page_bytes", [1, 96, 4096, 3_000_001])
def test_pages_have_the_bytes_of_the_payloads(page_bytes: int) -> None:
    pages = SeededPages(PAYLOADS, CPU, page_bytes=page_bytes, chunk_bytes=CHUNK, lanes=1)
    for name, size in (("a", 1), ("b", 12_345), ("c", 100_001), ("d", BLOCK_BYTES)):
        assert torch.equal(pages.gather(name, size), PAYLOADS.of(name, size))


def test_pages_have_the_bytes_of_chunks_larger_than_the_seeded_block() -> None:
    pages = SeededPages(PAYLOADS, CPU, page_bytes=4096, chunk_bytes=CHUNK, lanes=1)
    size = 2 * BLOCK_BYTES + 77
    assert torch.equal(pages.gather("e", size), PAYLOADS.of("e", size))


def test_a_chunk_is_read_back_from_the_pages_that_it_was_scattered_to() -> None:
    pages = SeededPages(PAYLOADS, CPU, page_bytes=PAGE, chunk_bytes=CHUNK, lanes=1)
    for name, size in (("a", 1), ("b", PAGE), ("c", CHUNK)):
        piece = PAYLOADS.of(name, size)
        read = pages.scatter(piece, read_back=True)
        assert read is not None
        assert torch.equal(read, piece)
    assert pages.scatter(PAYLOADS.of("d", CHUNK), read_back=False) is None

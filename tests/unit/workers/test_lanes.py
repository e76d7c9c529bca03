"""Lanes over real TCP: messages arrive in order and in chunks, and wrong bytes do not pass."""

import queue
from dataclasses import dataclass, field

import pytest
import torch
from worker_groups import CPU, WAIT_S, connected

from workers.lanes import Header, ReceiveLane, SendLane, chunks
from workers.payload import Payloads, WrongPayload
from workers.staging import Staging


@dataclass
class Heard:
    """What the receiving end reported, in order. `errors` are those of both ends."""

    events: "queue.Queue[tuple[object, ...]]" = field(default_factory=queue.Queue)
    errors: "queue.Queue[BaseException]" = field(default_factory=queue.Queue)

    def progressed(self, flow: str, size_bytes: int, received_bytes: int) -> None:
        self.events.put((flow, size_bytes, received_bytes))

    def arrived(self, header: Header, verified: bool | None) -> None:
        self.events.put((header.flow, verified))

    def next(self) -> tuple[object, ...]:
        return self.events.get(timeout=WAIT_S)


def lane(
    *,
    verify_share: float = 1.0,
    chunk_bytes: int = 1000,
    receiver_seed: int = 1,
    report_gap_s: float = 0.0,
    sender: Staging | None = None,
    receiver: Staging | None = None,
) -> tuple[SendLane, Heard]:
    sending, receiving = connected(2)
    heard = Heard()
    ReceiveLane(
        "lane",
        receiving,
        Staging(Payloads(receiver_seed), CPU) if receiver is None else receiver,
        chunk_bytes,
        verify_share,
        progressed=heard.progressed,
        arrived=heard.arrived,
        failed=heard.errors.put,
        report_gap_s=report_gap_s,
    )
    staging = Staging(Payloads(1), CPU) if sender is None else sender
    return SendLane("lane", sending, staging, chunk_bytes, heard.errors.put), heard


def test_a_message_arrives_and_its_bytes_are_right() -> None:
    send, heard = lane()
    send.send(Header(flow="f", size_bytes=500, wire_bytes=500))
    assert heard.next() == ("f", True)


def test_progress_is_told_per_chunk_in_model_bytes() -> None:
    """2,500 bytes on the wire stand for 10,000 model bytes; the last chunk is the arrival itself."""
    send, heard = lane()
    send.send(Header(flow="f", size_bytes=10_000, wire_bytes=2500))
    assert [heard.next() for _ in range(3)] == [("f", 10_000, 4000), ("f", 10_000, 8000), ("f", True)]


def test_progress_is_told_no_more_often_than_is_asked_for() -> None:
    send, heard = lane(report_gap_s=1000.0)
    send.send(Header(flow="f", size_bytes=10_000, wire_bytes=2500))
    assert heard.next() == ("f", True)


def test_the_first_chunk_is_no_larger_than_the_buffer_that_waits_for_it() -> None:
    """256 KiB; the others are of 600,000 bytes, but for the last."""
    assert chunks("f", 1_000_000, 600_000) == [("f/0", 262_144), ("f/1", 600_000), ("f/2", 137_856)]
    assert chunks("f", 200_000, 600_000) == [("f/0", 200_000)]
    assert chunks("f", 2500, 1000) == [("f/0", 1000), ("f/1", 1000), ("f/2", 500)]


def test_chunks_land_in_a_few_buffers_in_turn_and_are_checked_before_the_next() -> None:
    """A small chunk and eleven of up to 3 MiB, four of which are waited for at a time."""
    send, heard = lane(chunk_bytes=3 * 2**20)
    for name in ("f", "g"):
        send.send(Header(flow=name, size_bytes=1, wire_bytes=32 * 2**20))
    events = [heard.next() for _ in range(2 * 12)]
    assert [event for event in events if len(event) == 2] == [("f", True), ("g", True)]


def test_a_small_message_does_not_overtake_a_large_one_that_is_queued() -> None:
    send, heard = lane(chunk_bytes=100_000, report_gap_s=1000.0)
    names = [f"f{i}" for i in range(20)]
    for i, name in enumerate(names):
        send.send(Header(flow=name, size_bytes=1, wire_bytes=10 if i % 2 else 500_000))
    assert [heard.next() for _ in names] == [(name, True) for name in names]


def test_messages_arrive_one_after_the_other_in_the_order_they_were_sent() -> None:
    send, heard = lane(chunk_bytes=100_000)
    names = [f"f{i}" for i in range(20)]
    for i, name in enumerate(names):
        send.send(Header(flow=name, size_bytes=1, wire_bytes=1 + 4999 * (i % 3)))
    assert [heard.next() for _ in names] == [(name, True) for name in names]


def test_a_message_of_one_byte_is_a_message() -> None:
    send, heard = lane()
    send.send(Header(flow="f", size_bytes=9, wire_bytes=1))
    assert heard.next() == ("f", True)


def test_a_message_larger_than_the_seeded_block_arrives_unharmed() -> None:
    send, heard = lane(chunk_bytes=9 * 1024 * 1024, report_gap_s=1000.0)
    send.send(Header(flow="f", size_bytes=1, wire_bytes=18 * 1024 * 1024))
    assert heard.next() == ("f", True)


def test_a_message_outside_the_sample_is_not_called_verified() -> None:
    send, heard = lane(verify_share=0.0)
    send.send(Header(flow="f", size_bytes=1, wire_bytes=1))
    assert heard.next() == ("f", None)


def test_wrong_bytes_are_reported_and_the_flow_does_not_arrive() -> None:
    send, heard = lane(receiver_seed=2)
    send.send(Header(flow="f", size_bytes=500, wire_bytes=500))
    error = heard.errors.get(timeout=WAIT_S)
    assert isinstance(error, WrongPayload)
    assert str(error).startswith("f/0: ")
    assert heard.events.empty()


def test_wrong_bytes_outside_the_sample_pass_unseen() -> None:
    send, heard = lane(receiver_seed=2, verify_share=0.0)
    send.send(Header(flow="f", size_bytes=500, wire_bytes=500))
    assert heard.next() == ("f", None)


@pytest.mark.parametrize("length", [300, 30_000])
def test_a_flow_whose_name_does_not_fit_the_header_is_an_error(length: int) -> None:
    send, heard = lane()
    send.send(Header(flow="x" * length, size_bytes=1, wire_bytes=1))
    error = heard.errors.get(timeout=WAIT_S)
    assert isinstance(error, ValueError)
    assert "too long for a lane's header" in str(error)


# --- payloads that do not follow from a name ----------------------------------------------------


def real_lane(
    *, chunk_bytes: int = 1000, sender: Staging | None = None, receiver: Staging | None = None
) -> tuple[SendLane, Heard]:
    sending, receiving = connected(2)
    heard = Heard()
    ReceiveLane(
        "lane",
        receiving,
        Staging(Payloads(1), CPU) if receiver is None else receiver,
        chunk_bytes,
        0.0,
        progressed=heard.progressed,
        arrived=heard.arrived,
        failed=heard.errors.put,
        keep=lambda flow, content: heard.events.put((flow, content.tolist())),
    )
    staging = Staging(Payloads(1), CPU) if sender is None else sender
    return SendLane("lane", sending, staging, chunk_bytes, heard.errors.put), heard


def test_a_payload_of_the_senders_arrives_as_it_is_and_is_kept_before_it_has_arrived() -> None:
    send, heard = real_lane(chunk_bytes=2)
    send.send(Header(flow="f", size_bytes=5, wire_bytes=5), lambda: torch.arange(10, 15, dtype=torch.uint8))
    assert [heard.next() for _ in range(4)] == [
        ("f", 5, 2),
        ("f", 5, 4),
        ("f", [10, 11, 12, 13, 14]),
        ("f", True),
    ]


def test_a_payload_of_another_size_than_was_permitted_is_an_error() -> None:
    send, heard = real_lane()
    send.send(Header(flow="f", size_bytes=5, wire_bytes=5), lambda: torch.zeros(4, dtype=torch.uint8))
    assert str(heard.errors.get(timeout=WAIT_S)) == "f has 4 B to send, not 5"


def test_a_payload_that_changes_on_the_way_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender and the receiver get different sums."""
    sums = iter((1, 2))
    monkeypatch.setattr("workers.lanes.checksum", lambda *_: next(sums))
    send, heard = real_lane()
    send.send(Header(flow="f", size_bytes=1, wire_bytes=1), lambda: torch.zeros(1, dtype=torch.uint8))
    error = heard.errors.get(timeout=WAIT_S)
    assert isinstance(error, WrongPayload)
    assert str(error) == "f: the bytes that arrived are not those that were sent"
    assert heard.events.empty()

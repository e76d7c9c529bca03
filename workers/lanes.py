"""Lanes: two-rank groups that carry one flow at a time, in one direction.

A message is a small header (the flow and its size) and the payload in chunks. Only the *receiver* knows
when it has arrived: the sender's call returns when the kernel has taken the bytes, which may still wait in
a queue of the fabric.

gloo sends a message only when the receiver has said that it is ready for it. So the receiver is always ready
for a header and a first chunk, and a message does not wait for an answer to its header.
"""

import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import torch

from workers.buffers import Buffers
from workers.payload import Payloads, WrongPayload, sampled

FIRST_BYTES = 256 * 1024
"""The first chunk is no larger, because each lane has a buffer for it."""

_HEADER_BYTES = 256
_WINDOW_BYTES = 8 * 1024 * 1024
"""For how many bytes of a seeded message a lane is ready at a time."""

_LEAST_WINDOW = 4
"""At least for so many chunks, however large they are."""


class Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The header of a message. `size_bytes` are model bytes, `request` is the flow's request, if any.

    `checksum` is the CRC-32 of a payload that does not follow from the flow's name.
    """

    flow: str
    size_bytes: int
    wire_bytes: int
    request: int | None = None
    checksum: int | None = None


Load = Callable[[], torch.Tensor]
"""Returns the bytes of a flow, as many as its `wire_bytes`."""


class SendLane:
    """The sending end. `send` queues a permitted flow, and a thread sends it.

    The thread sends the bytes that `load` returns, or without it those that follow from the flow's name.
    """

    def __init__(
        self,
        name: str,
        group: Any,
        payloads: Payloads,
        chunk_bytes: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.name = name
        self._group = group
        self._payloads = payloads
        self._chunk_bytes = chunk_bytes
        self._failed = failed
        self._queue: queue.SimpleQueue[tuple[Header, Load | None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"send {name}", daemon=True).start()

    def send(self, flow: Header, load: Load | None = None) -> None:
        self._queue.put((flow, load))

    def _run(self) -> None:
        try:
            while True:
                flow, load = self._queue.get()
                if load is None:
                    self._send_now(flow, self._seeded(flow))
                else:
                    self._send_content(flow, load())
        except BaseException as error:
            self._failed(error)

    def _seeded(self, flow: Header) -> Iterator[torch.Tensor]:
        for name, size in chunks(flow.flow, flow.wire_bytes, self._chunk_bytes):
            # gloo sends from the host's memory: a payload on a GPU is staged there.
            yield self._payloads.source(name, size).cpu()

    def _send_content(self, flow: Header, content: torch.Tensor) -> None:
        if len(content) != flow.wire_bytes:
            raise ValueError(f"{flow.flow} has {len(content)} B to send, not {flow.wire_bytes}")
        checked = msgspec.structs.replace(flow, checksum=checksum(content))
        sizes = [size for _, size in chunks(flow.flow, flow.wire_bytes, self._chunk_bytes)]
        self._send_now(checked, content.split(sizes))

    def _send_now(self, flow: Header, parts: Iterable[torch.Tensor]) -> None:
        works = [self._group.send([_pack(flow)], 1, 0)]
        works += [self._group.send([part], 1, 0) for part in parts]
        for work in works:
            work.wait()


class ReceiveLane:
    """The receiving end: a thread that receives one message after the other.

    `progressed(flow, size, received)` is called after chunks, but not after the last, in model bytes, and
    not until `report_gap_s` of wall time have passed since the last call or the header.
    `arrived(header, verified)` is called after the last; `verified` is None if the bytes were not compared.
    Before it, `keep(flow, payload)` is called with a payload that has a checksum. `buffers` are those of all
    lanes of a rank.
    """

    def __init__(
        self,
        name: str,
        group: Any,
        payloads: Payloads,
        chunk_bytes: int,
        verify_share: float,
        *,
        device: torch.device,
        progressed: Callable[[str, int, int], None],
        arrived: Callable[[Header, bool | None], None],
        failed: Callable[[BaseException], None],
        keep: Callable[[str, torch.Tensor], None] | None = None,
        report_gap_s: float = 0.0,
        buffers: Buffers | None = None,
    ) -> None:
        self._group = group
        self._buffers = Buffers() if buffers is None else buffers
        self._report_gap_s = report_gap_s
        self._payloads = payloads
        self._chunk_bytes = chunk_bytes
        self._keep = keep
        self._verify_share = verify_share
        self._device = device
        self._progressed = progressed
        self._arrived = arrived
        self._failed = failed
        threading.Thread(target=self._run, name=f"receive {name}", daemon=True).start()

    def _run(self) -> None:
        buffer = torch.empty(_HEADER_BYTES, dtype=torch.uint8)
        first = torch.empty(min(self._chunk_bytes, FIRST_BYTES), dtype=torch.uint8)
        try:
            while True:
                header = self._group.recv([buffer], 0, 0)
                first_work = self._group.recv([first], 0, 0)
                header.wait()
                self._receive(_unpack(buffer), first, first_work)
        except BaseException as error:
            self._failed(error)

    def _receive(self, header: Header, first: torch.Tensor, first_work: Any) -> None:
        parts = chunks(header.flow, header.wire_bytes, self._chunk_bytes)
        seeded = header.checksum is None
        whole = None if seeded else torch.empty(header.wire_bytes, dtype=torch.uint8)
        verify = seeded and sampled(header.flow, self._verify_share)
        received, reported_s = 0, time.monotonic()
        pieces = self._pieces([size for _, size in parts], whole, first, first_work)
        for (name, size), piece in zip(parts, pieces, strict=True):
            if whole is not None and received == 0:
                whole[:size] = piece
            if verify:
                self._payloads.check(name, piece)
            if self._device.type != "cpu":
                piece.to(self._device)  # KV belongs in the GPU's memory
            received += size
            if received < header.wire_bytes and time.monotonic() - reported_s >= self._report_gap_s:
                reported_s = time.monotonic()
                share = received / header.wire_bytes
                self._progressed(header.flow, header.size_bytes, int(header.size_bytes * share))
        if whole is not None:
            self._keep_content(header, whole)
        self._arrived(header, True if verify or not seeded else None)

    def _pieces(
        self, sizes: Sequence[int], whole: torch.Tensor | None, first: torch.Tensor, first_work: Any
    ) -> Iterator[torch.Tensor]:
        """Yield the chunks of a message in order, each when it is here: in `whole`, or until the next one.

        Without `whole`, chunks land in a few buffers in turn. New memory for each message would cost more
        than a large message itself, because the kernel clears it.
        """
        rest, largest = sizes[1:], max(sizes[1:], default=0)
        ahead = len(rest)
        if whole is None and largest:
            ahead = min(ahead, max(_LEAST_WINDOW, _WINDOW_BYTES // largest))
        ring = self._buffers.take(min(len(rest), ahead + 1) * largest) if whole is None and rest else None
        under_way: deque[tuple[torch.Tensor, Any]] = deque([(first[: sizes[0]], first_work)])
        offset = sizes[0]
        for number, size in enumerate(rest):
            if len(under_way) > ahead:
                yield _here(*under_way.popleft())
            if ring is None:
                assert whole is not None
                place = whole[offset : offset + size]
            else:
                begin = number % (ahead + 1) * largest
                place = ring[begin : begin + size]
            under_way.append((place, self._group.recv([place], 0, 0)))
            offset += size
        while under_way:
            yield _here(*under_way.popleft())
        if ring is not None:
            self._buffers.give(ring)

    def _keep_content(self, header: Header, content: torch.Tensor) -> None:
        if checksum(content) != header.checksum:
            raise WrongPayload(f"{header.flow}: the bytes that arrived are not those that were sent")
        if self._keep is not None:
            self._keep(header.flow, content)


def _here(piece: torch.Tensor, work: Any) -> torch.Tensor:
    """The piece, once its bytes are there."""
    work.wait()
    return piece


def checksum(content: torch.Tensor) -> int:
    """The CRC-32 of bytes on the CPU."""
    return zlib.crc32(content.numpy())


def chunks(flow: str, wire_bytes: int, chunk_bytes: int) -> list[tuple[str, int]]:
    """The name and the wire bytes of each chunk of a message, in order."""
    first = min(chunk_bytes, FIRST_BYTES, wire_bytes)
    sizes = [first, *(min(chunk_bytes, wire_bytes - at) for at in range(first, wire_bytes, chunk_bytes))]
    return [(f"{flow}/{i}", size) for i, size in enumerate(sizes)]


def _pack(header: Header) -> torch.Tensor:
    """The header on the wire: its length in two bytes, msgpack, padding."""
    raw = msgspec.msgpack.encode(header)
    framed = len(raw).to_bytes(2, "big") + raw
    if len(framed) > _HEADER_BYTES:
        raise ValueError(f"the id of flow {header.flow!r} is too long for a lane's header")
    return torch.frombuffer(bytearray(framed.ljust(_HEADER_BYTES, b"\0")), dtype=torch.uint8)


def _unpack(buffer: torch.Tensor) -> Header:
    raw = bytes(buffer.numpy())
    length = int.from_bytes(raw[:2], "big")
    return msgspec.msgpack.decode(raw[2 : 2 + length], type=Header)

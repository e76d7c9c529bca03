"""Lanes: two-rank groups that carry one flow at a time, in one direction.

A message is a small header (the flow and its size) and the payload in chunks. Only the *receiver* knows
when it has arrived: the sender's call returns when the kernel has taken the bytes, which may still wait in
a queue of the fabric.

gloo sends a message only when the receiver has said that it is ready for it. So the receiver is always ready
for a header and a first chunk, and a message does not wait for an answer to its header.

A message that does not follow from its name has a checksum after its last chunk. `workers.staging` brings
chunks to and from a GPU.
"""

import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import torch

from workers.payload import WrongPayload, sampled
from workers.pinned import FIRST_BYTES, LEAST_WINDOW, WINDOW_BYTES
from workers.staging import Staging

_HEADER_BYTES = 256
_CHECKSUM_BYTES = 4


class Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The header of a message. `size_bytes` are model bytes, `request` is the flow's request, if any.

    `content` is set if the payload does not follow from the flow's name. The CRC-32 of all its bytes follows
    it, so it can be worked out while they are on their way.
    """

    flow: str
    size_bytes: int
    wire_bytes: int
    request: int | None = None
    content: bool = False


Load = Callable[[], torch.Tensor]
"""Returns the bytes of a flow, as many as its `wire_bytes`, where the rank has them."""


class SendLane:
    """The sending end. `send` queues a permitted flow, and a thread sends it.

    The thread sends the bytes that `load` returns, or without it those that follow from the flow's name.
    """

    def __init__(
        self,
        name: str,
        group: Any,
        staging: Staging,
        chunk_bytes: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.name = name
        self._group = group
        self._staging = staging
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
                    self._send_seeded(flow)
                else:
                    self._send_content(flow, self._staging.gathered(load))
        except BaseException as error:
            self._failed(error)

    def _send_seeded(self, flow: Header) -> None:
        parts = chunks(flow.flow, flow.wire_bytes, self._chunk_bytes)
        works = [self._post(_pack(flow))]
        works += self._staging.send(
            [size for _, size in parts], lambda number: self._staging.source(*parts[number]), self._post
        )
        for work in works:
            work.wait()

    def _send_content(self, flow: Header, content: torch.Tensor) -> None:
        if len(content) != flow.wire_bytes:
            raise ValueError(f"{flow.flow} has {len(content)} B to send, not {flow.wire_bytes}")
        sizes = [size for _, size in chunks(flow.flow, flow.wire_bytes, self._chunk_bytes)]
        crc = 0

        def post(part: torch.Tensor) -> Any:
            nonlocal crc
            work = self._post(part)
            crc = checksum(part, crc)
            return work

        works = [self._post(_pack(msgspec.structs.replace(flow, content=True)))]
        works += self._staging.send(sizes, content.split(sizes).__getitem__, post)
        works.append(self._post(_packed_checksum(crc)))
        for work in works:
            work.wait()

    def _post(self, part: torch.Tensor) -> Any:
        return self._group.send([part], 1, 0)


class ReceiveLane:
    """The receiving end: a thread that receives one message after the other.

    `progressed(flow, size, received)` is called after chunks, but not after the last, in model bytes, and
    not until `report_gap_s` of wall time have passed since the last call or the header.
    `arrived(header, verified)` is called after the last; `verified` is None if the bytes were not compared.
    Before it, `keep(flow, payload)` is called with a payload that does not follow from the flow's name. All
    lanes of a rank have the same `staging`.
    """

    def __init__(
        self,
        name: str,
        group: Any,
        staging: Staging,
        chunk_bytes: int,
        verify_share: float,
        *,
        progressed: Callable[[str, int, int], None],
        arrived: Callable[[Header, bool | None], None],
        failed: Callable[[BaseException], None],
        keep: Callable[[str, torch.Tensor], None] | None = None,
        report_gap_s: float = 0.0,
    ) -> None:
        self._group = group
        self._staging = staging
        self._report_gap_s = report_gap_s
        self._chunk_bytes = chunk_bytes
        self._keep = keep
        self._verify_share = verify_share
        self._progressed = progressed
        self._arrived = arrived
        self._failed = failed
        threading.Thread(target=self._run, name=f"receive {name}", daemon=True).start()

    def _run(self) -> None:
        try:
            buffer = torch.empty(_HEADER_BYTES, dtype=torch.uint8)
            first = self._staging.memory(min(self._chunk_bytes, FIRST_BYTES))
            while True:
                header = self._group.recv([buffer], 0, 0)
                first_work = self._group.recv([first], 0, 0)
                header.wait()
                self._receive(_unpack(buffer), first, first_work)
        except BaseException as error:
            self._failed(error)

    def _receive(self, header: Header, first: torch.Tensor, first_work: Any) -> None:
        parts = chunks(header.flow, header.wire_bytes, self._chunk_bytes)
        verify = not header.content and sampled(header.flow, self._verify_share)
        landing = self._staging.landing(header.wire_bytes, seeded=not header.content, verify=verify)
        sent = torch.empty(_CHECKSUM_BYTES, dtype=torch.uint8) if header.content else None
        sizes = [size for _, size in parts]
        rest, ring = sizes[1:], None
        if landing.whole is not None:
            ahead, places = len(rest), iter(landing.whole.split(sizes)[1:])
        else:
            # New memory for each message would cost more than a large message itself, because the kernel
            # clears it.
            largest = max(rest, default=1)
            ahead = min(len(rest), max(LEAST_WINDOW, WINDOW_BYTES // largest))
            turns = min(len(rest), ahead + 1 + self._staging.spare)
            ring = self._staging.buffers.take(turns * largest) if rest else None
            places = _in_turns(ring, rest, turns, largest)
        received, crc, reported_s = 0, 0, time.monotonic()
        pieces = self._pieces(places, ahead, first[: sizes[0]], first_work, sent)
        for (name, size), piece in zip(parts, pieces, strict=True):
            if header.content:
                crc = checksum(piece, crc)
            landing.take(name, piece)
            received += size
            if received < header.wire_bytes and time.monotonic() - reported_s >= self._report_gap_s:
                reported_s = time.monotonic()
                share = received / header.wire_bytes
                self._progressed(header.flow, header.size_bytes, int(header.size_bytes * share))
        content = landing.finish()
        if ring is not None:
            self._staging.buffers.give(ring)
        if content is not None and sent is not None:
            if not torch.equal(sent, _packed_checksum(crc)):
                raise WrongPayload(f"{header.flow}: the bytes that arrived are not those that were sent")
            self._keep_content(header, content)
        self._arrived(header, True if verify or header.content else None)

    def _pieces(
        self,
        places: Iterator[torch.Tensor],
        ahead: int,
        first: torch.Tensor,
        first_work: Any,
        last: torch.Tensor | None,
    ) -> Iterator[torch.Tensor]:
        """Yield the chunks of a message in order, each when it is here. The others land in `places`.

        `ahead` of them are waited for at a time. `last`, if given, is received after the chunks, and is here
        at the end.
        """
        under_way: deque[tuple[torch.Tensor, Any]] = deque([(first, first_work)])
        for place in places:
            if len(under_way) > ahead:
                yield _here(*under_way.popleft())
            under_way.append((place, self._group.recv([place], 0, 0)))
        last_work = None if last is None else self._group.recv([last], 0, 0)
        while under_way:
            yield _here(*under_way.popleft())
        if last_work is not None:
            last_work.wait()

    def _keep_content(self, header: Header, content: torch.Tensor) -> None:
        keep = self._keep
        if keep is not None:
            self._staging.kept(lambda: keep(header.flow, content))


def _in_turns(
    ring: torch.Tensor | None, sizes: Sequence[int], turns: int, largest: int
) -> Iterator[torch.Tensor]:
    """A place for each chunk: the `turns` buffers of `largest` bytes that `ring` has, one after the other."""
    for number, size in enumerate(sizes):
        assert ring is not None
        begin = number % turns * largest
        yield ring[begin : begin + size]


def _here(piece: torch.Tensor, work: Any) -> torch.Tensor:
    """The piece, once its bytes are there."""
    work.wait()
    return piece


def checksum(content: torch.Tensor, before: int = 0) -> int:
    """The CRC-32 of bytes on the CPU that follow others, whose CRC-32 is `before`."""
    return zlib.crc32(content.numpy(), before)


def _packed_checksum(crc: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(crc.to_bytes(_CHECKSUM_BYTES, "big")), dtype=torch.uint8)


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

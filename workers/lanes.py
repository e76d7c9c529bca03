"""Lanes: two-rank groups that carry one flow at a time, in one direction.

A message is a small header (the flow and its size) and the payload in chunks. Only the *receiver* knows
when it has arrived: the sender's call returns when the kernel has taken the bytes, which may still wait in
a queue of the fabric.
"""

import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import torch

from workers.payload import Payloads, WrongPayload, sampled

_HEADER_BYTES = 256


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
        self._send_now(checked, content.split(self._chunk_bytes))

    def _send_now(self, flow: Header, parts: Iterable[torch.Tensor]) -> None:
        works = [self._group.send([_pack(flow)], 1, 0)]
        works += [self._group.send([part], 1, 0) for part in parts]
        for work in works:
            work.wait()


class ReceiveLane:
    """The receiving end: a thread that receives one message after the other.

    `progressed(flow, size, received)` is called after every chunk but the last, in model bytes.
    `arrived(header, verified)` is called after the last; `verified` is None if the bytes were not compared.
    Before it, `keep(flow, payload)` is called with a payload that has a checksum.
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
    ) -> None:
        self._group = group
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
        try:
            while True:
                self._group.recv([buffer], 0, 0).wait()
                self._receive(_unpack(buffer))
        except BaseException as error:
            self._failed(error)

    def _receive(self, header: Header) -> None:
        parts = list(chunks(header.flow, header.wire_bytes, self._chunk_bytes))
        kept = torch.empty(header.wire_bytes, dtype=torch.uint8)
        works = []
        offset = 0
        for _, size in parts:
            works.append(self._group.recv([kept[offset : offset + size]], 0, 0))
            offset += size
        seeded = header.checksum is None
        verify = seeded and sampled(header.flow, self._verify_share)
        received = 0
        for (name, size), work in zip(parts, works, strict=True):
            work.wait()
            if verify:
                self._payloads.check(name, kept[received : received + size])
            received += size
            if received < header.wire_bytes:
                share = received / header.wire_bytes
                self._progressed(header.flow, header.size_bytes, int(header.size_bytes * share))
        if not seeded:
            self._keep_content(header, kept)
        if self._device.type != "cpu":
            kept.to(self._device)  # KV belongs in the GPU's memory
        self._arrived(header, True if verify or not seeded else None)

    def _keep_content(self, header: Header, content: torch.Tensor) -> None:
        if checksum(content) != header.checksum:
            raise WrongPayload(f"{header.flow}: the bytes that arrived are not those that were sent")
        if self._keep is not None:
            self._keep(header.flow, content)


def checksum(content: torch.Tensor) -> int:
    """The CRC-32 of bytes on the CPU."""
    return zlib.crc32(content.numpy())


def chunks(flow: str, wire_bytes: int, chunk_bytes: int) -> list[tuple[str, int]]:
    """The name and the wire bytes of each chunk of a message, in order."""
    return [
        (f"{flow}/{i}", min(chunk_bytes, wire_bytes - start))
        for i, start in enumerate(range(0, wire_bytes, chunk_bytes))
    ]


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

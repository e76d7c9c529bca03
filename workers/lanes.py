"""Lanes: two-rank groups that carry one flow at a time, in one direction.

A message is a small header (the flow and its size) and the payload in chunks. Only the *receiver* knows
when it has arrived: the sender's call returns when the kernel has taken the bytes, which may still wait in
a queue of the fabric.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import torch

from workers.payload import Payloads, sampled

_HEADER_BYTES = 256


class Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The header of a message. `size_bytes` are model bytes, `request` is the flow's request, if any."""

    flow: str
    size_bytes: int
    wire_bytes: int
    request: int | None = None


class SendLane:
    """The sending end. `send` queues a permitted flow, and a thread sends it."""

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
        self._queue: queue.SimpleQueue[Header] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"send {name}", daemon=True).start()

    def send(self, flow: Header) -> None:
        self._queue.put(flow)

    def _run(self) -> None:
        try:
            while True:
                self._send_now(self._queue.get())
        except BaseException as error:
            self._failed(error)

    def _send_now(self, flow: Header) -> None:
        works = [self._group.send([_pack(flow)], 1, 0)]
        for name, size in chunks(flow.flow, flow.wire_bytes, self._chunk_bytes):
            # gloo sends from the host's memory: a payload on a GPU is staged there.
            works.append(self._group.send([self._payloads.source(name, size).cpu()], 1, 0))
        for work in works:
            work.wait()


class ReceiveLane:
    """The receiving end: a thread that receives one message after the other.

    `progressed(flow, size, received)` is called after every chunk but the last, in model bytes.
    `arrived(header, verified)` is called after the last; `verified` is None if the bytes were not compared.
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
    ) -> None:
        self._group = group
        self._payloads = payloads
        self._chunk_bytes = chunk_bytes
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
        verify = sampled(header.flow, self._verify_share)
        received = 0
        for (name, size), work in zip(parts, works, strict=True):
            work.wait()
            if verify:
                self._payloads.check(name, kept[received : received + size])
            received += size
            if received < header.wire_bytes:
                share = received / header.wire_bytes
                self._progressed(header.flow, header.size_bytes, int(header.size_bytes * share))
        if self._device.type != "cpu":
            kept.to(self._device)  # KV belongs in the GPU's memory
        self._arrived(header, True if verify else None)


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

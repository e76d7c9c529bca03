"""The staging of a GPU on a CPU, with everything as late as it may be.

Work on a stream is done when somebody waits for its mark, and not before. Buffers that are given back are
spoilt at once. So whoever does not wait sends, keeps or compares wrong bytes.
"""

import queue
from collections import deque
from collections.abc import Callable

import torch
from worker_groups import CPU

from workers.buffers import Buffers
from workers.payload import Payloads
from workers.seeded_pages import SeededPages
from workers.staging import DeviceStaging
from workers.streams import Mark, Stream

CHUNK = 1000
PAGE = 96


class LateStream(Stream):
    """Does what is put here when its mark, or a later one, is waited for. For one thread at a time."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.waiting: deque[Callable[[], object]] = deque()

    def then(self, work: Callable[[], object], label: str = "", *, timed: bool = False) -> Mark:
        self.waiting.append(work)
        return _LateMark(self, work)


class _LateMark(Mark):
    __slots__ = ("_stream", "_work")

    def __init__(self, stream: LateStream, work: Callable[[], object]) -> None:
        super().__init__()
        self._stream = stream
        self._work = work

    def wait(self) -> None:
        while self._work in self._stream.waiting:
            self._stream.waiting.popleft()()


class SpoiltBuffers(Buffers):
    def give(self, buffer: torch.Tensor) -> None:
        buffer.fill_(0xEE)
        super().give(buffer)


class InstantGroup:
    """Both ends of a lane: what was sent arrives as soon as the receiver is ready for it."""

    def __init__(self) -> None:
        self._sent: queue.Queue[torch.Tensor] = queue.Queue()

    def send(self, parts: list[torch.Tensor], peer: int, tag: int) -> "InstantGroup":
        self._sent.put(parts[0].clone())
        return self

    def recv(self, parts: list[torch.Tensor], peer: int, tag: int) -> "InstantGroup":
        arrived = self._sent.get()
        parts[0][: len(arrived)] = arrived
        return self

    def wait(self) -> None:
        pass


def late(payloads: Payloads) -> DeviceStaging:
    pages = SeededPages(payloads, CPU, page_bytes=PAGE, chunk_bytes=CHUNK, lanes=1)
    staging = DeviceStaging(payloads, CPU, pages, out=LateStream(), back=LateStream())
    staging.buffers = SpoiltBuffers(CPU)
    staging.outgoing = SpoiltBuffers(CPU)
    return staging

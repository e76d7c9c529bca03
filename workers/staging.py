"""Between a rank's device and the memory of the host, which gloo sends from and receives in."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from workers.buffers import Buffers
from workers.payload import Payloads
from workers.seeded_pages import SeededPages
from workers.streams import Mark, Stream, host_memory

Post = Callable[[torch.Tensor], Any]
"""Starts to send bytes of the host's memory, and returns what can be waited for."""


class Landing(Protocol):
    """Where one message goes, chunk by chunk."""

    whole: torch.Tensor | None
    """Where its chunks are received one after the other; None: in a few buffers in turn."""

    def take(self, name: str, piece: torch.Tensor) -> None:
        """The next chunk has arrived. At return, what the chunk before it was received in is free again."""

    def finish(self) -> torch.Tensor | None:
        """All chunks have been taken. Returns a message of the sender's, where the rank has its KV."""


class Staging:
    """For a rank on the CPU: there is nothing to stage. Bytes are sent from where they are."""

    spare = 0
    """How many chunks that were received may still be read when the next one is taken."""

    def __init__(self, payloads: Payloads, device: torch.device) -> None:
        self.buffers = Buffers(device)
        self._payloads = payloads
        self._device = device

    def memory(self, size_bytes: int) -> torch.Tensor:
        """Memory of the host to receive in."""
        return host_memory(size_bytes, self._device)

    def gathered(self, load: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `load` returns, once it is there."""
        return load()

    def kept(self, keep: Callable[[], None]) -> None:
        """Let `keep` take in a message that has arrived, and return once it has."""
        keep()

    def source(self, name: str, size_bytes: int) -> torch.Tensor:
        """A chunk of seeded bytes, to be sent."""
        return self._payloads.source(name, size_bytes)

    def send(self, sizes: Sequence[int], part: Callable[[int], torch.Tensor], post: Post) -> list[Any]:
        """Post all chunks of a message, and return what is left to wait for.

        Chunk i has `sizes[i]` bytes. `part(i)` returns it, where the rank has it.
        """
        return [post(part(number)) for number in range(len(sizes))]

    def landing(self, wire_bytes: int, *, seeded: bool, verify: bool) -> Landing:
        """For a message of so many bytes. Seeded ones are compared if `verify` is set."""
        if seeded:
            return _Compared(self._payloads) if verify else _Nowhere()
        return _Whole(wire_bytes)


class _Nowhere:
    """Seeded bytes of which nothing is wanted."""

    whole = None

    def take(self, name: str, piece: torch.Tensor) -> None:
        pass

    def finish(self) -> None:
        pass


class _Compared(_Nowhere):
    """Seeded bytes that are compared."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    def take(self, name: str, piece: torch.Tensor) -> None:
        self._payloads.check(name, piece)


class _Whole:
    """A message of the sender's, which is received where it is kept."""

    def __init__(self, wire_bytes: int) -> None:
        self.whole = torch.empty(wire_bytes, dtype=torch.uint8)
        self._received = 0

    def take(self, name: str, piece: torch.Tensor) -> None:
        if self._received == 0:
            self.whole[: len(piece)] = piece  # the first chunk has a buffer of its own
        self._received += len(piece)

    def finish(self) -> torch.Tensor:
        return self.whole


class DeviceStaging(Staging):
    """For a rank on a GPU: through pinned memory of the host, on a stream for each direction.

    A GPU copies in both directions at once, and one thing after the other in each. So all lanes of a rank
    share two streams. To send, there are two buffers: chunk i + 1 is gathered and copied to one while chunk i
    is sent from the other. To receive, chunk i is copied and scattered while chunk i + 1 arrives.

    `out` and `back` are the streams, for tests; None: streams of `device`.
    """

    spare = 1

    def __init__(
        self,
        payloads: Payloads,
        device: torch.device,
        pages: SeededPages,
        out: Stream | None = None,
        back: Stream | None = None,
    ) -> None:
        super().__init__(payloads, device)
        self._pages = pages
        # Apart from those to receive in, which are larger: pinned memory is scarce.
        self.outgoing = Buffers(device)
        self._out = Stream(device) if out is None else out
        self._back = Stream(device) if back is None else back

    def gathered(self, load: Callable[[], torch.Tensor]) -> torch.Tensor:
        with self._out.here():
            return load()

    def kept(self, keep: Callable[[], None]) -> None:
        with self._back.here():
            keep()

    def source(self, name: str, size_bytes: int) -> torch.Tensor:
        return self._pages.gather(name, size_bytes)

    def send(self, sizes: Sequence[int], part: Callable[[int], torch.Tensor], post: Post) -> list[Any]:
        largest = max(sizes)  # a chunk may be far larger than the message
        buffer = self.outgoing.take(2 * largest)
        halves = buffer[:largest], buffer[largest : 2 * largest]
        works: list[Any] = [None, None]
        for number, size in enumerate(sizes):
            half = number % 2
            if works[half] is not None:
                works[half].wait()  # chunk number - 2 has left the buffer
            place = halves[half][:size]
            self._copied_out(number, part, place).wait()
            works[half] = post(place)
        for work in works:
            if work is not None:
                work.wait()
        self.outgoing.give(buffer)
        return []

    def _copied_out(self, number: int, part: Callable[[int], torch.Tensor], place: torch.Tensor) -> Mark:
        return self._out.then(lambda: place.copy_(part(number), non_blocking=True), "device to host")

    def landing(self, wire_bytes: int, *, seeded: bool, verify: bool) -> Landing:
        if seeded:
            return _Paged(self._back, self._pages, self._payloads if verify else None)
        return _OnDevice(self._back, self._device, wire_bytes)


class _Copied:
    """Chunks that are copied to the device. A chunk's buffer is free when the next one has been taken."""

    whole = None

    def __init__(self, back: Stream) -> None:
        self._back = back
        self._last: Mark | None = None

    def _copy(self, work: Callable[[], object]) -> None:
        before = self._last
        self._last = self._back.then(work, "host to device")
        if before is not None:
            before.wait()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.wait()


class _OnDevice(_Copied):
    """A message of the sender's, in memory of the device."""

    def __init__(self, back: Stream, device: torch.device, wire_bytes: int) -> None:
        super().__init__(back)
        self._place = torch.empty(0, dtype=torch.uint8, device=device)
        self._wire_bytes = wire_bytes
        self._received = 0

    def take(self, name: str, piece: torch.Tensor) -> None:
        begin = self._received
        self._received += len(piece)

        def work() -> None:
            if begin == 0:  # allocated on this stream, which is the first to write there
                self._place = self._place.new_empty(self._wire_bytes)
            self._place[begin : begin + len(piece)].copy_(piece, non_blocking=True)

        self._copy(work)

    def finish(self) -> torch.Tensor:
        self._wait()
        return self._place


class _Paged(_Copied):
    """Seeded bytes, which are scattered into pages, and compared as they are there."""

    def __init__(self, back: Stream, pages: SeededPages, payloads: Payloads | None) -> None:
        super().__init__(back)
        self._pages = pages
        self._payloads = payloads
        self._read: deque[tuple[str, torch.Tensor]] = deque()
        self._uncompared = 0

    def take(self, name: str, piece: torch.Tensor) -> None:
        compare = self._payloads is not None

        def work() -> None:
            read = self._pages.scatter(piece, read_back=compare)
            if read is not None:
                self._read.append((name, read))

        self._copy(work)
        if compare:
            self._uncompared += 1
            self._compare_all_but(1)  # the last one may not be here yet

    def finish(self) -> None:
        self._wait()
        self._compare_all_but(0)

    def _compare_all_but(self, last: int) -> None:
        while self._payloads is not None and self._uncompared > last:
            self._payloads.check(*self._read.popleft())
            self._uncompared -= 1


def staging_for(
    device: torch.device, payloads: Payloads, *, page_bytes: int, chunk_bytes: int, lanes: int
) -> Staging:
    """The staging of a rank on `device` that receives on `lanes` lanes. Pages are for seeded bytes."""
    if device.type == "cpu":
        return Staging(payloads, device)
    pages = SeededPages(payloads, device, page_bytes=page_bytes, chunk_bytes=chunk_bytes, lanes=lanes)
    return DeviceStaging(payloads, device, pages)

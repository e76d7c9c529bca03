"""Work on a device, in order and apart from other work there. On a CPU, work is over when a call returns."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch


class Mark:
    """A place in a stream: what was put there before it can be waited for.

    If the work is timed, `begun` is the event before it, else None. Without `ended`, it is over and took
    `seconds`.
    """

    __slots__ = ("_begun", "_ended", "_seconds")

    def __init__(self, begun: Any = None, ended: Any = None, seconds: float = 0.0) -> None:
        self._begun = begun
        self._ended = ended
        self._seconds = seconds

    def wait(self) -> None:
        """Let this thread wait until the stream is through with everything before the mark."""
        if self._ended is not None:
            self._ended.synchronize()

    @property
    def seconds(self) -> float:
        """How long the work before the mark took, as the device has timed it. For timed work that is over."""
        if self._ended is None:
            return self._seconds
        return float(self._begun.elapsed_time(self._ended)) / 1e3

    def span_since(self, origin: Any) -> tuple[float, float]:
        """When the timed work began and ended, in seconds after the event `origin` of the same device."""
        begun, ended = origin.elapsed_time(self._begun), origin.elapsed_time(self._ended)
        return begun / 1e3, ended / 1e3


_OVER = Mark()


class Stream:
    """What is put here is done one after the other, beside what others put on the same device. Thread-safe.

    With a `trace`, all work that `then` gets is timed, and its marks are kept there with its labels.
    """

    def __init__(self, device: torch.device, trace: list[tuple[str, Mark]] | None = None) -> None:
        self._stream = None if device.type == "cpu" else torch.cuda.Stream(device)
        self._trace = trace
        if self._stream is not None:  # what this thread has made so far may be used here
            self._stream.wait_stream(torch.cuda.current_stream(device))

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Put the work of this thread here, and wait for it at the end. Work elsewhere is not waited for."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()

    def then(self, work: Callable[[], object], label: str = "", *, timed: bool = False) -> Mark:
        """Put `work` here, and return while it may still be under way.

        Until the mark has been waited for, nobody else may write what `work` reads, or read what it writes.
        """
        timed = timed or self._trace is not None
        if self._stream is None:
            if not timed:
                work()
                return _OVER
            start = time.perf_counter()
            work()
            mark = Mark(seconds=time.perf_counter() - start)
        else:
            with torch.cuda.stream(self._stream):
                begun = torch.cuda.Event(enable_timing=True) if timed else None
                # Whoever waits sleeps: a rank has a thread for each lane, and a core for all of them.
                ended = torch.cuda.Event(enable_timing=timed, blocking=True)
                if begun is not None:
                    begun.record(self._stream)
                work()
                ended.record(self._stream)
            mark = Mark(begun, ended)
        if self._trace is not None:
            self._trace.append((label, mark))
        return mark


def settle(device: torch.device) -> None:
    """Wait for what is on the stream that this thread uses, and not for the whole device."""
    if device.type != "cpu":
        torch.cuda.current_stream(device).synchronize()


def host_memory(size_bytes: int, device: torch.device) -> torch.Tensor:
    """Bytes in the host's memory, with anything in them. They are pinned if `device` is a GPU: only then is a
    copy between the two asynchronous."""
    return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=device.type != "cpu")


def numbers(values: list[int], device: torch.device) -> torch.Tensor:
    """`values` on a device, for work that is put on this thread's stream from now on."""
    there = torch.tensor(values, dtype=torch.int64)
    # Pinned, because from pageable memory this thread would wait for the stream.
    return there if device.type == "cpu" else there.pin_memory().to(device, non_blocking=True)

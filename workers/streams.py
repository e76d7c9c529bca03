"""Work on a device, in order and apart from other work there. On a CPU, work is over when a call returns."""

import contextlib
from collections.abc import Iterator

import torch


class Stream:
    """What is put here is done one after the other, beside what others put on the same device."""

    def __init__(self, device: torch.device) -> None:
        self._stream = None if device.type == "cpu" else torch.cuda.Stream(device)
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


def settle(device: torch.device) -> None:
    """Wait for what is on the stream that this thread uses, and not for the whole device."""
    if device.type != "cpu":
        torch.cuda.current_stream(device).synchronize()

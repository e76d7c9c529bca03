"""Memory that is used again: for a large message, the kernel takes longer to clear new pages than to copy."""

import threading

import torch

from workers.streams import host_memory

_CPU = torch.device("cpu")


class Buffers:
    """Buffers of bytes in the host's memory. There are as many as were ever taken at once. Thread-safe.

    They are pinned if `device` is a GPU.
    """

    def __init__(self, device: torch.device = _CPU) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._free: list[torch.Tensor] = []

    def take(self, size_bytes: int) -> torch.Tensor:
        """A buffer of `size_bytes` or more, with anything in it."""
        with self._lock:
            for number, buffer in enumerate(self._free):
                if len(buffer) >= size_bytes:
                    return self._free.pop(number)
            if self._free:
                self._free.pop()  # a larger one takes its place
        return host_memory(size_bytes, self._device)

    def give(self, buffer: torch.Tensor) -> None:
        """Give back what was taken."""
        with self._lock:
            self._free.append(buffer)

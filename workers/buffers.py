"""Memory that is used again: for a large message, the kernel takes longer to clear new pages than to copy."""

import threading

import torch


class Buffers:
    """Buffers of bytes on the CPU. There are as many as were ever taken at once. Thread-safe."""

    def __init__(self) -> None:
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
        return torch.empty(size_bytes, dtype=torch.uint8)

    def give(self, buffer: torch.Tensor) -> None:
        """Give back what was taken."""
        with self._lock:
            self._free.append(buffer)

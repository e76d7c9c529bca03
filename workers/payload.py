"""Payloads that can be verified: every byte follows from the run's seed and the message's name.

All ranks hold the same block of seeded random bytes. A message is a slice of it, at a position that is
hashed from the message's name. So sending copies nothing, and a receiver notices every wrong byte.
"""

import zlib

import torch

from workers.streams import settle

BLOCK_BYTES = 8 * 1024 * 1024


class WrongPayload(RuntimeError):
    """A transfer or a collective delivered wrong bytes."""


class Payloads:
    """Slices of the seeded block, which is repeated for longer messages.

    `device` is where the rank's tensors live. `source` slices the copy there; `of` and `check` use the copy
    on the CPU.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        block = torch.randint(0, 256, (BLOCK_BYTES,), dtype=torch.uint8, generator=generator)
        self._twice = torch.cat((block, block))
        self._there = self._twice if device is None else self._twice.to(device)
        settle(self._there.device)  # others read it on other streams

    @property
    def twice(self) -> torch.Tensor:
        """The seeded block, twice, on the CPU. Do not write to it."""
        return self._twice

    @staticmethod
    def start(name: str) -> int:
        """Where in the block the payload called `name` starts."""
        return zlib.crc32(name.encode()) % (BLOCK_BYTES // 8) * 8

    def of(self, name: str, size_bytes: int) -> torch.Tensor:
        """The payload called `name`, of `size_bytes` bytes. Do not write to it.

        It starts at a multiple of 8 bytes, so that a reduction can read it as integers.
        """
        return _slice(self._twice, name, size_bytes)

    def source(self, name: str, size_bytes: int) -> torch.Tensor:
        """The same payload on the rank's device."""
        return _slice(self._there, name, size_bytes)

    def check(self, name: str, received: torch.Tensor) -> None:
        """Raise `WrongPayload` unless `received` (uint8, on the CPU) is the payload called `name`."""
        expected = self.of(name, received.numel())
        if not torch.equal(received, expected):
            wrong = int((received != expected).sum())
            first = int((received != expected).nonzero()[0])
            raise WrongPayload(f"{name}: {wrong} of {received.numel()} bytes are wrong, the first at {first}")


def _slice(twice: torch.Tensor, name: str, size_bytes: int) -> torch.Tensor:
    start = Payloads.start(name)
    if size_bytes <= BLOCK_BYTES:
        return twice[start : start + size_bytes]
    repeats = -(-(start + size_bytes) // BLOCK_BYTES)
    return twice[:BLOCK_BYTES].repeat(repeats)[start : start + size_bytes]


def sampled(name: str, share: float) -> bool:
    """Whether a transfer is in the verified sample. A hash of its name decides, so all ranks agree."""
    return zlib.crc32(f"verify {name}".encode()) % 10_000 < share * 10_000

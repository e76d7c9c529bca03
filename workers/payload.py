"""Payloads that can be checked: every byte follows from the run's seed and the flow's name.

All ranks hold the same block of seeded random bytes. A message is a slice of it whose place is a
hash of the message's name, so sending copies nothing and a receiver can tell every wrong byte.
"""

import zlib

import torch

BLOCK_BYTES = 8 * 1024 * 1024


class WrongPayload(RuntimeError):
    """A transfer delivered bytes other than those that were sent."""


class Payloads:
    """Slices of the seeded block, which repeats itself for messages longer than it is.

    `device` is where the rank's tensors live: `source` takes a message from there, `of` and `check`
    work on the CPU's copy.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        block = torch.randint(0, 256, (BLOCK_BYTES,), dtype=torch.uint8, generator=generator)
        self._twice = torch.cat((block, block))
        self._there = self._twice if device is None else self._twice.to(device)

    def of(self, name: str, size_bytes: int) -> torch.Tensor:
        """The payload called `name`: `size_bytes` bytes, not to be written to.

        Starts at a multiple of 8 bytes, so that it can be read as integers for a reduction.
        """
        return _slice(self._twice, name, size_bytes)

    def source(self, name: str, size_bytes: int) -> torch.Tensor:
        """The same payload on the rank's device."""
        return _slice(self._there, name, size_bytes)

    def check(self, name: str, received: torch.Tensor) -> None:
        """Raises `WrongPayload` unless `received` (uint8, on the CPU) is the payload called `name`."""
        expected = self.of(name, received.numel())
        if not torch.equal(received, expected):
            wrong = int((received != expected).sum())
            first = int((received != expected).nonzero()[0])
            raise WrongPayload(f"{name}: {wrong} of {received.numel()} bytes are wrong, the first at {first}")


def _slice(twice: torch.Tensor, name: str, size_bytes: int) -> torch.Tensor:
    start = zlib.crc32(name.encode()) % (BLOCK_BYTES // 8) * 8
    if size_bytes <= BLOCK_BYTES:
        return twice[start : start + size_bytes]
    repeats = -(-(start + size_bytes) // BLOCK_BYTES)
    return twice[:BLOCK_BYTES].repeat(repeats)[start : start + size_bytes]


def sampled(name: str, share: float) -> bool:
    """Whether a transfer belongs to the checked sample: a hash of its name, so all ranks agree."""
    return zlib.crc32(f"verify {name}".encode()) % 10_000 < share * 10_000

"""S2: a rank's part in the collectives of its process groups, with payloads that can be verified."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from workers.exchange import Exchange
from workers.payload import Payloads, WrongPayload
from workers.plan import Collective, CollectiveKind
from workers.rounds import tree_chunks
from workers.sender import wire_bytes
from workers.streams import Stream, host_memory, settle


class CollectiveGroup:
    """A rank's side of a process group. `index` is the rank's position in `members` (global ranks).

    With `staged`, rounds are messages from the host's memory, for gloo; without, they are grouped calls,
    for NCCL. `exchange` moves tensors of the caller's.
    """

    def __init__(
        self,
        name: str,
        group: Any,
        members: Sequence[int],
        rank: int,
        payloads: Payloads,
        device: torch.device,
        *,
        staged: bool,
    ) -> None:
        self.name = name
        self.exchange = Exchange(group, members, rank, device, staged=staged)
        self.members = self.exchange.members
        self.index = self.exchange.index
        self._payloads = payloads
        self._device = device
        self._stream = Stream(device)
        self._staged = staged

    def carry_out(
        self, step: Collective, bytes_scale: float, compute: Callable[[int], None], *, verify: bool
    ) -> None:
        """Do this rank's part of `step`, at `bytes_scale` wire bytes per model byte.

        If `step` is ring attention with compute, `compute(r)` computes over the block of round r. Raises
        `WrongPayload` if `verify` is set and wrong bytes arrive.
        """
        sizes = [[wire_bytes(size, bytes_scale) if size else 0 for size in row] for row in step.sizes]
        with self._stream.here():
            match step.kind:
                case CollectiveKind.ALL_TO_ALL:
                    for i, row in enumerate(sizes):
                        row[i] = 0
                    self.all_to_all(step.id, sizes, verify=verify)
                case CollectiveKind.ALL_REDUCE:
                    self.all_reduce(step.id, sizes[0][0], verify=verify)
                case CollectiveKind.TREE_ALL_REDUCE:
                    chunks = tree_chunks(step.sizes[0][0])
                    self.tree_all_reduce(step.id, sizes[0][0], chunks, verify=verify)
                case CollectiveKind.RING_ATTENTION if step.round_seconds:
                    self.ring_attention(step.id, sizes[0], compute, verify=verify)
                case CollectiveKind.ALL_GATHER | CollectiveKind.RING_ATTENTION:
                    self.all_gather(step.id, sizes[0], verify=verify)

    def all_to_all(self, name: str, wire_sizes: Sequence[Sequence[int]], *, verify: bool) -> None:
        """Send `wire_sizes[me][j]` bytes to each member j and receive `wire_sizes[i][me]` from each i.

        Raises `WrongPayload` if `verify` is set and wrong bytes arrive.
        """
        sends = list(wire_sizes[self.index])
        receives = [row[self.index] for row in wire_sizes]
        source = self._ready(self._payloads.source(f"{name}/{self.index}", sum(sends)))
        target = self._empty(sum(receives))
        self.exchange.all_to_all(source, sends, target, receives)
        landed = self._landed(target)
        if verify:
            offset = 0
            for i, row in enumerate(wire_sizes):
                # Sender i cuts its message in order of the members: our part follows the parts before us.
                begin = sum(row[: self.index])
                sent = self._payloads.of(f"{name}/{i}", sum(row))[begin : begin + row[self.index]]
                if not torch.equal(landed[offset : offset + row[self.index]], sent):
                    raise WrongPayload(f"{name}: wrong bytes from rank {self.members[i]}")
                offset += row[self.index]

    def all_reduce(self, name: str, wire_bytes: int, *, verify: bool) -> None:
        """Add up a vector of `wire_bytes` bytes (as 64-bit integers) over all members, in a ring.

        The size is rounded down to whole integers, at least one. Raises `WrongPayload` if `verify` is set
        and the sum is wrong.
        """
        target = self._summand(name, wire_bytes)
        self.exchange.all_reduce(target)
        self._check_sum(name, target, verify=verify)

    def tree_all_reduce(self, name: str, wire_bytes: int, chunks: int, *, verify: bool) -> None:
        """The same as `all_reduce`, over two binary trees: half of the vector each, in `chunks` chunks."""
        target = self._summand(name, wire_bytes)
        self.exchange.tree_all_reduce(target, chunks)
        self._check_sum(name, target, verify=verify)

    def all_gather(self, name: str, wire_sizes: Sequence[int], *, verify: bool) -> None:
        """Get the shard of every member, `wire_sizes[i]` bytes from member i, in a ring.

        Raises `WrongPayload` if `verify` is set and wrong bytes arrive.
        """
        self._gather(name, wire_sizes, None, verify=verify)

    def ring_attention(
        self, name: str, wire_sizes: Sequence[int], compute: Callable[[int], None], *, verify: bool
    ) -> None:
        """Pass the KV blocks of all members around the ring.

        In round r, `compute(r)` computes over the block at hand while that block is sent on. Nothing is
        sent while the last block is computed over. Raises `WrongPayload` as `all_gather` does.
        """
        self._gather(name, wire_sizes, compute, verify=verify)
        compute(len(self.members) - 1)

    def _gather(
        self, name: str, wire_sizes: Sequence[int], during: Callable[[int], None] | None, *, verify: bool
    ) -> None:
        mine = self._ready(self._payloads.source(f"{name}/{self.index}", wire_sizes[self.index]))
        target = self._empty(sum(wire_sizes))
        parts = target.split(list(wire_sizes))
        parts[self.index].copy_(mine)
        self.exchange.all_gather(parts, during)
        landed = self._landed(target).split(list(wire_sizes))
        if verify:
            for i, part in enumerate(landed):
                if not torch.equal(part, self._payloads.of(f"{name}/{i}", len(part))):
                    raise WrongPayload(f"{name}: wrong bytes from rank {self.members[i]}")

    def _summand(self, name: str, wire_bytes: int) -> torch.Tensor:
        size = max(8, wire_bytes // 8 * 8)
        mine = self._payloads.source(f"{name}/{self.index}", size).view(torch.int64)
        return self._ready(mine.clone())

    def _check_sum(self, name: str, target: torch.Tensor, *, verify: bool) -> None:
        landed = self._landed(target)
        if verify:
            total = torch.zeros_like(landed)
            for i in range(len(self.members)):
                total += self._payloads.of(f"{name}/{i}", 8 * len(landed)).view(torch.int64)
            if not torch.equal(landed, total):
                raise WrongPayload(f"{name}: wrong sum on rank {self.members[self.index]}")

    def _empty(self, size_bytes: int) -> torch.Tensor:
        """Memory that the backend reads and writes: the GPU's for NCCL, the host's for gloo."""
        if self._staged:
            return host_memory(size_bytes, self._device)
        return torch.empty(size_bytes, dtype=torch.uint8, device=self._device)

    def _ready(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in memory that the backend reads."""
        if not self._staged or self._device.type == "cpu":
            return tensor
        there = self._empty(tensor.nbytes).view(tensor.dtype)
        there.copy_(tensor, non_blocking=True)
        settle(self._device)
        return there

    def _landed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Wait until the result is in the rank's memory, and return it on the CPU for verification."""
        if tensor.device.type != "cpu":
            settle(tensor.device)
            return tensor.cpu()
        if self._device.type != "cpu":
            tensor.to(self._device, non_blocking=True)
            settle(self._device)
        return tensor

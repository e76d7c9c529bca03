"""S2: one rank's part in the collectives of its process groups, with payloads that can be checked."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from workers.payload import Payloads, WrongPayload


class CollectiveGroup:
    """A rank's side of a process group. `index` is its place among `members` (global ranks)."""

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
        self.members = tuple(members)
        self.index = self.members.index(rank)
        self._group = group
        self._payloads = payloads
        self._device = device
        self._staged = staged

    def all_to_all(self, name: str, wire_sizes: Sequence[Sequence[int]], *, verify: bool) -> None:
        """Send `wire_sizes[me][j]` bytes to each member j and receive `wire_sizes[i][me]` from each i.

        Raises `WrongPayload` if `verify` and any byte received is not the one sent.
        """
        sends = list(wire_sizes[self.index])
        receives = [row[self.index] for row in wire_sizes]
        source = self._ready(self._payloads.source(f"{name}/{self.index}", sum(sends)))
        target = torch.empty(sum(receives), dtype=torch.uint8, device=source.device)
        self._group.alltoall_base(target, source, receives, sends).wait()
        landed = self._landed(target)
        if verify:
            offset = 0
            for i, row in enumerate(wire_sizes):
                # Sender i cut its message in the order of the members: ours begins after theirs.
                begin = sum(row[: self.index])
                sent = self._payloads.of(f"{name}/{i}", sum(row))[begin : begin + row[self.index]]
                if not torch.equal(landed[offset : offset + row[self.index]], sent):
                    raise WrongPayload(f"{name}: wrong bytes from rank {self.members[i]}")
                offset += row[self.index]

    def all_reduce(self, name: str, wire_bytes: int, *, verify: bool) -> None:
        """Sum a vector of `wire_bytes` bytes (as 64-bit integers) over all members.

        Raises `WrongPayload` if `verify` and the sum is not that of the members' vectors.
        """
        size = max(8, wire_bytes // 8 * 8)
        mine = self._payloads.source(f"{name}/{self.index}", size).view(torch.int64)
        target = self._ready(mine.clone())
        self._group.allreduce([target], dist.AllreduceOptions()).wait()
        landed = self._landed(target)
        if verify:
            total = torch.zeros_like(landed)
            for i in range(len(self.members)):
                total += self._payloads.of(f"{name}/{i}", size).view(torch.int64)
            if not torch.equal(landed, total):
                raise WrongPayload(f"{name}: wrong sum on rank {self.members[self.index]}")

    def _ready(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor where the group's backend reads it: NCCL in the GPU's memory, gloo in the host's."""
        return tensor.cpu() if self._staged else tensor

    def _landed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Wait until the result is really there, and have it on the CPU to look at."""
        if tensor.device.type != "cpu":
            torch.cuda.synchronize(tensor.device)
            return tensor.cpu()
        if self._device.type != "cpu":
            tensor.to(self._device)
        return tensor

"""Moves tensors between the members of a process group, round by round, as a collective says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from workers.rounds import Direct, DoubleTree, Message, Ring, Rounds, split, tree_parts
from workers.streams import settle

Parts = Sequence[torch.Tensor] | Mapping[int, torch.Tensor]
"""The parts of a collective that a rank sends or receives, by number (see `workers.rounds`)."""


class Exchange:
    """A rank's side of a process group. `index` is the rank's position in `members` (global ranks).

    With `staged`, rounds are messages from the host's memory, for gloo; without, they are grouped calls,
    for NCCL. All tensors have one dimension, and live where the backend reads them.
    """

    def __init__(
        self, group: Any, members: Sequence[int], rank: int, device: torch.device, *, staged: bool
    ) -> None:
        self.members = tuple(members)
        self.index = self.members.index(rank)
        self._group = group
        self._device = device
        self._staged = staged

    def all_to_all(
        self, source: torch.Tensor, sends: Sequence[int], target: torch.Tensor, receives: Sequence[int]
    ) -> None:
        """Send `sends[j]` elements of `source` to each member j, receive `receives[i]` from each i.

        Both tensors have these parts one after the other.
        """
        if not self._staged:
            self._group.alltoall_base(target, source, list(receives), list(sends)).wait()
            return
        # One message per peer: gloo's own all-to-all posts a receive only after its send. Two members share
        # one connection, so the second direction would wait for the first.
        members = len(self.members)
        out, back = source.split(list(sends)), target.split(list(receives))
        parts = {self.index * members + peer: part for peer, part in enumerate(out)}
        parts |= {peer * members + self.index: part for peer, part in enumerate(back)}
        back[self.index].copy_(out[self.index])
        self._exchange(Direct(members), parts)

    def all_reduce(self, target: torch.Tensor) -> None:
        """Add up `target` over all members, in place and in a ring."""
        if self._staged:  # gloo's own ring runs in the opposite direction of the planned one
            members = len(self.members)
            self._exchange(Ring(members, reduces=True), target.split(split(len(target), members)))
        else:
            self._group.allreduce([target], dist.AllreduceOptions()).wait()

    def tree_all_reduce(self, target: torch.Tensor, chunks: int) -> None:
        """The same over two binary trees: half of the vector each, in `chunks` chunks."""
        self._exchange(DoubleTree(len(self.members), chunks), target.split(tree_parts(len(target), chunks)))

    def all_gather(self, parts: Sequence[torch.Tensor], during: Callable[[int], None] | None = None) -> None:
        """Fill `parts[i]` with that of member i, in a ring.

        `during(r)` is called while round r is on its way.
        """
        self._exchange(Ring(len(self.members)), parts, during)

    # --- rounds ---------------------------------------------------------------------------------

    def _exchange(self, rounds: Rounds, parts: Parts, during: Callable[[int], None] | None = None) -> None:
        """Carry out `rounds` on `parts`, in place. `during(r)` is called while round r is on its way."""
        start = self._start_on_gloo if self._staged else self._start_on_nccl
        for number in range(rounds.count):
            sends, receives = rounds.sends(self.index, number), rounds.receives(self.index, number)
            # A part to be added needs a buffer of its own; any other lands where it belongs.
            landing = [torch.empty_like(parts[m.part]) if m.reduces else parts[m.part] for m in receives]
            finish = start(parts, sends, receives, landing)
            if during is not None:
                during(number)
            finish()
            for message, part in zip(receives, landing, strict=True):
                if message.reduces:
                    parts[message.part].add_(part)

    def _start_on_gloo(
        self,
        parts: Parts,
        sends: Sequence[Message],
        receives: Sequence[Message],
        landing: Sequence[torch.Tensor],
    ) -> Callable[[], None]:
        """Start one message for every part that is not empty, with the part's number as its tag."""
        works = [
            self._group.recv([part], message.peer, message.part)
            for message, part in zip(receives, landing, strict=True)
            if len(part)
        ]
        works += [
            self._group.send([parts[message.part]], message.peer, message.part)
            for message in sends
            if len(parts[message.part])
        ]

        def finish() -> None:
            for work in works:
                work.wait()

        return finish

    def _start_on_nccl(
        self,
        parts: Parts,
        sends: Sequence[Message],
        receives: Sequence[Message],
        landing: Sequence[torch.Tensor],
    ) -> Callable[[], None]:
        """Start an all-to-all in which most pairs exchange nothing.

        It is one call on the group's own connections. Separate sends and receives would open other
        connections, and the controller would not know their paths.
        """
        out, back = [0] * len(self.members), [0] * len(self.members)
        for message in sends:
            out[message.peer] += len(parts[message.part])
        for message, part in zip(receives, landing, strict=True):
            back[message.peer] += len(part)
        none = parts[0].new_empty(0)
        source = torch.cat([none, *(parts[message.part] for message in sends)])
        target = none.new_empty(sum(back))
        work = self._group.alltoall_base(target, source, back, out)

        def finish() -> None:
            work.wait()
            for part, landed in zip(landing, target.split([len(part) for part in landing]), strict=True):
                part.copy_(landed)
            settle(self._device)  # a round is over when its bytes are here

        return finish

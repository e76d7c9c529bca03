"""Which cached prefix blocks a prefill unit holds, and on which of its replicas.

A block id stands for the block and everything before it (`testbed.job.Request.blocks`). A unit holds a
prefix as far as it holds every block of it, on whichever replicas.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

Holders = tuple[tuple[int, ...], ...]
"""For each block of a matched prefix, the replicas that hold a copy, in ascending order."""


class PrefixIndex:
    """The cached blocks of one unit's replicas. Each replica evicts its least recently used block first.

    `capacity_blocks` is what one replica can hold; None: no limit. The index knows blocks, not bytes.
    Nothing is pinned. If a block is evicted after a plan was made with it, it is still read or sent, but
    later requests do not find it. `evicted_blocks` counts the copies that were evicted. `holders` has, for
    each block that is held, the replicas that hold a copy, in ascending order; those before it may not be.

    Raises `ValueError` for a capacity below one block.
    """

    def __init__(self, replicas: int, capacity_blocks: int | None = None) -> None:
        if capacity_blocks is not None and capacity_blocks < 1:
            raise ValueError(f"a prefix cache needs room for a block, not for {capacity_blocks}")
        self._capacity = capacity_blocks
        self._held: tuple[OrderedDict[int, None], ...] = tuple(OrderedDict() for _ in range(replicas))
        self.holders: dict[int, tuple[int, ...]] = {}
        self.evicted_blocks = 0

    def lookup(self, blocks: Sequence[int]) -> Holders:
        """The longest prefix of `blocks` that is held. This does not count as a use of them."""
        found: list[tuple[int, ...]] = []
        for block in blocks:
            holders = self.holders.get(block)
            if holders is None:
                break
            found.append(holders)
        return tuple(found)

    def insert(self, blocks: Sequence[int], replica: int) -> None:
        """`replica` has computed or fetched the KV of all `blocks`, a prefix from its first block on.

        All of them count as used now, and the first block as used last. So eviction shortens a prefix from
        its end, and what is left stays useful.
        """
        held = self._held[replica]
        for block in reversed(blocks):
            if block not in held:
                self.holders[block] = tuple(sorted((*self.holders.get(block, ()), replica)))
            held[block] = None
            held.move_to_end(block)
        while self._capacity is not None and len(held) > self._capacity:
            self._forget(held.popitem(last=False)[0], replica)
            self.evicted_blocks += 1

    def _forget(self, block: int, replica: int) -> None:
        left = tuple(holder for holder in self.holders[block] if holder != replica)
        if left:
            self.holders[block] = left
        else:
            del self.holders[block]


def owners(holders: Holders, last: Callable[[int], int] = lambda replica: 0) -> tuple[int, ...]:
    """The replica to fetch each block from, with as few changes along the prefix as possible.

    Fewer owners mean fewer transfers per layer. The choice is greedy: stay with a replica as long as it
    holds the next block, then take the one that holds the longest stretch from there. A tie goes to the
    replica with the lowest `last`, which says when it was told to send, or the first.
    """
    chosen: list[int] = []
    for i, here in enumerate(holders):
        if chosen and chosen[-1] in here:
            chosen.append(chosen[-1])
        else:
            chosen.append(min(here, key=lambda r: (-_stretch(holders, i, r), last(r), r)))
    return tuple(chosen)


def _stretch(holders: Holders, start: int, replica: int) -> int:
    """How many consecutive blocks, from `start` on, `replica` holds."""
    length = 0
    while start + length < len(holders) and replica in holders[start + length]:
        length += 1
    return length

"""Which member of a collective sends which part to which peer, round by round; the same on every fabric.

A collective moves *parts*, numbered from 0: blocks of a vector, shards, or the cells of a matrix. A member
leaves a round when its own sends and receives in it are complete. It waits for no other member, so members
need not be in the same round. Members are numbered from 0 inside the group.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

TREE_CHUNK_BYTES = 512 * 1024
"""Bytes that a tree sends at a time: NCCL's 4 MiB buffer has eight slots (NCCL_BUFFSIZE, NCCL_STEPS)."""

TREE_MOST_CHUNKS = 16
"""The most chunks per tree, so that an all-reduce of any size has a bounded number of messages."""


class Message(NamedTuple):
    """One part to or from `peer`. If `reduces`, the receiver adds it to its own part; else it keeps it."""

    peer: int
    part: int
    reduces: bool = False


class Rounds(Protocol):
    """The rounds of one collective. Both lists of a round are sorted by peer and part."""

    @property
    def count(self) -> int: ...

    def sends(self, index: int, number: int) -> Sequence[Message]:
        """What member `index` sends in round `number`, below `count`."""
        ...

    def receives(self, index: int, number: int) -> Sequence[Message]:
        """What member `index` receives in round `number`, below `count`."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """All-to-all: one round, from every member to every other. Part `i * members + j` goes from i to j."""

    members: int

    @property
    def count(self) -> int:
        return 1 if self.members > 1 else 0

    def sends(self, index: int, number: int) -> Sequence[Message]:
        first = index * self.members
        return [Message(peer, first + peer) for peer in range(self.members) if peer != index]

    def receives(self, index: int, number: int) -> Sequence[Message]:
        return [Message(peer, peer * self.members + index) for peer in range(self.members) if peer != index]


@dataclass(frozen=True, slots=True)
class Ring:
    """Every member sends one part per round to the next: part `index - number`, modulo the members.

    This is the part that it received in the round before. Without `reduces` the parts go around the ring
    once, in `members - 1` rounds, and every member gets every part: an all-gather. With `reduces` they go
    around twice, which is an all-reduce: first the parts are added up (reduce-scatter), then the sums go
    around (all-gather). Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
    workstations", JPDC 2009.
    """

    members: int
    reduces: bool = False

    @property
    def count(self) -> int:
        return (self.members - 1) * (2 if self.reduces else 1)

    def sends(self, index: int, number: int) -> Sequence[Message]:
        members = self.members
        return (Message((index + 1) % members, (index - number) % members, self._adds(number)),)

    def receives(self, index: int, number: int) -> Sequence[Message]:
        members = self.members
        return (Message((index - 1) % members, (index - 1 - number) % members, self._adds(number)),)

    def totals(self, index: int, parts: Sequence[int]) -> dict[int, int]:
        """Bytes that member `index` sends to each other member in all rounds, for parts of these sizes."""
        if self.members == 1:
            return {}
        following = (index + 1) % self.members
        once = sum(parts) - parts[following]
        if not self.reduces:
            return {following: once}
        return {following: once + sum(parts) - parts[(index + 2) % self.members]}

    def _adds(self, number: int) -> bool:
        return self.reduces and number < self.members - 1


class _Node(NamedTuple):
    """A member in a binary tree. `height` counts the levels below it, `depth` the levels above."""

    height: int
    depth: int
    parent: int | None
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DoubleTree:
    """Tree all-reduce: each half of the vector goes up and down a binary tree of its own.

    A member that has children in one tree is a leaf of the other (except member 0 if their number is odd).
    Each half goes in `chunks` chunks. A member adds up what its children send and passes it on, one chunk
    per round. The sums come down from the root in the same way. Part c is chunk c of the first half, part
    `chunks + c` is chunk c of the second.

    The trees are NCCL's (`src/graph/trees.cc`, `ncclGetDtree`), here over single ranks. The first goes by
    the lowest bits of the members' numbers. The second is its mirror image, or the first shifted by one
    member if their number is odd. Sanders, Speck and Träff, "Two-tree algorithms for full bandwidth
    broadcast, reduction and scan", Parallel Computing 2009.
    """

    members: int
    chunks: int

    @property
    def count(self) -> int:
        if self.members == 1:
            return 0
        return self.chunks + 2 * _levels(self.members) - 1

    def sends(self, index: int, number: int) -> Sequence[Message]:
        down = number - _levels(self.members)
        found: list[Message] = []
        for first, tree in self._trees():
            node = tree[index]
            if node.parent is not None and 0 <= number - node.height < self.chunks:
                found.append(Message(node.parent, first + number - node.height, True))
            if 0 <= down - node.depth < self.chunks:
                found += [Message(child, first + down - node.depth) for child in node.children]
        return sorted(found)

    def receives(self, index: int, number: int) -> Sequence[Message]:
        down = number - _levels(self.members)
        found: list[Message] = []
        for first, tree in self._trees():
            node = tree[index]
            for child in node.children:
                if 0 <= number - tree[child].height < self.chunks:
                    found.append(Message(child, first + number - tree[child].height, True))
            if node.parent is not None and 0 <= down - node.depth + 1 < self.chunks:
                found.append(Message(node.parent, first + down - node.depth + 1))
        return sorted(found)

    def totals(self, index: int, parts: Sequence[int]) -> dict[int, int]:
        """Bytes that member `index` sends to each other member in all rounds, for parts of these sizes."""
        sent: dict[int, int] = {}
        for first, tree in self._trees():
            half = sum(parts[first : first + self.chunks])
            node = tree[index]
            for peer in (*node.children, *(() if node.parent is None else (node.parent,))):
                sent[peer] = sent.get(peer, 0) + half
        return sent

    def _trees(self) -> Iterator[tuple[int, tuple[_Node, ...]]]:
        """Both trees, each after the number of its first part."""
        if self.members > 1:
            for number, tree in enumerate(_double_tree(self.members)):
                yield number * self.chunks, tree


def split(size: int, parts: int) -> tuple[int, ...]:
    """`size` split into `parts` whole numbers that differ by at most 1, the larger ones first."""
    each, more = divmod(size, parts)
    return (each + 1,) * more + (each,) * (parts - more)


def tree_chunks(size_bytes: int) -> int:
    """The number of chunks in which each half of a vector of `size_bytes` goes through its tree."""
    return min(TREE_MOST_CHUNKS, max(1, -(-size_bytes // (2 * TREE_CHUNK_BYTES))))


def tree_parts(size: int, chunks: int) -> tuple[int, ...]:
    """The sizes of the parts of a vector of `size` for a `DoubleTree`."""
    first, second = split(size, 2)
    return split(first, chunks) + split(second, chunks)


@cache
def _double_tree(members: int) -> tuple[tuple[_Node, ...], tuple[_Node, ...]]:
    parents = [_parent(rank, members) for rank in range(members)]

    def renamed(name: Callable[[int], int]) -> tuple[_Node, ...]:
        other: list[int | None] = [None] * members
        for rank, parent in enumerate(parents):
            other[name(rank)] = None if parent is None else name(parent)
        return _nodes(other)

    if members % 2:
        return _nodes(parents), renamed(lambda rank: (rank + 1) % members)
    return _nodes(parents), renamed(lambda rank: members - 1 - rank)


@cache
def _levels(members: int) -> int:
    """The number of levels below the root; both trees have the same shape."""
    return max(node.height for node in _double_tree(members)[0])


def _parent(rank: int, members: int) -> int | None:
    """The parent of `rank`, as in NCCL's `ncclGetBtree`: 2 is above 1 and 3, 4 is above 2 and 6, and so on.

    0 is above all.
    """
    if rank == 0:
        return None
    bit = rank & -rank
    up = rank ^ bit | bit << 1
    return up if up < members else rank ^ bit


def _nodes(parents: Sequence[int | None]) -> tuple[_Node, ...]:
    children: list[list[int]] = [[] for _ in parents]
    for rank, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(rank)
    heights, depths = [0] * len(parents), [0] * len(parents)
    reached = [parents.index(None)]
    for rank in reached:
        for child in children[rank]:
            depths[child] = depths[rank] + 1
            reached.append(child)
    for rank in reversed(reached):
        heights[rank] = 1 + max((heights[child] for child in children[rank]), default=-1)
    return tuple(map(_Node, heights, depths, parents, map(tuple, children)))

"""What the compiled core has to know about a collective: its rounds, and whether it can go as one stream."""

from collections.abc import Sequence
from functools import cache

from workers.plan import Collective, CollectiveKind
from workers.rounds import Direct, DoubleTree, Ring

EVEN = 0.01
"""Two sizes count as equal if they differ by at most this share of the larger one."""

_Pairs = tuple[tuple[int, int], ...]
"""Peers, and the number of a part for each."""

Structure = tuple[tuple[tuple[tuple[_Pairs, _Pairs, int], ...], ...], tuple[tuple[int, ...], ...]]
"""For each round and member: its first message to each peer, its further messages to the same peers (both
trees of a double tree can have one), and how many messages it receives. Then, for each member, the peers
that it sends to."""


@cache
def structure(rounds: Direct | Ring | DoubleTree) -> Structure:
    """Who sends what to whom in each round, without the sizes. It is the same object for equal rounds."""
    return (
        tuple(
            tuple(_of_member(rounds, index, number) for index in range(rounds.members))
            for number in range(rounds.count)
        ),
        tuple(_peers(rounds, index) for index in range(rounds.members)),
    )


def _of_member(rounds: Direct | Ring | DoubleTree, index: int, number: int) -> tuple[_Pairs, _Pairs, int]:
    first: dict[int, int] = {}
    further: list[tuple[int, int]] = []
    for message in rounds.sends(index, number):
        if message.peer in first:
            further.append((message.peer, message.part))
        else:
            first[message.peer] = message.part
    return tuple(first.items()), tuple(further), len(rounds.receives(index, number))


def _peers(rounds: Direct | Ring | DoubleTree, index: int) -> tuple[int, ...]:
    if isinstance(rounds, Direct):
        return tuple(peer for peer in range(rounds.members) if peer != index)
    parts = 2 * rounds.chunks if isinstance(rounds, DoubleTree) else rounds.members
    return tuple(rounds.totals(index, (0,) * parts))


def even(step: Collective, members: int) -> bool:
    """Whether `step` can go as one stream: alone, its last byte arrives when it would message by message.

    These can:

    - a ring all-reduce, in which all members send equally much in all rounds;
    - an all-gather of equal shards;
    - an all-to-all in which every member sends equally much to all others (a dispatch to experts), or gets
      equally much from all others (a combine).

    A tree all-reduce cannot, because its members have different parts, nor can ring attention, which waits
    for compute. A collective with nothing to send need not.
    """
    if members == 1:
        return False
    match step.kind:
        case CollectiveKind.ALL_REDUCE:
            return step.sizes[0][0] > 0
        case CollectiveKind.ALL_GATHER:
            return max(step.sizes[0]) > 0 and _alike(step.sizes[0])
        case CollectiveKind.ALL_TO_ALL:
            if not any(map(max, step.sizes)):
                return False
            return _all_alike(step.sizes) or _all_alike(tuple(zip(*step.sizes, strict=True)))
    return False


def _all_alike(rows: Sequence[tuple[int, ...]]) -> bool:
    """Whether the sizes in each row are alike. The diagonal does not count, because it is not sent."""
    return all(_alike(row[:i] + row[i + 1 :]) for i, row in enumerate(rows))


def _alike(sizes: Sequence[int]) -> bool:
    most = max(sizes)
    return most - min(sizes) <= EVEN * most

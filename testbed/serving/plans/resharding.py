"""Who sends which KV to whom, between ranks that divide the heads differently.

Both sides divide the KV heads of a token among their tensor-parallel ranks in order. With more ranks than
heads, neighbouring ranks have copies of a head, and every rank has all of the latent of MLA.

Suppose the receivers want T heads in all, copies included. Lay these out in the order of the receivers:
receiver j of q wants the part from jT/q to (j+1)T/q. The copies of a head are then next to each other, and
so are the senders that have it. Sender i of p sends the part from iT/p to (i+1)T/p, which it has, whatever
p and q are: the copies that it can serve are shared evenly among those who have them. So i sends to j where
the two parts overlap.
"""

from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from math import gcd
from typing import NamedTuple

from workers.rounds import split


class Piece(NamedTuple):
    """What sender `src` has for receiver `dst`, both counted within their groups; `size` is in bytes."""

    src: int
    dst: int
    size: int


def resharded(size_bytes: int, senders: int, receivers: int) -> tuple[Piece, ...]:
    """Deal out `size_bytes`, all that the receivers want, copies included.

    Each side's parts are as even as whole bytes can be, and the sum is exact. The pairs of ranks depend on
    `senders` and `receivers` only, so a piece of few bytes can be empty.
    """
    blocks = gcd(senders, receivers)
    p, q = senders // blocks, receivers // blocks
    return tuple(
        Piece(src=block * p + i, dst=block * q + j, size=size)
        for block, of_block in enumerate(split(size_bytes, blocks))
        for i, j, size in _overlaps(of_block, p, q)
    )


@cache
def pairs(senders: int, receivers: int) -> tuple[tuple[int, int], ...]:
    """The sender and the receiver of each piece that `resharded` returns."""
    return tuple((piece.src, piece.dst) for piece in resharded(0, senders, receivers))


def share_of_sender(src: int, dst: int, senders: int, receivers: int) -> float:
    """The share of what sender `src` sends that goes to receiver `dst`."""
    begin = max(src * receivers, dst * senders)
    end = min((src + 1) * receivers, (dst + 1) * senders)
    return max(0, end - begin) / receivers


def _overlaps(size: int, p: int, q: int) -> Iterator[tuple[int, int, int]]:
    """The overlaps of `p` even parts of `size` bytes with `q` even parts; p and q have no common factor.

    The parts overlap as they would without rounding. An end that rounding has put before an earlier end
    moves up to it.
    """
    sent_ends, wanted_ends = list(accumulate(split(size, p))), list(accumulate(split(size, q)))
    i = j = begin = 0
    while i < p:
        sent_first = (i + 1) * q < (j + 1) * p
        end = max(begin, sent_ends[i] if sent_first else wanted_ends[j])
        yield i, j, end - begin
        begin = end
        both = (i + 1) * q == (j + 1) * p
        i, j = i + (sent_first or both), j + (both or not sent_first)

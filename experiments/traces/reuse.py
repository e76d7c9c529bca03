"""Reuse in a trace: how much, how soon, from which prefixes, and what a cache of each size would hit.

The cache is one for all requests. It holds whole blocks and evicts the least recently used first, as
`testbed.serving.cache.prefix_index.PrefixIndex` does: a prompt is looked up, then its blocks become the
most recent ones, the first block last of all. So the later a block is in a prompt, the less recent it is,
and what is held of a prompt is always a prefix.

The *stack distance* of a block is the number of distinct blocks that are more recent (Mattson et al.,
"Evaluation techniques for storage hierarchies", IBM Systems Journal 9, 1970). A cache of C blocks holds the
block if its distance is below C. The distances of n accesses take O(n log n), with a tree of partial sums
over the accesses that are the last of their block (Bennett and Kruskal, "LRU stack processing", IBM Journal
of Research and Development 19, 1975).
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from experiments.results.statistics import FloatArray, percentile
from experiments.traces import _core
from experiments.traces.columns import Columns
from experiments.traces.lengths import Longs

TOP_PREFIXES = 5
_REQUESTS: Final = 1 << 16
"""How many requests are worked on at a time."""


class DistanceQuantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of distances; None if nothing is reused."""

    p50: float | None
    p90: float | None


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix that more requests have than any prefix that continues it."""

    tokens: int
    requests: int


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """What can be reused with a cache that holds all KV from the arrival of its request on.

    `token_share` is the share of prompt tokens that can be reused, `request_share` the share of requests
    that can reuse any. Distances are from a reused block to its previous use: in requests (1: the request
    before), and in distinct blocks used since.

    `prefixes` is the number of shared prefixes that no longer shared prefix continues. A prompt uses such a
    prefix if what it shares leads to this one and to no other. The i-th most used one has a number of users
    in proportion to i**-`zipf`; None for fewer than two. `most_shared` are the prefixes that most requests
    have.
    """

    token_share: float
    request_share: float
    distance_requests: DistanceQuantiles
    distance_blocks: DistanceQuantiles
    distinct_blocks: int
    prefixes: int
    zipf: float | None
    most_shared: tuple[Prefix, ...]


class HitCurve(msgspec.Struct, frozen=True, kw_only=True):
    """`hit_rate[i]` is the share of prompt tokens that a cache of `cache_tokens[i]` hits; both ascend."""

    cache_tokens: list[int]
    hit_rate: list[float]


_NOTHING = Reuse(
    token_share=0.0,
    request_share=0.0,
    distance_requests=DistanceQuantiles(p50=None, p90=None),
    distance_blocks=DistanceQuantiles(p50=None, p90=None),
    distinct_blocks=0,
    prefixes=0,
    zipf=None,
    most_shared=(),
)


def reuse_of(columns: Columns) -> tuple[Reuse, HitCurve]:
    if not len(columns.blocks):
        return _NOTHING, HitCurve(cache_tokens=[], hit_rate=[])
    prefixes = _Prefixes(columns)
    reused, since, reusing = _core.distances(columns.blocks, columns.starts, prefixes.distinct)
    tokens = columns.prompt_tokens.total
    found = Reuse(
        token_share=len(reused) * columns.block_tokens / tokens,
        request_share=float(np.mean(reusing > 0)),
        distance_requests=_quantiles(since),
        distance_blocks=_quantiles(reused),
        distinct_blocks=prefixes.distinct,
        prefixes=len(prefixes.users),
        zipf=_zipf(prefixes.users),
        most_shared=prefixes.most_shared(TOP_PREFIXES),
    )
    return found, _curve(reused, columns.block_tokens, tokens)


def _quantiles(values: Longs) -> DistanceQuantiles:
    as_floats: FloatArray = values.astype(np.float64)
    return DistanceQuantiles(p50=percentile(as_floats, 50), p90=percentile(as_floats, 90))


def _curve(reused: Longs, block_tokens: int, tokens: int, points: int = 200) -> HitCurve:
    """The hit rates at sizes that grow evenly in their logarithm, up to the one that hits all there is."""
    if not len(reused):
        return HitCurve(cache_tokens=[], hit_rate=[])
    ordered = np.sort(reused)
    needed = int(ordered[-1]) + 1
    sizes = np.unique(np.geomspace(1, needed, points).round().astype(np.int64))
    hits = np.searchsorted(ordered, sizes)  # distances below the size
    return HitCurve(
        cache_tokens=(sizes * block_tokens).tolist(), hit_rate=(hits * block_tokens / tokens).tolist()
    )


def _zipf(users: Longs) -> float | None:
    """Minus the slope of log(users) over log(rank), by least squares; at least 0."""
    if len(users) < 2:
        return None
    ordered = np.sort(users.astype(np.float64))[::-1]
    slope = np.polyfit(np.log(np.arange(1, len(ordered) + 1)), np.log(ordered), 1)[0]
    return max(0.0, -float(slope))


def _parts(columns: Columns) -> Iterator[tuple[Longs, Longs]]:
    """Yield the blocks and their starts some requests at a time, as copies of all of them may be large."""
    for first in range(0, columns.count, _REQUESTS):
        starts = columns.starts[first : first + _REQUESTS + 1]
        yield columns.blocks[starts[0] : starts[-1]], starts - starts[0]


class _Prefixes:
    """How often each block is used, and where shared prefixes end.

    `users` has the number of prompts that use each shared prefix that no longer shared prefix continues.
    """

    def __init__(self, columns: Columns) -> None:
        self._block_tokens = columns.block_tokens
        self.distinct = int(columns.blocks.max()) + 1
        self._uses = np.bincount(columns.blocks, minlength=self.distinct)
        self._depth = np.zeros(self.distinct, dtype=np.int64)
        before = np.full(self.distinct, _core.NO_END, dtype=np.int64)  # the block that each block follows
        for blocks, starts in _parts(columns):
            inside = np.arange(len(blocks)) - np.repeat(starts[:-1], np.diff(starts))
            self._depth[blocks] = inside + 1
            followers = np.flatnonzero(inside > 0)
            before[blocks[followers]] = blocks[followers - 1]
        self._longest = np.ones(self.distinct, dtype=np.bool_)
        self._longest[before[(before != _core.NO_END) & (self._uses == self._uses[before])]] = False
        shared = np.flatnonzero(self._uses > 1)
        deepest_first = shared[np.argsort(-self._depth[shared], kind="stable")]
        ends = _core.ends(before, deepest_first)
        # The deepest shared block of each prompt that has any. All blocks before it are shared too.
        users = np.zeros(self.distinct, dtype=np.int64)
        for blocks, starts in _parts(columns):
            counts = np.diff(np.append(0, np.cumsum(self._uses[blocks] > 1))[starts])
            deepest = blocks[starts[:-1][counts > 0] + counts[counts > 0] - 1]
            on_the_way_to = ends[deepest]
            np.add.at(users, on_the_way_to[on_the_way_to >= 0], 1)
        self.users: Longs = users[users > 0]

    def most_shared(self, count: int) -> tuple[Prefix, ...]:
        candidates = np.flatnonzero((self._uses > 1) & self._longest)
        order = np.lexsort((-self._depth[candidates], -self._uses[candidates]))[:count]
        return tuple(
            Prefix(tokens=int(self._depth[block]) * self._block_tokens, requests=int(self._uses[block]))
            for block in candidates[order]
        )

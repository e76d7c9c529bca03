"""Token counts of a trace: how often each occurs, which takes little memory for any number of requests."""

import math
from array import array
from typing import Final, Self

import msgspec
import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]

_AT_ONCE: Final = 1 << 16


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts: `counts[i]` requests have `values[i]` tokens. The values ascend."""

    values: Longs
    counts: Longs

    @classmethod
    def of(cls, tokens: Longs) -> Self:
        values, counts = np.unique(tokens, return_counts=True)
        return cls(values=values, counts=counts)

    @property
    def total(self) -> int:
        """The tokens of all requests together."""
        return int(self.values @ self.counts)

    def at_ranks(self, ranks: Longs) -> Longs:
        """Return the values at `ranks` of the token counts in order; the first rank is 0."""
        return self.values[np.searchsorted(np.cumsum(self.counts), ranks, side="right")]


class LengthCounter:
    """Counts token counts, which come one by one or many at a time."""

    def __init__(self) -> None:
        self._counts = np.zeros(1, dtype=np.int64)  # by number of tokens
        self._waiting = array("q")

    def add(self, tokens: int) -> None:
        self._waiting.append(tokens)
        if len(self._waiting) >= _AT_ONCE:
            self._count_waiting()

    def add_all(self, tokens: Longs) -> None:
        counts = np.bincount(tokens, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def lengths(self) -> Lengths:
        self._count_waiting()
        values = np.flatnonzero(self._counts)
        return Lengths(values=values, counts=self._counts[values])

    def _count_waiting(self) -> None:
        if self._waiting:
            self.add_all(np.array(self._waiting, dtype=np.int64))
            self._waiting = array("q")


class LengthStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of token counts. `cv` is the standard deviation over the mean."""

    mean: float
    cv: float
    p50: float
    p90: float
    p99: float
    max: int


def lengths_of(tokens: Lengths) -> LengthStatistics:
    count = int(tokens.counts.sum())
    mean = tokens.total / count
    variance = float(tokens.counts @ (tokens.values - mean) ** 2) / count
    p50, p90, p99 = (_percentile(tokens, count, q) for q in (50, 90, 99))
    return LengthStatistics(
        mean=mean,
        cv=math.sqrt(variance) / mean if mean else 0.0,
        p50=p50,
        p90=p90,
        p99=p99,
        max=int(tokens.values[-1]),
    )


def _percentile(tokens: Lengths, count: int, q: float) -> float:
    """Return the q-th percentile, as `experiments.results.statistics.percentile` defines it."""
    rank = (count - 1) * q / 100
    below = math.floor(rank)
    low, high = tokens.at_ranks(np.array([below, min(below + 1, count - 1)])).tolist()
    return float(low + (high - low) * (rank - below))

"""A trace by columns, compact enough for many millions of requests, and statistics of its arrivals."""

import math
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from controller.units import NS_PER_S
from experiments.trace_formats import ticks
from experiments.traces.lengths import Lengths, Longs

_CHUNK: Final = 1 << 20
"""Arrivals that are worked on at a time: a copy of all of them may be large."""

WINDOWS_S = (1, 10)


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in order of arrival, the first at 0.

    The blocks of request i are `blocks[starts[i]:starts[i + 1]]`. Their ids count from 0 in order of first
    use. A trace that does not say what its prompts are made of has no blocks, and no starts. `clock` stamped
    the trace; None if it is not coarse. `notes` say how the trace was read.
    """

    time_ns: Longs
    prompt_tokens: Lengths
    output_tokens: Lengths
    blocks: Longs
    starts: Longs
    block_tokens: int
    clock: ticks.Clock | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.time_ns)


class ArrivalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How requests arrive. `gap_cv` is the coefficient of variation of the gaps between them: 1 for a
    Poisson process. `dispersion` has, by length of a window in seconds, the variance over the mean of the
    number of arrivals in a window; None if fewer than `MIN_WINDOWS` windows fit."""

    span_s: float
    rate_rps: float | None
    gap_cv: float | None
    dispersion: dict[int, float | None]


MIN_WINDOWS = 10


def arrivals_of(columns: Columns) -> ArrivalStatistics:
    """Describe the arrivals. n of them span n - 1 gaps, so the mean rate is (n - 1) / span; None if all
    arrive at once."""
    span_s = float(columns.time_ns[-1]) / NS_PER_S
    return ArrivalStatistics(
        span_s=span_s,
        rate_rps=(columns.count - 1) / span_s if span_s else None,
        gap_cv=_gap_cv(columns.time_ns) if span_s else None,
        dispersion={window: dispersion(columns.time_ns, window) for window in WINDOWS_S},
    )


def _gap_cv(time_ns: Longs) -> float:
    gaps = len(time_ns) - 1
    mean = float(time_ns[-1]) / gaps
    squares = 0.0
    for begin in range(0, gaps, _CHUNK):
        squares += float(np.square(np.diff(time_ns[begin : begin + _CHUNK + 1]) - mean).sum())
    return math.sqrt(squares / gaps) / mean


def dispersion(time_ns: Longs, window_s: float) -> float | None:
    """Return the variance over the mean of the counts in all whole windows from the first arrival on."""
    windows = math.floor(float(time_ns[-1]) / (window_s * NS_PER_S))
    if windows < MIN_WINDOWS:
        return None
    counts = window_counts(time_ns, window_s, windows)
    return float(counts.var(ddof=1) / counts.mean())


def window_counts(time_ns: Longs, window_s: float, windows: int) -> Longs:
    """Return how many requests arrive in each of the first `windows` windows of `window_s` seconds."""
    counts = np.zeros(windows, dtype=np.int64)
    for part in parts_of(time_ns):
        places = (part / (window_s * NS_PER_S)).astype(np.int64)
        counts += np.bincount(places[places < windows], minlength=windows)
    return counts


def parts_of(time_ns: Longs) -> Iterator[Longs]:
    """Yield the times some at a time."""
    for begin in range(0, len(time_ns), _CHUNK):
        yield time_ns[begin : begin + _CHUNK]

"""Coarse clocks in traces: find the tick, and spread the arrivals that share one."""

import random
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from controller.units import NS_PER_MS, NS_PER_S

_JITTER_SHARE = 0.01
_MIN_ON_GRID = 0.9
_MIN_SHARING = 1.5
_MIN_PER_TICK = 0.01
_MIN_STAMPS = 10
_CANDIDATES = 8
_REFINEMENTS = 4
_CHUNK = 1 << 20
"""Arrivals that are worked on at a time. A trace may have many millions, and a copy of them is large."""

Longs = npt.NDArray[np.int64]
_Whole = npt.NDArray[np.integer]


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """A coarse clock that stamped a trace. `sharing` is the share of arrivals whose stamp another has too."""

    tick_ns: int
    sharing: float

    @property
    def tick(self) -> str:
        """The tick in words."""
        if self.tick_ns >= NS_PER_S:
            return f"{self.tick_ns / NS_PER_S:.1f} s"
        return f"{self.tick_ns / NS_PER_MS:.3g} ms"

    def note(self, spread: bool) -> str:
        """What to say of this clock if arrivals are spread inside its ticks, or if they are not."""
        shared = f"as stamped, {self.sharing:.0%} of the arrivals share their moment with another"
        if spread:
            return f"arrivals spread inside the trace's {self.tick} tick ({shared})"
        return f"arrivals not spread inside the trace's {self.tick} tick ({shared})"


def clock_of(arrivals_ns: Longs) -> Clock | None:
    """Return the clock that stamped these sorted arrivals, or None if it is not coarse.

    A clock is coarse if some arrivals share a stamp, nine gaps in ten between stamps are a whole multiple of
    the tick to within 1 % of it, and either

    - there are 1.5 arrivals or more per stamp, and the tick is the median gap; or
    - there is an arrival in every hundred ticks or more, and there are ten stamps or more. The tick is then
      what all gaps have in common: at a low rate, most ticks have no arrival, so no gap need be one tick.
    """
    count = len(arrivals_ns)
    stamps = 1 + sum(int(np.count_nonzero(gaps)) for gaps in _all_gaps(arrivals_ns))
    if stamps < 3 or count == stamps:
        return None
    gaps = _sorted_gaps(arrivals_ns, stamps - 1)
    tick_ns = None
    if count >= _MIN_SHARING * stamps:
        median_ns = round((int(gaps[(len(gaps) - 1) // 2]) + int(gaps[len(gaps) // 2])) / 2)
        tick_ns = median_ns if _are_on(gaps, median_ns) else None
    if tick_ns is None and stamps >= _MIN_STAMPS:
        sparsest_ns = _MIN_PER_TICK * _total(gaps) / count
        tick_ns = next((tick for tick in _common_ticks(gaps) if tick >= sparsest_ns), None)
    if tick_ns is None:
        return None
    return Clock(tick_ns=tick_ns, sharing=_sharing(arrivals_ns) / count)


def _all_gaps(arrivals_ns: Longs) -> Iterator[Longs]:
    """Yield the gaps between arrivals, those between equal stamps included, some at a time."""
    for begin in range(0, len(arrivals_ns) - 1, _CHUNK):
        yield np.diff(arrivals_ns[begin : begin + _CHUNK + 1])


def _sorted_gaps(arrivals_ns: Longs, count: int) -> _Whole:
    """Return the `count` gaps between different stamps, the shortest first. If they fit, they are 32-bit."""
    longest = max((int(gaps.max()) for gaps in _all_gaps(arrivals_ns)), default=0)
    small = np.uint32 if longest < 2**32 else np.int64
    found: _Whole = np.empty(count, dtype=small)
    end = 0
    for gaps in _all_gaps(arrivals_ns):
        apart = gaps[gaps > 0]
        found[end : end + len(apart)] = apart
        end += len(apart)
    found.sort()
    return found


def _sharing(arrivals_ns: Longs) -> int:
    """Return the number of arrivals with the stamp of another."""
    alone, before = 0, True  # whether the stamp differs from the one before
    for gaps in _all_gaps(arrivals_ns):
        apart = np.concatenate(([before], gaps > 0))
        alone += int(np.count_nonzero(apart[:-1] & apart[1:]))
        before = bool(apart[-1])
    return len(arrivals_ns) - alone - before


def _total(gaps: _Whole) -> int:
    return int(gaps.sum(dtype=np.int64))


def _common_ticks(gaps: _Whole) -> Iterator[int]:
    """Yield ticks of which the gaps are multiples: the exact one if it is large, then those with jitter.

    The gaps are sorted. With jitter, a tick is fitted to them in two steps. One of the shortest, which are
    one tick or few, is a first guess. The guess is refined by the length of all gaps over the number of ticks
    in them.
    """
    yield int(np.gcd.reduce(gaps))
    for gap in gaps[:: max(1, len(gaps) // (4 * _CANDIDATES))][:_CANDIDATES].tolist():
        tick = float(gap)
        # Long gaps have many ticks, in which a small error of the guess adds up: take them in last.
        for most in (4.0**i for i in range(1, _REFINEMENTS + 1)):
            longest = gaps.dtype.type(min(int(most * gap), int(gaps[-1])))  # of the same type: no copy
            near = gaps[: np.searchsorted(gaps, longest, side="right")]
            ticks = sum(int(np.rint(part / tick).sum()) for part in _parts(near))
            tick = _total(near) / ticks if ticks else tick
        if _are_on(gaps, round(tick)):
            yield round(tick)


def _parts(gaps: _Whole) -> Iterator[_Whole]:
    for begin in range(0, len(gaps), _CHUNK):
        yield gaps[begin : begin + _CHUNK]


def _are_on(gaps: _Whole, tick_ns: int) -> bool:
    """Return whether enough of the gaps are multiples of the tick."""
    if not tick_ns:
        return False
    left, on = len(gaps), 0
    for part in _parts(gaps):
        multiples = np.maximum(1, np.rint(part / tick_ns)).astype(np.int64)
        on += int(np.count_nonzero(np.abs(part - multiples * tick_ns) <= _JITTER_SHARE * tick_ns))
        left -= len(part)
        if (on + left) / len(gaps) < _MIN_ON_GRID:
            return False
    return on / len(gaps) >= _MIN_ON_GRID


def spread(arrivals_ns: Longs, tick_ns: int, seed: int) -> None:
    """Spread the n arrivals that share a stamp over the tick after it: one in each n-th of the tick.

    The arrivals are changed in place. The place inside its n-th is drawn from `seed`; the order of the trace
    stays. If the next stamp comes early, because the clock jitters, the tick is cut short, so the result is
    sorted.
    """
    state = random.Random(f"{seed}:ticks").getstate()[1]
    draw = np.random.RandomState()
    draw.set_state(("MT19937", np.array(state[:-1], dtype=np.uint32), state[-1], 0, 0.0))
    begin, count = 0, len(arrivals_ns)
    while begin < count:
        # Whole groups of one stamp: the last one that begins in the chunk ends behind it.
        last = arrivals_ns[min(begin + _CHUNK, count) - 1]
        end = int(np.searchsorted(arrivals_ns, last, side="right"))
        stamps, n = np.unique(arrivals_ns[begin:end], return_counts=True)
        next_ns = np.append(stamps[1:], arrivals_ns[end] if end < count else last + tick_ns)
        width = np.repeat(np.minimum(tick_ns, next_ns - stamps), n)
        place = np.arange(end - begin) - np.repeat(np.cumsum(n) - n, n)
        share = (place + draw.random_sample(end - begin)) * width / np.repeat(n, n)
        arrivals_ns[begin:end] += share.astype(np.int64)
        begin = end

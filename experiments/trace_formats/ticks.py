"""Coarse clocks in traces: find the tick, and spread the arrivals that share one."""

import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from controller.units import NS_PER_MS, NS_PER_S

_JITTER_SHARE = 0.01
_MIN_ON_GRID = 0.9
_MIN_SHARING = 1.5
_MIN_PER_TICK = 0.01
_MIN_STAMPS = 10
_CANDIDATES = 8
_REFINEMENTS = 4


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


def clock_of(arrivals_ns: Sequence[int]) -> Clock | None:
    """Return the clock that stamped these sorted arrivals, or None if it is not coarse.

    A clock is coarse if some arrivals share a stamp, nine gaps in ten between stamps are a whole multiple of
    the tick to within 1 % of it, and either

    - there are 1.5 arrivals or more per stamp, and the tick is the median gap; or
    - there is an arrival in every hundred ticks or more, and there are ten stamps or more. The tick is then
      what all gaps have in common: at a low rate, most ticks have no arrival, so no gap need be one tick.
    """
    stamps = Counter(arrivals_ns)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(stamps))]
    if len(gaps) < 2 or len(arrivals_ns) == len(stamps):
        return None
    tick_ns = None
    if len(arrivals_ns) >= _MIN_SHARING * len(stamps):
        median_ns = round(statistics.median(gaps))
        tick_ns = median_ns if _share_on(gaps, median_ns) >= _MIN_ON_GRID else None
    if tick_ns is None and len(stamps) >= _MIN_STAMPS:
        sparsest_ns = _MIN_PER_TICK * sum(gaps) / len(arrivals_ns)
        tick_ns = next((tick for tick in _common_ticks(gaps) if tick >= sparsest_ns), None)
    if tick_ns is None:
        return None
    shared = sum(count for count in stamps.values() if count > 1)
    return Clock(tick_ns=tick_ns, sharing=shared / len(arrivals_ns))


def _common_ticks(gaps: list[int]) -> Iterator[int]:
    """Yield ticks of which the gaps are multiples: the exact one if it is large, then those with jitter.

    With jitter, a tick is fitted to the gaps in two steps. One of the shortest gaps, which are one tick or
    few, is a first guess. The guess is refined by the length of all gaps over the number of ticks in them.
    """
    yield math.gcd(*gaps)
    shortest = sorted(gaps)
    for gap in shortest[:: max(1, len(gaps) // (4 * _CANDIDATES))][:_CANDIDATES]:
        tick = float(gap)
        # Long gaps have many ticks, in which a small error of the guess adds up: take them in last.
        for most in (4.0**i for i in range(1, _REFINEMENTS + 1)):
            near = [one for one in shortest if one <= most * gap]
            ticks = sum(round(one / tick) for one in near)
            tick = sum(near) / ticks if ticks else tick
        if _share_on(gaps, round(tick)) >= _MIN_ON_GRID:
            yield round(tick)


def _share_on(gaps: list[int], tick_ns: int) -> float:
    if not tick_ns:
        return 0.0
    return sum(_off_grid(gap, tick_ns) <= _JITTER_SHARE * tick_ns for gap in gaps) / len(gaps)


def _off_grid(gap_ns: int, tick_ns: int) -> int:
    multiples = max(1, round(gap_ns / tick_ns))
    return abs(gap_ns - multiples * tick_ns)


def spread(arrivals_ns: Sequence[int], tick_ns: int, seed: int) -> list[int]:
    """Spread the n arrivals that share a stamp over the tick after it: one in each n-th of the tick.

    The place inside its n-th is drawn from `seed`; the order of the trace stays. If the next stamp comes
    early, because the clock jitters, the tick is cut short, so the result is sorted.
    """
    draw = random.Random(f"{seed}:ticks")
    spread_ns: list[int] = []
    groups = [(stamp, len(list(same))) for stamp, same in itertools.groupby(arrivals_ns)]
    for i, (stamp, n) in enumerate(groups):
        width = tick_ns if i + 1 == len(groups) else min(tick_ns, groups[i + 1][0] - stamp)
        spread_ns += [stamp + int((k + draw.random()) * width / n) for k in range(n)]
    return spread_ns

"""Coarse clocks in traces: find the tick, and spread the arrivals that share one."""

import itertools
import random
import statistics
from collections import Counter

_JITTER_SHARE = 0.01
_MIN_ON_GRID = 0.9
_MIN_SHARING = 1.5


def tick_of(arrivals_ns: list[int]) -> int | None:
    """Return the tick in ns of the clock that stamped these sorted arrivals, or None if it is not coarse.

    A clock is coarse if there are 1.5 arrivals or more per stamp, and nine gaps in ten are a whole multiple
    of the median gap to within 1 % of it.
    """
    stamps = sorted(Counter(arrivals_ns))
    if len(stamps) < 3 or len(arrivals_ns) < _MIN_SHARING * len(stamps):
        return None
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    tick_ns = round(statistics.median(gaps))
    on_grid = sum(_off_grid(gap, tick_ns) <= _JITTER_SHARE * tick_ns for gap in gaps)
    return tick_ns if on_grid >= _MIN_ON_GRID * len(gaps) else None


def _off_grid(gap_ns: int, tick_ns: int) -> int:
    multiples = max(1, round(gap_ns / tick_ns))
    return abs(gap_ns - multiples * tick_ns)


def spread(arrivals_ns: list[int], tick_ns: int, seed: int) -> list[int]:
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

"""The capacities of policies, over replicates, and their ratios, with intervals (decision 0027).

What is estimated is the rate at which the mean attainment over all replicates falls to the one asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from experiments.capacity.search import Bracket, bracket
from experiments.results.paired import Difference, jackknife, over_replicates

Attained = Mapping[Any, Mapping[float, float]]
"""The SLO attainment of a policy by replicate and rate (requests/s). All replicates have the same rates."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its 95 % interval, whose ends are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


class PolicyCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy carries, in requests/s, and as a multiple of what the first policy does.

    `bracket` is where the search on the mean attainment ended. `rate_rps` is interpolated in it; None if it
    has not two ends. `tried_rps` are the lowest and the highest rate that were tried: beyond, an interval
    rests on no run. `ratio` is None for the first policy, and where one of the two rates is.
    """

    policy: str
    replicates: int
    bracket: Bracket
    tried_rps: tuple[float, float] | None
    rate_rps: Interval | None
    ratio: Interval | None = None

    @property
    def ratio_shown(self) -> bool:
        """Whether the interval of the ratio leaves out 1."""
        ratio = self.ratio
        if ratio is None or ratio.low is None or ratio.high is None:
            return False
        return ratio.low > 1 or ratio.high < 1


def mean_curve(attained: Attained, *, without: Any = None) -> dict[float, float]:
    """Return the mean attainment at each rate, over all replicates or all but `without`."""
    kept = [rates for replicate, rates in attained.items() if without is None or replicate != without]
    return {rate: sum(rates[rate] for rates in kept) / len(kept) for rate in sorted(kept[0])} if kept else {}


def crossing(curve: Mapping[float, float], attain: float) -> float | None:
    """Return the rate at which `curve` falls to `attain`, linear in the logarithm of the rate between the two
    rates of its bracket; None without one."""
    found = bracket(curve, attain)
    if found.holds is None or found.fails is None:
        return None
    above, below = curve[found.holds], curve[found.fails]
    share = (above - attain) / (above - below)
    return float(found.holds * (found.fails / found.holds) ** share)


def capacities(attained: Mapping[str, Attained], attain: float) -> list[PolicyCapacity]:
    """Return what each policy carries; ratios are against the first one."""
    first = next(iter(attained.values()), {})
    found = []
    for policy, of_policy in attained.items():
        ratio, curve = None, mean_curve(of_policy)
        if of_policy is not first:
            ratio = _interval(of_policy, _log_ratio(of_policy, first, attain))
        found.append(
            PolicyCapacity(
                policy=policy,
                replicates=len(of_policy),
                bracket=bracket(curve, attain),
                tried_rps=(min(curve), max(curve)) if curve else None,
                rate_rps=_interval(of_policy, _log_rate(of_policy, attain)),
                ratio=ratio,
            )
        )
    return found


_Statistic = Callable[[Any], float | None]
"""A logarithm of a rate or a ratio, from all replicates (None) or all but the given one."""


def _log_rate(attained: Attained, attain: float) -> _Statistic:
    def statistic(without: Any) -> float | None:
        rate = crossing(mean_curve(attained, without=without), attain)
        return None if rate is None else math.log(rate)

    return statistic


def _log_ratio(attained: Attained, first: Attained, attain: float) -> _Statistic:
    mine, theirs = _log_rate(attained, attain), _log_rate(first, attain)

    def statistic(without: Any) -> float | None:
        ours, others = mine(without), theirs(without)
        return None if ours is None or others is None else ours - others

    return statistic


def _interval(attained: Attained, statistic: _Statistic) -> Interval | None:
    """None if all replicates together give no value; without an interval if all but one of them give none."""
    whole = statistic(None)
    if whole is None:
        return None
    parts = [statistic(replicate) for replicate in attained] if len(attained) > 1 else []
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return Interval(value=math.exp(whole))
    found = jackknife(whole, known)
    low, high = found.low, found.high
    return Interval(
        value=math.exp(whole),
        low=None if low is None else math.exp(low),
        high=None if high is None else math.exp(high),
    )


def curve_of(attained: Attained, rates: Sequence[float]) -> list[tuple[float, Difference]]:
    """Return the mean attainment at those of `rates` that were tried, each with its interval."""
    tried = mean_curve(attained)
    return [
        (rate, over_replicates([of[rate] for of in attained.values()])) for rate in rates if rate in tried
    ]

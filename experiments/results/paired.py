"""Whether a difference is real: paired differences of a measure, with intervals.

Two policies are compared on the same work, so what counts is the difference for each piece of it: for each
replicate (a seed, or a window of a trace), or for each request of a run. Decision 0023 says why the two have
different intervals. scipy takes long to import, so it is imported only where an interval is needed.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np

from experiments.results.statistics import FloatArray

CONFIDENCE: Final = 0.95
SEED: Final = "seed"
WINDOW: Final = "window"
REPLICATES: Final = (SEED, WINDOW)
"""What a sweep can have replicates over: seeds, or windows of a trace."""

_RESAMPLES: Final = 9_999
_AT_ONCE: Final = 1_000_000
"""How many drawn values are in memory at a time."""
_MOST_RESAMPLED: Final = 10_000
"""Of more differences, the mean is so close to normal that no resamples are needed (decision 0023)."""
_NORMAL: Final = NormalDist()
_FEWEST_REQUESTS: Final = 20


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The mean of `count` paired differences, and its interval of 95 % confidence, `low` to `high`.

    They are None where there are too few differences for an interval.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def over_replicates(differences: Sequence[float]) -> Difference:
    """Student's t interval for the mean of differences, or of values, over independent replicates.

    A single replicate has no interval. Raises `ValueError` without differences.
    """
    values = _values(differences)
    if len(values) < 2:
        return _without_interval(values)
    from scipy.special import stdtrit  # loads in a third of the time of scipy.stats, whose t.ppf calls it

    quantile = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)
    half = float(quantile * values.std(ddof=1) / len(values) ** 0.5)
    mean = float(values.mean())
    return Difference(mean=mean, low=mean - half, high=mean + half, count=len(values))


def jackknife(whole: float, without_each: Sequence[float]) -> Difference:
    """Student's t interval for a statistic of independent replicates that is no mean, such as a crossing.

    `whole` is the statistic of all replicates, `without_each` that of all but one, for each. Pseudo-values
    of the jackknife, n whole - (n - 1) without, stand for the replicates (Tukey, 1958). Raises `ValueError`
    for fewer than two replicates.
    """
    count = len(without_each)
    if count < 2:
        raise ValueError("a jackknife needs two replicates or more")
    found = over_replicates([count * whole - (count - 1) * one for one in without_each])
    assert found.low is not None
    assert found.high is not None
    half = (found.high - found.low) / 2
    return Difference(mean=whole, low=whole - half, high=whole + half, count=count)


def over_requests(differences: Sequence[float]) -> Difference:
    """Bootstrap interval (BCa) for the mean of differences over the requests of one run.

    It says how much the mean depends on which requests there were. Requests of a run share batches and links
    and are not independent, so it does not say what another seed would give. None for fewer than 20. The
    resamples are the same each time. For more than 10,000 differences, it is the interval of a normal mean.
    Raises `ValueError` without differences.
    """
    values = _values(differences)
    mean = float(values.mean())
    if len(values) < _FEWEST_REQUESTS:
        return _without_interval(values)
    if (values == values[0]).all():  # BCa is not defined, and no resample has another mean
        return Difference(mean=mean, low=mean, high=mean, count=len(values))
    if len(values) > _MOST_RESAMPLED:
        half = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2) * float(values.std(ddof=1)) / len(values) ** 0.5
        return Difference(mean=mean, low=mean - half, high=mean + half, count=len(values))
    from scipy import stats

    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        batch=max(1, _AT_ONCE // len(values)),
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Difference(mean=mean, low=float(found.low), high=float(found.high), count=len(values))


def _values(differences: Sequence[float]) -> FloatArray:
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        raise ValueError("the mean of no differences is not defined")
    return values


def _without_interval(values: FloatArray) -> Difference:
    return Difference(mean=float(values.mean()), low=None, high=None, count=len(values))

"""Whether a difference is real: paired differences of a measure, with intervals.

Two policies are compared on the same work, so what counts is the difference for each piece of it: for each
replicate (a seed, or a window of a trace), or for each request of a run. Decision 0023 says why the two have
different intervals. scipy takes long to import, so it is imported only for intervals over replicates.
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
    low, high = _bca_interval(values)
    return Difference(mean=mean, low=low, high=high, count=len(values))


def _bca_interval(values: FloatArray) -> tuple[float, float]:
    """The BCa interval of the mean of `values`, which are not all equal.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), equations 14.10, 14.14 and 14.15. The
    resamples and the interval are those of `scipy.stats.bootstrap`, whose import takes longer than a small
    simulated run (decision 0023).
    """
    count = len(values)
    draw = np.random.default_rng(0)
    at_once = max(1, _AT_ONCE // count)
    means = np.concatenate(
        [
            values[draw.integers(0, count, (min(at_once, _RESAMPLES - begun), count))].mean(axis=1)
            for begun in range(0, _RESAMPLES, at_once)
        ]
    )
    mean = values.mean()
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * _RESAMPLES)
    bias = _NORMAL.inv_cdf(below)
    # The mean without a value differs from the mean of all by a fixed multiple of that value's deviation.
    # It cancels in the acceleration.
    off = values - mean
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)

    def percentile(normal: float) -> float:
        return 100 * _NORMAL.cdf(bias + (bias + normal) / (1 - acceleration * (bias + normal)))

    half = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    low, high = np.percentile(means, (percentile(-half), percentile(half)))
    return float(low), float(high)


def _values(differences: Sequence[float]) -> FloatArray:
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        raise ValueError("the mean of no differences is not defined")
    return values


def _without_interval(values: FloatArray) -> Difference:
    return Difference(mean=float(values.mean()), low=None, high=None, count=len(values))

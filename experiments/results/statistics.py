"""Statistics of plain numbers. Without values they are `None`, never zero or NaN: "no request ended" is not
the same as "requests took no time"."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Numbers = Sequence[float] | FloatArray


def percentile(values: Numbers, q: float) -> float | None:
    """Return the q-th percentile (0..100) by linear interpolation between order statistics.

    Of n values in order, it is the one at rank `(n - 1) * q / 100`, interpolated (Hyndman and Fan, 1996,
    type 7; numpy's default). `None` without values.
    """
    if len(values) == 0:
        return None
    return float(np.percentile(np.asarray(values, dtype=np.float64), q, method="linear"))


def mean(values: Numbers) -> float | None:
    """Return the arithmetic mean, the same for any order of the values; `None` without values."""
    if len(values) == 0:
        return None
    return math.fsum(np.asarray(values, dtype=np.float64).tolist()) / len(values)

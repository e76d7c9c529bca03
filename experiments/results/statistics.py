"""Statistics of plain numbers. One that nothing contributes to is `None`, never zero and never NaN: "no
request ended" and "requests took no time" differ."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Numbers = Sequence[float] | FloatArray


def percentile(values: Numbers, q: float) -> float | None:
    """The q-th percentile (0..100) by linear interpolation between order statistics.

    With n values in order, rank `(n - 1) * q / 100` is taken and interpolated (Hyndman and Fan,
    1996, type 7; numpy's default). `None` without values.
    """
    if len(values) == 0:
        return None
    return float(np.percentile(np.asarray(values, dtype=np.float64), q, method="linear"))


def mean(values: Numbers) -> float | None:
    """The arithmetic mean, or `None` without values."""
    if len(values) == 0:
        return None
    return float(np.mean(np.asarray(values, dtype=np.float64)))

"""Differences as text."""

import enum
from typing import Final

from experiments.results.paired import Difference
from experiments.results.readable_numbers import duration

NOT_SHOWN: Final = "no difference shown"
_UNITS: Final = ((1.0, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns"))


class Unit(enum.Enum):
    """What a difference is measured in: percentage points of a share, or seconds."""

    POINTS = "points"
    SECONDS = "seconds"


def difference_words(difference: Difference, unit: Unit) -> tuple[str, str]:
    """Return the difference, "+9.2 points", "-12.1 ms" or "no difference shown", and its interval,
    "[+4.1, +14.3]" or "[-20.3, -3.9] ms". Without an interval, that is empty."""
    mean = _signed(difference.mean, unit) + (" points" if unit is Unit.POINTS else "")
    if difference.low is None or difference.high is None:
        return mean, ""
    interval = _interval(difference.low, difference.high, unit)
    return (mean if difference.shown else NOT_SHOWN), interval


def _interval(low: float, high: float, unit: Unit) -> str:
    if unit is Unit.POINTS:
        return f"[{_signed(low, unit)}, {_signed(high, unit)}]"
    largest = max(abs(low), abs(high))
    if largest == 0.0:
        return "[0, 0]"
    factor, name = next(one for one in _UNITS if largest * one[0] >= 1.0 or one is _UNITS[-1])
    decimals = 2 if largest * factor < 10 else 1
    return f"[{low * factor:+.{decimals}f}, {high * factor:+.{decimals}f}] {name}"


def _signed(value: float, unit: Unit) -> str:
    if unit is Unit.POINTS:
        return f"{100 * value:+.1f}"
    return duration(value) if value < 0 else f"+{duration(value)}"

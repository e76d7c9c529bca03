"""The search for the highest rate at which an SLO attainment holds. Pure: attainments in, rates to try out.

The rates of a grid come first. The capacity lies between the lowest one at which the mean attainment over
replicates does not hold and the one below it. That bracket is halved until it is narrow enough.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

_STEP: Final = math.sqrt(2)
"""How far apart the rates of a grid are, at most."""


class Outcome(enum.StrEnum):
    """Whether a capacity lies inside the grid: it does, the attainment never held, or it always held."""

    FOUND = "found"
    NEVER = "never"
    ALWAYS = "always"


class Bracket(msgspec.Struct, frozen=True, kw_only=True):
    """Where a capacity is, in requests/s.

    The attainment held at `holds` and at all lower rates that were tried, and did not at `fails`, the next
    higher one. `holds` is None if it never held, `fails` if it always did. `again` is the highest rate above
    `fails` at which it held again, None if there is none: then attainment does not fall with the rate.
    """

    holds: float | None
    fails: float | None
    again: float | None = None

    @property
    def outcome(self) -> Outcome:
        if self.holds is None:
            return Outcome.NEVER
        return Outcome.ALWAYS if self.fails is None else Outcome.FOUND

    def next_rate(self, within: float) -> float | None:
        """Return the rate to try next; None if `fails` is at most a share `within` above `holds`."""
        if self.holds is None or self.fails is None or self.fails <= (1 + within) * self.holds:
            return None
        middle = rounded(math.sqrt(self.holds * self.fails))
        return middle if self.holds < middle < self.fails else None


def rounded(rate: float) -> float:
    """Round to four digits, so that a rate is easy to type."""
    return float(f"{rate:.4g}")


def grid(low: float, high: float) -> list[float]:
    """Return rates from `low` to `high`, each by the same factor above the last, at most the root of 2.

    Raises `ValueError` unless `high` is above `low`, and both are positive.
    """
    if not 0 < low < high:
        raise ValueError(f"a grid needs 0 < low < high, not {low:g} and {high:g}")
    steps = max(1, math.ceil(math.log(high / low) / math.log(_STEP) - 1e-9))
    return [rounded(low * (high / low) ** (i / steps)) for i in range(steps + 1)]


def bracket(attained: Mapping[float, float], attain: float) -> Bracket:
    """Return where the capacity is, by the attainments at the rates that were tried."""
    rates: Sequence[float] = sorted(attained)
    held = [attained[rate] >= attain for rate in rates]
    first = held.index(False) if False in held else len(rates)
    later = [rate for rate, holds in zip(rates[first:], held[first:], strict=True) if holds]
    return Bracket(
        holds=rates[first - 1] if first else None,
        fails=rates[first] if first < len(rates) else None,
        again=max(later, default=None),
    )

"""How far a sweep is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """How far a sweep is: of `total` cells, how many are over, and how many of those have failed now.

    `left_s` estimates the time that is left; it is None before the first cell is over.
    """

    over: int
    failed: int
    total: int
    wall_s: float
    left_s: float | None


SweepListener = Callable[[SweepProgress], None]
"""Told how far the sweep is; from another thread."""

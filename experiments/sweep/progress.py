"""The progress of a sweep."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """How far a sweep is: `over` of `total` cells have ended, those of earlier runs included.

    `failed` counts the failures of this run. `wall_s` is the wall time so far, `left_s` an estimate of the
    wall time left: None until a cell of this run has ended.
    """

    over: int
    failed: int
    total: int
    wall_s: float
    left_s: float | None


SweepListener = Callable[[SweepProgress], None]
"""Called with the progress of a sweep, from another thread."""

"""The queue of policies that do not know sizes: the more has been sent, the lower the level."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field

from controller.flow import RMLQ_LEVELS, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlfq:
    """A multi-level feedback queue with thresholds `first_bytes * factor ** i`, in model bytes.

    A flow or coflow that has sent the i-th threshold or more is below the i-th level. Raises `ValueError`
    for values out of range.
    """

    levels: int
    first_bytes: int
    factor: float
    thresholds: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= len(RMLQ_LEVELS):
            raise ValueError(f"levels must be 2 to {len(RMLQ_LEVELS)}, not {self.levels}")
        if self.first_bytes < 1:
            raise ValueError(f"first_bytes must be at least 1, not {self.first_bytes}")
        if not 1 < self.factor < math.inf:
            raise ValueError(f"factor must be above 1 and finite, not {self.factor}")
        steps = tuple(self.first_bytes * self.factor**i for i in range(self.levels - 1))
        object.__setattr__(self, "thresholds", steps)

    def level(self, sent_bytes: int) -> Level:
        return RMLQ_LEVELS[bisect_right(self.thresholds, sent_bytes)]

    def missing_bytes(self, sent_bytes: int) -> float:
        """What is left to send before the level is lower; infinite on the lowest."""
        passed = bisect_right(self.thresholds, sent_bytes)
        return self.thresholds[passed] - sent_bytes if passed < len(self.thresholds) else math.inf

    def words(self, sent_bytes: int) -> str:
        """The bytes sent and the threshold that decided, for a reason."""
        passed = bisect_right(self.thresholds, sent_bytes)
        limit = f">= {_mb(self.thresholds[passed - 1])}" if passed else f"< {_mb(self.thresholds[0])}"
        return f"sent {_mb(sent_bytes)}, {limit}"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3g} MB" if size_bytes < 1e9 else f"{size_bytes / 1e6:.0f} MB"

"""The Reverse Multi-Level Queue: which urgency is which level, and which changes are allowed.

Levels P1 .. PK, highest first. P1 is reserved for S3 flows that cannot wait; S1 and S2 start at P2
and S3 flows climb up between them (MFS v1; our choices: docs/policies/mfs.md).
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import neg

from controller.flow import RMLQ_LEVELS, Level
from controller.urgency import thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rmlq:
    """A queue of `levels` levels with MLU thresholds `mlu_top * mlu_base ** -i`.

    With `s3_skips_p2` the level below the reserved one is left to S1 and S2. Without `monotonic`
    a flow may also fall. Raises `ValueError` for values no queue can have.
    """

    levels: int = 6
    mlu_top: float = 0.5
    mlu_base: float = 4.0
    monotonic: bool = True
    s3_skips_p2: bool = False
    mlu_thresholds: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= len(RMLQ_LEVELS):
            raise ValueError(f"levels must be 2 to {len(RMLQ_LEVELS)}, not {self.levels}")
        if not self.mlu_top > 0:
            raise ValueError(f"mlu_top must be above 0, not {self.mlu_top}")
        if not self.mlu_base > 1:
            raise ValueError(f"mlu_base must be above 1, not {self.mlu_base}")
        steps = thresholds(self.mlu_top, self.mlu_base, self.levels - 1)
        object.__setattr__(self, "mlu_thresholds", steps)

    @property
    def reserved(self) -> Level:
        return RMLQ_LEVELS[0]

    @property
    def lowest(self) -> Level:
        return RMLQ_LEVELS[self.levels - 1]

    def for_mlu(self, mlu: float) -> Level:
        """P1 from `Q_0` on, the i-th level below it from `Q_i` on, the lowest under all of them."""
        below = bisect_left(self.mlu_thresholds, -mlu, key=neg)  # first Q_i <= mlu
        if below > 0 and self.s3_skips_p2:
            below += 1
        return RMLQ_LEVELS[min(below, self.levels - 1)]

    def for_rli(self, rli: int) -> Level:
        """P2 for what holds up compute now, one level lower per layer ahead, down to the lowest."""
        return RMLQ_LEVELS[min(1 + rli, self.levels - 1)]

    def lower(self, level: Level) -> Level:
        """The level below `level`; the lowest has none and stays."""
        return min(Level(level + 1), self.lowest)

    def moves(self, current: Level, proposed: Level) -> bool:
        """Whether a flow on `current` goes to `proposed`: promotions always, falls only if allowed."""
        return proposed < current or (proposed > current and not self.monotonic)

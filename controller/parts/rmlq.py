"""The Reverse Multi-Level Queue: which urgency gets which level, and which moves are allowed.

Levels are P1 to PK, highest first. P1 is reserved for S3 flows that cannot wait. S2 is on P2, S1 one level
lower per layer ahead, and all other S3 is below both (MFS v1; our choices: docs/policies/mfs.md).
"""

import enum
from dataclasses import dataclass, field

from controller.flow import RMLQ_LEVELS, Level
from controller.urgency import thresholds


class S3Levels(enum.Enum):
    """How many levels S3 has to itself below S1 and S2, if the queue is to decide."""

    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rmlq:
    """A queue of `levels` levels with the MLU thresholds `Q_i = mlu_top * mlu_base ** -i`.

    The lowest `s3_levels` levels are for S3 that is not on P1; S1 and S2 have the levels between. `AUTO` is
    half of the levels below P1, rounded down. With 0, S3 climbs through the levels of S1 and S2. Without
    `monotonic`, flows may be demoted too. Raises `ValueError` for values out of range.
    """

    levels: int = 6
    mlu_top: float = 0.5
    mlu_base: float = 4.0
    monotonic: bool = True
    s3_levels: int | S3Levels = S3Levels.AUTO
    mlu_thresholds: tuple[float, ...] = field(init=False)
    reserved: Level = field(init=False, default=RMLQ_LEVELS[0])
    lowest_early: Level = field(init=False)
    lowest: Level = field(init=False)
    _s3: tuple[Level, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= len(RMLQ_LEVELS):
            raise ValueError(f"levels must be 2 to {len(RMLQ_LEVELS)}, not {self.levels}")
        if not self.mlu_top > 0:
            raise ValueError(f"mlu_top must be above 0, not {self.mlu_top}")
        if not self.mlu_base > 1:
            raise ValueError(f"mlu_base must be above 1, not {self.mlu_base}")
        most = self.levels - 2  # P1 is reserved, and S1 and S2 need a level
        own = (self.levels - 1) // 2 if isinstance(self.s3_levels, S3Levels) else self.s3_levels
        if not 0 <= own <= most:
            raise ValueError(f"s3_levels must be 0 to {most} with {self.levels} levels, not {own}")
        below = RMLQ_LEVELS[self.levels - own : self.levels] or RMLQ_LEVELS[1 : self.levels]
        object.__setattr__(self, "_s3", (self.reserved, *below))
        object.__setattr__(self, "mlu_thresholds", thresholds(self.mlu_top, self.mlu_base, len(below)))
        object.__setattr__(self, "lowest_early", RMLQ_LEVELS[self.levels - own - 1])
        object.__setattr__(self, "lowest", RMLQ_LEVELS[self.levels - 1])

    def for_mlu(self, mlu: float) -> Level:
        """P1 from `Q_0` on, the i-th level of S3 below it from `Q_i` on, the lowest below all thresholds."""
        for level, threshold in zip(self._s3, self.mlu_thresholds, strict=False):
            if mlu >= threshold:
                return level
        return self.lowest

    def for_rli(self, rli: int) -> Level:
        """P2 for flows that hold up compute now, one level lower per layer ahead, down to `lowest_early`."""
        return min(RMLQ_LEVELS[min(1 + rli, self.levels - 1)], self.lowest_early)

    def below_early(self, level: Level) -> Level:
        """The level below `level` for S1, or `lowest_early` if there is none."""
        return min(RMLQ_LEVELS[min(level, self.levels - 1)], self.lowest_early)  # P1 has the index 0

    def moves(self, current: Level, proposed: Level) -> bool:
        """Whether a flow moves from `current` to `proposed`: always up, down only without `monotonic`."""
        return proposed < current or (proposed > current and not self.monotonic)

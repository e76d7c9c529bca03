"""The Reverse Multi-Level Queue: which urgency gets which level, and which moves are allowed.

Levels are P1 to PK, highest first. P1 is reserved for S3 flows that cannot wait. S2 is at P2, S1 one level
lower per layer ahead, and S3 climbs among them (MFS v1; our choices: docs/policies/mfs.md).
"""

from dataclasses import dataclass, field

from controller.flow import RMLQ_LEVELS, Level
from controller.urgency import thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rmlq:
    """A queue of `levels` levels with the MLU thresholds `Q_i = mlu_top * mlu_base ** -i`.

    With `s3_skips_p2`, P2 is left to S1 and S2. Without `monotonic`, flows may be demoted too. Raises
    `ValueError` for values out of range.
    """

    levels: int = 6
    mlu_top: float = 0.5
    mlu_base: float = 4.0
    monotonic: bool = True
    s3_skips_p2: bool = False
    mlu_thresholds: tuple[float, ...] = field(init=False)
    reserved: Level = field(init=False, default=RMLQ_LEVELS[0])
    lowest: Level = field(init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= len(RMLQ_LEVELS):
            raise ValueError(f"levels must be 2 to {len(RMLQ_LEVELS)}, not {self.levels}")
        if not self.mlu_top > 0:
            raise ValueError(f"mlu_top must be above 0, not {self.mlu_top}")
        if not self.mlu_base > 1:
            raise ValueError(f"mlu_base must be above 1, not {self.mlu_base}")
        steps = thresholds(self.mlu_top, self.mlu_base, self.levels - 1)
        object.__setattr__(self, "mlu_thresholds", steps)
        object.__setattr__(self, "lowest", RMLQ_LEVELS[self.levels - 1])

    def for_mlu(self, mlu: float) -> Level:
        """P1 from `Q_0` on, the i-th level below P1 from `Q_i` on, the lowest below all thresholds.

        With `s3_skips_p2`, every level but P1 is one lower, down to the lowest.
        """
        for level, threshold in zip(RMLQ_LEVELS, self.mlu_thresholds, strict=False):
            if mlu >= threshold:
                return self.lower(level) if self.s3_skips_p2 and level > self.reserved else level
        return self.lowest

    def for_rli(self, rli: int) -> Level:
        """P2 for flows that hold up compute now, one level lower per layer ahead, down to the lowest."""
        return RMLQ_LEVELS[min(1 + rli, self.levels - 1)]

    def lower(self, level: Level) -> Level:
        """The level below `level`, or the lowest if there is none."""
        return RMLQ_LEVELS[min(level, self.levels - 1)]  # P1 has the index 0

    def moves(self, current: Level, proposed: Level) -> bool:
        """Whether a flow moves from `current` to `proposed`: always up, down only without `monotonic`."""
        return proposed < current or (proposed > current and not self.monotonic)

"""A fixed level for each stage, as the options say, in strict priority or by weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from controller.flow import RMLQ_LEVELS, Level, Stage
from controller.policies.registry import register
from controller.policy import Policy, Verdict, unfit_weights
from controller.view import ActiveBatch, ActiveFlow, View

STRICT = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """Raises `ValueError` for values out of range."""

    s1: Annotated[int, "level of S1: 1 for P1; equal numbers share a level", Meta(ge=1, le=6)] = 3
    s2: Annotated[int, "level of S2", Meta(ge=1, le=6)] = 2
    s3: Annotated[int, "level of S3", Meta(ge=1, le=6)] = 4
    background: Annotated[int, "level of background transfers; 7 for SCAVENGER", Meta(ge=1, le=7)] = 7
    weights: Annotated[
        str,
        "strict, or the weights of the levels in use, P1 first, as in 99:1; largest at most 1000 x smallest",
    ] = "strict"

    def __post_init__(self) -> None:
        for name in ("s1", "s2", "s3"):
            level = getattr(self, name)
            if not 1 <= level <= len(RMLQ_LEVELS):
                raise ValueError(f"{name} must be 1 to {len(RMLQ_LEVELS)}, not {level}")
        if not 1 <= self.background <= Level.SCAVENGER:
            raise ValueError(f"background must be 1 to {int(Level.SCAVENGER)}, not {self.background}")
        _ = self.level_weights

    @property
    def level_weights(self) -> Mapping[Level, float] | None:
        """The weight of each level in use; None: strict. Raises `ValueError` if they do not fit."""
        if self.weights == STRICT:
            return None
        in_use = {Level(self.s1), Level(self.s2), Level(self.s3), Level(self.background)}
        levels = sorted(in_use - {Level.SCAVENGER})
        try:
            weights = [float(number) for number in self.weights.split(":")]
        except ValueError:
            weights = []
        if not weights:
            raise ValueError(f"weights must be {STRICT}, or numbers as in 99:1, not {self.weights}")
        if len(weights) != len(levels):
            names = ", ".join(level.name for level in levels)
            raise ValueError(f"weights must be one for each level in use ({names}), not {self.weights}")
        problem = unfit_weights(weights)
        if problem is not None:
            raise ValueError(f"weights={self.weights}: {problem}")
        return dict(zip(levels, weights, strict=True))


@register
class Static(Policy):
    name = "static"
    summary = "each stage on the level that an option gives it, in strict priority or by weights"
    Options: ClassVar[type] = StaticOptions
    reads_ports = False
    reads_progress = False

    def __init__(self, options: StaticOptions) -> None:
        super().__init__(options)
        self.level_weights = options.level_weights
        numbers = {
            Stage.KV_REUSE: options.s1,
            Stage.COLLECTIVE: options.s2,
            Stage.P2D: options.s3,
            Stage.BACKGROUND: options.background,
        }
        self._verdicts = {
            stage: Verdict(
                Level(number), f"{stage.value} is on {Level(number).name}{self._weighing(Level(number))}"
            )
            for stage, number in numbers.items()
        }

    def _weighing(self, level: Level) -> str:
        """The weight of `level`, in words."""
        weights = self.level_weights or {}
        return f", of weight {weights[level]:g}" if level in weights else ""

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict:
        return self._verdicts[stage]

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return self._verdicts[flow.flow.stage]

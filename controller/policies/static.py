"""Static priority by stage, in the order that its options say. Nothing else about a flow counts."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from controller.flow import RMLQ_LEVELS, Level, Stage
from controller.policies.registry import register
from controller.policy import Policy, Verdict
from controller.view import ActiveBatch, ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """Raises `ValueError` for values out of range."""

    s1: Annotated[int, "level of S1: 1 for P1; equal numbers share a level", Meta(ge=1, le=6)] = 3
    s2: Annotated[int, "level of S2", Meta(ge=1, le=6)] = 2
    s3: Annotated[int, "level of S3", Meta(ge=1, le=6)] = 4

    def __post_init__(self) -> None:
        for name in ("s1", "s2", "s3"):
            level = getattr(self, name)
            if not 1 <= level <= len(RMLQ_LEVELS):
                raise ValueError(f"{name} must be 1 to {len(RMLQ_LEVELS)}, not {level}")


@register
class Static(Policy):
    name = "static"
    summary = "each stage on the level that an option gives it; equal numbers share"
    Options: ClassVar[type] = StaticOptions
    reads_ports = False
    reads_progress = False

    def __init__(self, options: StaticOptions) -> None:
        super().__init__(options)
        numbers = {Stage.KV_REUSE: options.s1, Stage.COLLECTIVE: options.s2, Stage.P2D: options.s3}
        self._verdicts = {
            stage: Verdict(Level(number), f"{stage.value} is on P{number}")
            for stage, number in numbers.items()
        }

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict:
        return self._verdicts[stage]

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return self._verdicts[flow.flow.stage]

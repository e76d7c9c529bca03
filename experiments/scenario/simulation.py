"""The section of a scenario that only the simulated fabric has."""

import enum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from experiments.scenario.known_names import known_path_choice
from experiments.scenario.section import Section, refusal


class SimulatedOrder(enum.Enum):
    LEVELS = "levels"
    EXACT = "exact"


class SimulatedCollectives(enum.Enum):
    EXACT = "exact"
    GROUPED = "grouped"


_HASH = "hash"
"""The path choice of switches, and of the emulated fabric."""

_NONE = "null: as in simulation.calibration, else none"


def _wall_us(what: str) -> Any:
    return Field(default=None, ge=0, le=1e9, description=f"{what}, wall µs; {_NONE}")


class OverheadsSection(Section):
    goodput: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of a link's rate that payload gets; null: as in simulation.calibration, else 1",
    )
    burst_bytes: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"wire bytes that a port that was idle lets pass at once; {_NONE}",
    )
    permit_us: float | None = _wall_us("from submit to start where a level has to change")
    permit_kept_us: float | None = _wall_us("from submit to start where the lane is on the level already")
    transfer_us: float | None = _wall_us("what an S1 or S3 transfer takes besides its bytes")
    collective_us: float | None = _wall_us("what a collective takes besides its bytes")
    round_us: float | None = _wall_us("what each further round of a collective takes besides its bytes")
    all_to_all_goodput: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of its even part of a port that a connection of an all-to-all can use; "
        "null: as in simulation.calibration, else 1",
    )
    compute_us: float | None = _wall_us("how much longer a step of compute takes than planned")
    batch_us: float | None = _wall_us("from when a batch is formed to when its ranks begin")
    level_share: float | None = Field(
        default=None,
        ge=0,
        le=0.125,
        description=f"share of a port's rate that every level is guaranteed; {_NONE}",
    )


class SimulationSection(Section):
    order: SimulatedOrder = Field(
        default=SimulatedOrder.LEVELS,
        description="levels: six queues, as in a switch; exact: the order a policy would like",
    )
    lanes: bool | None = Field(
        default=None,
        description="whether flows wait for the lanes of workers; null: in levels yes, in exact order no",
    )
    progress_ms: float = Field(
        default=1.0, ge=1e-3, le=1e6, description="how often the scheduler hears how far flows are, model ms"
    )
    paths: Annotated[str, AfterValidator(known_path_choice)] = Field(
        default=_HASH, description="which of several equal-cost paths a flow takes"
    )
    collectives: SimulatedCollectives = Field(
        default=SimulatedCollectives.EXACT,
        description="exact: every message of every round; grouped: symmetric collectives as one stream",
    )
    separate: bool = Field(
        default=False,
        description="each of S1, S2 and S3 has all links to itself: what remains is without the contention "
        "between stages",
    )
    invariants: bool = Field(
        default=True, description="check the laws a run must keep while it runs (docs/concepts/invariants.md)"
    )
    calibration: str | None = Field(
        default=None,
        description="file that `mfs calibrate` wrote, relative to this file (from --set: to the working "
        "directory): simulate with what that machine adds; null: with ideal links",
    )
    overheads: OverheadsSection = Field(
        default=OverheadsSection(),
        description="what a machine adds, one by one, in wall time and bytes on the wire, at the scale "
        "the emulated fabric would have",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SimulationSection":
        if self.separate:
            if self.collectives is SimulatedCollectives.GROUPED:
                raise refusal("simulation.separate", "needs simulation.collectives: exact")
            if self.paths != _HASH:
                raise refusal("simulation.separate", "needs simulation.paths: hash")
        return self

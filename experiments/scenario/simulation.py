"""The section of a scenario for the simulated fabric."""

import enum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from experiments.scenario.known_names import known_path_choice
from experiments.scenario.section import Section, refusal


class SimulatedOrder(enum.Enum):
    LEVELS = "levels"
    EXACT = "exact"
    HYBRID = "hybrid"


class SimulatedCollectives(enum.Enum):
    EXACT = "exact"
    GROUPED = "grouped"


_HASH = "hash"
"""The path choice of real switches and of the emulated fabric."""

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
        description=f"wire bytes that an idle port lets pass at once; {_NONE}",
    )
    permit_us: float | None = _wall_us("time from submit to start if the lane has to change its level")
    permit_kept_us: float | None = _wall_us("time from submit to start if the lane already has the level")
    transfer_us: float | None = _wall_us("time of an S1 or S3 transfer in addition to sending its bytes")
    collective_us: float | None = _wall_us("time of a collective in addition to sending its bytes")
    round_us: float | None = _wall_us("time of each further round in addition to sending its bytes")
    all_to_all_goodput: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of its even part of a port's rate that a connection of an all-to-all can use; "
        "null: as in simulation.calibration, else 1",
    )
    compute_us: float | None = _wall_us("how much longer a step of compute takes than planned")
    batch_us: float | None = _wall_us("time from when a batch is formed to when its ranks begin")
    level_share: float | None = Field(
        default=None,
        ge=0,
        le=0.125,
        description=f"share of a port's rate that every level is guaranteed; {_NONE}",
    )


class SimulationSection(Section):
    order: SimulatedOrder = Field(
        default=SimulatedOrder.LEVELS,
        description="levels: six queues, as in a switch; exact: the exact order of the policy; hybrid: the "
        "exact order at servers, levels in switches",
    )
    lanes: bool | None = Field(
        default=None,
        description="whether flows wait for a free lane; null: true with order levels, else false",
    )
    progress_ms: float = Field(
        default=1.0,
        ge=1e-3,
        le=1e6,
        description="how often the scheduler gets the progress of flows, model ms",
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
        description="each of S1, S2 and S3 has all links to itself, so the stages do not contend",
    )
    invariants: bool = Field(
        default=True, description="check the invariants during the run (docs/concepts/invariants.md)"
    )
    calibration: str | None = Field(
        default=None,
        description="file that `mfs calibrate` wrote, relative to this file (from --set: to the working "
        "directory): simulate with the overheads in it; null: with ideal links",
    )
    overheads: OverheadsSection = Field(
        default=OverheadsSection(),
        description="overheads one by one, in wall time and bytes on the wire, at the scale that the "
        "emulated fabric would have",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SimulationSection":
        if self.separate:
            if self.collectives is SimulatedCollectives.GROUPED:
                raise refusal("simulation.separate", "needs simulation.collectives: exact")
            if self.paths != _HASH:
                raise refusal("simulation.separate", "needs simulation.paths: hash")
        return self

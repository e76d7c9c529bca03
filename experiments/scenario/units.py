"""The section of a scenario for prefill units and decode workers."""

import enum

from pydantic import Field

from experiments.scenario.section import Section
from testbed.placement import ExpertGroups, Layout


class SequenceExchange(enum.StrEnum):
    RING = "ring"
    ULYSSES = "ulysses"


class MoreUnits(Section):
    """Further prefill units, of another size. A key left out has its default, not that of `units`."""

    prefill_units: int = Field(default=1, ge=1, le=1024)
    ranks_per_unit: int = Field(ge=1, le=1024)
    tp: int | None = Field(default=None, ge=1, le=64)
    ep: int | None = Field(default=None, ge=1, le=1024)
    sp: int = Field(default=1, ge=1, le=64)
    pp: int = Field(default=1, ge=1, le=64)


class UnitsSection(Section):
    prefill_units: int = Field(default=2, ge=1, le=1024, description="prefill units")
    ranks_per_unit: int = Field(default=4, ge=1, le=1024, description="ranks (GPUs) of one prefill unit")
    decode_ranks: int = Field(default=2, ge=1, le=4096, description="ranks (GPUs) of all decode workers")
    decode_tp: int = Field(default=1, ge=1, le=64, description="tensor-parallel ranks of one decode worker")
    ranks_per_server: int | None = Field(
        default=None, ge=1, le=64, description="most ranks on one server; null: as few as fit them all"
    )
    tp: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="tensor-parallel ranks of a replica; null: depends on the model",
    )
    ep: int | None = Field(
        default=None, ge=1, le=1024, description="expert-parallel ranks of a unit; null: depends on the model"
    )
    expert_groups: ExpertGroups = Field(
        default=ExpertGroups.CONSECUTIVE,
        description="which ranks divide the experts: ranks in a row (consecutive), or those with the same "
        "heads, tp apart (strided)",
    )
    sp: int = Field(default=1, ge=1, le=64, description="parts of a sequence, each on its own ranks")
    pp: int = Field(
        default=1, ge=1, le=64, description="pipeline stages of a unit, each with a part of the layers"
    )
    sequence: SequenceExchange = Field(
        default=SequenceExchange.RING,
        description="how the parts of a sequence attend to each other: KV goes round a ring (ring), or each "
        "part gets all tokens of some heads (ulysses)",
    )
    expert_skew: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="exponent of Zipf's law for the popularity of a layer's experts; 0: all alike",
    )
    layout: Layout = Field(
        default=Layout.SPREAD,
        description="spread: consecutive ranks on different servers; packed: one server after the other",
    )
    more: tuple[MoreUnits, ...] = Field(
        default=(),
        max_length=16,
        description="further prefill units, of other sizes, each {prefill_units, ranks_per_unit, tp, ep, sp, "
        "pp}; a key left out has its default here, whatever it is above",
    )

    @property
    def most_stages(self) -> int:
        """The pipeline stages of the unit that has most of them."""
        return max(self.pp, *(more.pp for more in self.more)) if self.more else self.pp

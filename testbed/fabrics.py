"""The fabrics by name. Each is made by a function that imports it: a run needs only its own."""

import enum
from collections.abc import Callable

import msgspec

from testbed.fabric import Fabric, Requirement


def _mininet() -> Fabric:
    from testbed.emulation.fabric_mininet import MininetFabric

    return MininetFabric()


def _sim() -> Fabric:
    from testbed.simulation.fabric_sim import SimulatedFabric

    return SimulatedFabric()


class FabricName(enum.StrEnum):
    """What a scenario calls a fabric."""

    MININET = "mininet"
    SIM = "sim"


FABRICS: dict[str, Callable[[], Fabric]] = {FabricName.MININET: _mininet, FabricName.SIM: _sim}

AUTO = "auto"
"""What a scenario says to have the emulated fabric where it can run, and the simulated one elsewhere."""

_TOLD = 3
"""How many missing requirements are named; `mfs doctor` lists them all."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a fabric in `FABRICS`, and why it is not the emulated one where it is not."""

    name: str
    note: str | None = None


def choose() -> Chosen:
    """What `auto` stands for on this machine."""
    missing = missing_of(FABRICS[FabricName.MININET]())
    if not missing:
        return Chosen(name=FabricName.MININET)
    told = ", ".join(need.name for need in missing[:_TOLD])
    more = f" and {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
    return Chosen(
        name=FabricName.SIM,
        note=f"the emulated fabric cannot run here (missing: {told}{more}): simulated;"
        " `mfs doctor` says how to get it",
    )


def missing_of(fabric: Fabric) -> list[Requirement]:
    """What `fabric` needs and this machine lacks."""
    return [need for need in fabric.requirements() if need.needed and not need.ok]

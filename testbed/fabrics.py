"""The fabrics by name. A function imports and makes each, so that a run loads only its own."""

from collections.abc import Callable

import msgspec

from testbed.fabric import Fabric, FabricName, Requirement


def _mininet() -> Fabric:
    from testbed.emulation.fabric_mininet import MininetFabric

    return MininetFabric()


def _sim() -> Fabric:
    from testbed.simulation.fabric_sim import SimulatedFabric

    return SimulatedFabric()


def _cluster() -> Fabric:
    """Without an inventory it only says that it needs one: `mfs run` makes one with it."""
    from testbed.cluster.fabric_cluster import ClusterFabric

    return ClusterFabric()


FABRICS: dict[str, Callable[[], Fabric]] = {
    FabricName.MININET: _mininet,
    FabricName.SIM: _sim,
    FabricName.CLUSTER: _cluster,
}

AUTO = "auto"
"""The name that stands for the emulated fabric where it can run, and for the simulated one elsewhere."""

_TOLD = 3
"""How many missing requirements the note names; `mfs doctor` lists all of them."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a fabric in `FABRICS`. `note` says why, if it is not the emulated one."""

    name: str
    note: str | None = None


def choose() -> Chosen:
    """Return the fabric that `auto` stands for on this machine."""
    missing = missing_of(FABRICS[FabricName.MININET]())
    if not missing:
        return Chosen(name=FabricName.MININET)
    told = ", ".join(need.name for need in missing[:_TOLD])
    more = f" and {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
    return Chosen(
        name=FabricName.SIM,
        note=f"the emulated fabric cannot run here (missing: {told}{more}): simulating instead;"
        " `mfs doctor` says what to install or change",
    )


def chosen(name: str) -> Chosen:
    """Return the fabric `name`; for `auto`, the one that suits this machine."""
    return choose() if name == AUTO else Chosen(name=name)


def missing_of(fabric: Fabric) -> list[Requirement]:
    """Return what `fabric` needs and this machine lacks."""
    return [need for need in fabric.requirements() if need.needed and not need.ok]

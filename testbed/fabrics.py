"""The fabrics by name. Each is made by a function that imports it: a run needs only its own."""

from collections.abc import Callable

from testbed.fabric import Fabric


def _mininet() -> Fabric:
    from testbed.emulation.fabric_mininet import MininetFabric

    return MininetFabric()


def _sim() -> Fabric:
    from testbed.simulation.fabric_sim import SimulatedFabric

    return SimulatedFabric()


FABRICS: dict[str, Callable[[], Fabric]] = {"mininet": _mininet, "sim": _sim}

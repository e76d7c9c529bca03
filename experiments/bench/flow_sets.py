"""The flow sets of `mfs bench sim --against`: seeded random flows, one fixed path for each pair of hosts."""

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from controller.flow import PortId
from controller.units import NS_PER_S
from experiments.errors import UserError
from testbed.topology.graph import Topology
from testbed.topology.kinds import leaf_spine, star

NIC_BPS: Final = 100_000_000_000
PACKET_BYTES: Final = 1_500
"""Sizes are whole packets, so that a packet simulator sends exactly the same bytes."""


class SetFlow(msgspec.Struct, frozen=True, kw_only=True):
    """`size_bytes` from host `src` to host `dst` over the links of `path`, in order, from `start_ns` on."""

    src: str
    dst: str
    start_ns: int
    size_bytes: int
    path: tuple[PortId, ...]


class FlowSet(msgspec.Struct, frozen=True, kw_only=True):
    """Links of `bps` bits per second, and flows in order of their starts. A pair of hosts has one path."""

    bps: dict[PortId, int]
    flows: tuple[SetFlow, ...]

    @property
    def packet_hops(self) -> int:
        """How many packets all links have to send together."""
        return sum(-(-flow.size_bytes // PACKET_BYTES) * len(flow.path) for flow in self.flows)


class SetCase(msgspec.Struct, frozen=True, kw_only=True):
    """A flow set by its parameters.

    Starts are a Poisson process. A flow has 2^x packets, rounded, with x uniform over `exponents`. `load`
    is what the flows offer, as a share of what the NICs of all receivers can take. With `spines` the
    hosts are below `leaves` switches, else on one. With `receivers`, only the first hosts receive, that
    many, and every flow has a sender of its own.
    """

    name: str
    about: str
    flows: int
    load: float
    exponents: tuple[float, float]
    hosts: int = 64
    leaves: int = 0
    spines: int = 0
    receivers: int | None = None


_LARGE: Final = (5.0, 13.0)
"""48 kB to 12 MB: 4 us to 1 ms on an idle NIC."""

_SMALL: Final = (6.0, 10.0)
"""96 kB to 1.5 MB."""

SETS: Final = (
    SetCase(
        name="star-150",
        about="64 hosts on one switch, 20,000 flows, about 150 at once",
        flows=20_000,
        load=0.6,
        exponents=_LARGE,
    ),
    SetCase(
        name="star-1000",
        about="64 hosts on one switch, 20,000 flows, about 1,000 at once",
        flows=20_000,
        load=1.03,
        exponents=_LARGE,
    ),
    SetCase(
        name="leaf-spine",
        about="64 hosts, 8 leaves, 4 spines, 2:1 oversubscribed, 20,000 flows",
        flows=20_000,
        load=0.4,
        exponents=_LARGE,
        leaves=8,
        spines=4,
    ),
    SetCase(
        name="star-sparse",
        about="2,048 hosts on one switch, 20,000 flows: few of them share a link",
        flows=20_000,
        load=0.3,
        exponents=_LARGE,
        hosts=2_048,
    ),
    SetCase(
        name="incast-small",
        about="300 flows, each from a host of its own, into 8 hosts: only downlinks are shared",
        flows=300,
        load=0.7,
        exponents=_SMALL,
        hosts=308,
        receivers=8,
    ),
    SetCase(
        name="star-small",
        about="64 hosts on one switch, 300 flows: uplinks and downlinks are shared",
        flows=300,
        load=0.6,
        exponents=_SMALL,
    ),
)


def chosen_sets(names: Sequence[str]) -> list[SetCase]:
    """Return the sets of these names; without names, all. Raises `UserError` for an unknown name."""
    known = {case.name: case for case in SETS}
    for name in names:
        if name not in known:
            raise UserError(f"--case {name}: there is no such flow set (flow sets: {', '.join(known)})")
    return [known[name] for name in names] or list(known.values())


def draw(case: SetCase, seed: int) -> FlowSet:
    """Return the flows of `case`. Equal seeds give equal flows."""
    rng = random.Random(f"{case.name} {seed}")
    topology = _topology(case)
    names = topology.servers
    low, high = case.exponents
    packets = [round(2 ** rng.uniform(low, high)) for _ in range(case.flows)]
    mean_bytes = PACKET_BYTES * sum(packets) / case.flows
    receivers = case.receivers or case.hosts
    gap_ns = mean_bytes * 8 * NS_PER_S / (NIC_BPS * receivers * case.load)
    paths: dict[tuple[str, str], tuple[PortId, ...]] = {}
    flows: list[SetFlow] = []
    at_ns = 0.0
    for number, count in enumerate(packets):
        at_ns += rng.expovariate(1 / gap_ns)
        if case.receivers:
            src, dst = receivers + number, rng.randrange(receivers)
        else:
            src, dst = rng.sample(range(case.hosts), 2)
        pair = names[src], names[dst]
        if pair not in paths:
            paths[pair] = rng.choice(topology.paths(*pair))
        flows.append(
            SetFlow(
                src=pair[0],
                dst=pair[1],
                start_ns=int(at_ns),
                size_bytes=count * PACKET_BYTES,
                path=paths[pair],
            )
        )
    return FlowSet(bps={link.id: link.bps for link in topology.links}, flows=tuple(flows))


def _topology(case: SetCase) -> Topology:
    if not case.spines:
        return star(servers=case.hosts, nic_bps=NIC_BPS)
    return leaf_spine(
        leaves=case.leaves,
        spines=case.spines,
        hosts_per_leaf=case.hosts // case.leaves,
        nic_bps=NIC_BPS,
        oversubscription=2.0,
    )

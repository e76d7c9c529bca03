"""The faults of a scenario, on its cluster."""

from collections.abc import Hashable, Iterator

from controller.flow import PortId
from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.nearest import nearest
from experiments.scenario.faults import FaultKind, FaultSpec
from experiments.scenario.scenario import Scenario
from testbed.faults import (
    ControllerRestart,
    DecodeLoss,
    Fault,
    LinkFault,
    RankPause,
    Straggler,
    SwitchRestart,
    UnitLoss,
    meets,
)
from testbed.job import Placement, Role
from testbed.topology import Topology


def resolve_faults(scenario: Scenario, topology: Topology, placement: Placement) -> tuple[Fault, ...]:
    """Return the faults of `scenario`. Raises `UserError`, naming the key, for a link or a rank that there is
    not, and for two faults of one thing at the same time."""
    found: list[Fault] = []
    for i, spec in enumerate(scenario.faults):
        try:
            fault = _fault(spec, topology, placement)
            _check_alone(fault, found)
        except ValueError as error:
            raise UserError(f"scenario {scenario.name}: faults[{i}]: {error}") from None
        found.append(fault)
    return tuple(found)


def _fault(spec: FaultSpec, topology: Topology, placement: Placement) -> Fault:
    from_ns = round(spec.from_s * NS_PER_S)
    to_ns = None if spec.to_s is None else round(spec.to_s * NS_PER_S)
    match spec.kind:
        case FaultKind.LINK_DOWN | FaultKind.LINK_RATE:
            assert spec.link is not None
            ports = _ports(spec.link, topology, one_way=spec.kind is FaultKind.LINK_RATE)
            return LinkFault(
                link=spec.link, ports=ports, share=spec.share or 0.0, from_ns=from_ns, to_ns=to_ns
            )
        case FaultKind.STRAGGLER:
            assert spec.rank is not None
            assert spec.factor is not None
            return Straggler(
                rank=_computing(spec.rank, placement), factor=spec.factor, from_ns=from_ns, to_ns=to_ns
            )
        case FaultKind.PAUSE:
            assert spec.rank is not None
            assert to_ns is not None
            return RankPause(rank=_computing(spec.rank, placement), from_ns=from_ns, to_ns=to_ns)
        case FaultKind.UNIT_LOST:
            assert spec.unit is not None
            if spec.unit not in placement.units:
                names = ", ".join(placement.units) or "none in a workload of flows"
                raise ValueError(f"unit: there is no unit {spec.unit!r} (units: {names})")
            return UnitLoss(unit=spec.unit, from_ns=from_ns, to_ns=to_ns)
        case FaultKind.DECODE_LOST:
            assert spec.worker is not None
            workers = len(placement.decode_workers)
            if spec.worker >= workers:
                raise ValueError(f"worker: there is no decode worker {spec.worker}, only 0 to {workers - 1}")
            return DecodeLoss(worker=spec.worker, from_ns=from_ns, to_ns=to_ns)
        case FaultKind.SWITCH_RESTART:
            assert spec.switch is not None
            ports = _ports_of_switch(spec.switch, topology)
            return SwitchRestart(
                switch=spec.switch, link=spec.switch, ports=ports, share=0.0, from_ns=from_ns, to_ns=to_ns
            )
        case FaultKind.CONTROLLER_RESTART:
            assert to_ns is not None
            return ControllerRestart(from_ns=from_ns, to_ns=to_ns)


def _ports(name: str, topology: Topology, *, one_way: bool) -> tuple[PortId, ...]:
    """The ports of a link: `h1->s1` is one of them, `h1-s1` and `s1-h1` are both."""
    ports = {link.id for link in topology.links}
    if name in ports:
        if not one_way:
            both = "-".join(name.split("->"))
            raise ValueError(f"link: {name!r} is one direction; a link goes down as a whole: {both!r}")
        return (name,)
    both_ways = {}
    for link in topology.links:
        both_ways[f"{link.src}-{link.dst}"] = (link.id, f"{link.dst}->{link.src}")
    if name not in both_ways:
        guess = nearest(name, [*both_ways, *(ports if one_way else ())])
        hint = f"did you mean {guess!r}?" if guess else f"links are called {_example(topology)}"
        raise ValueError(f"link: there is no link {name!r} in this network; {hint}")
    return tuple(port for port in both_ways[name] if port in ports)


def _ports_of_switch(name: str, topology: Topology) -> tuple[PortId, ...]:
    """The ports of all links of a switch, in both directions."""
    if name not in topology.switches:
        guess = nearest(name, topology.switches)
        hint = f"did you mean {guess!r}?" if guess else f"switches: {', '.join(topology.switches) or 'none'}"
        raise ValueError(f"switch: there is no switch {name!r} in this network; {hint}")
    return tuple(link.id for link in topology.links if name in (link.src, link.dst))


def _example(topology: Topology) -> str:
    link = topology.links[0]
    return f"{link.src}-{link.dst} for both directions, {link.id} for one"


def _computing(rank: int, placement: Placement) -> int:
    ranks = placement.ranks
    if rank >= len(ranks):
        raise ValueError(f"rank: there is no rank {rank}; they are 0 to {len(ranks) - 1}")
    if ranks[rank].role is Role.ENDPOINT:
        raise ValueError("rank: nothing is computed in a workload of flows")
    return rank


def _things(fault: Fault) -> Iterator[Hashable]:
    """What the fault is about: of two faults of one thing, only one can be in force at a time."""
    match fault:
        case LinkFault(ports=ports):
            yield from ports
        case Straggler(rank=rank) | RankPause(rank=rank):
            yield "rank", rank
        case UnitLoss(unit=unit):
            yield "unit", unit
        case DecodeLoss(worker=worker):
            yield "worker", worker
        case ControllerRestart():
            yield "controller"


def _check_alone(fault: Fault, others: list[Fault]) -> None:
    for i, other in enumerate(others):
        to_ns = fault.to_ns if fault.to_ns is not None else max(fault.from_ns, other.from_ns) + 1
        if meets(other, fault.from_ns, to_ns) and set(_things(fault)) & set(_things(other)):
            raise ValueError(f"{fault.words} at the same time as faults[{i}], {other.words}")

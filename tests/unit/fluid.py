"""A small exact fluid network to judge policies by: the oracle, slow and simple.

Strict priority between levels, max-min fair inside one, in fractions, so nothing is ever rounded
but what a scheduler is told (whole nanoseconds and bytes). Everything is recomputed at every event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from controller.flow import Assignment, Batch, Flow, Level, PortId
from controller.scheduler import Scheduler

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """`flow` is submitted at `at_ns`."""

    at_ns: int
    flow: Flow


@dataclass(frozen=True, slots=True)
class BatchStart:
    at_ns: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class LayerStart:
    at_ns: int
    batch: str
    layer: int


Happening = Arrival | BatchStart | LayerStart


@dataclass(slots=True)
class Outcome:
    """When each flow was done, exactly, and all that the scheduler said."""

    finish_ns: dict[str, Fraction] = field(default_factory=dict)
    assignments: list[Assignment] = field(default_factory=list)

    def finish_s(self, flow: str) -> Fraction:
        return self.finish_ns[flow] / NS_PER_S

    def levels(self, flow: str) -> list[Level]:
        return [said.level for said in self.assignments if said.flow == flow]


@dataclass(slots=True)
class _Active:
    flow: Flow
    left_bytes: Fraction
    level: Level
    rate: Fraction = Fraction(0)  # bytes per nanosecond


def max_min(weights: Sequence[Mapping[PortId, Fraction]], spare: dict[PortId, Fraction]) -> list[Fraction]:
    """Fair rates of flows that put `weights[i][port]` times their rate on a port.

    Progressive filling: all rates grow alike until a port is full; its flows keep what they have,
    the others grow on. `spare` (bytes per nanosecond) is reduced by what was taken.
    """
    rates = [Fraction(0)] * len(weights)
    growing = set(range(len(weights)))
    while growing:
        pull: dict[PortId, Fraction] = {}
        for i in growing:
            for port, weight in weights[i].items():
                pull[port] = pull.get(port, Fraction(0)) + weight
        step = min(spare[port] / total for port, total in pull.items())
        for port, total in pull.items():
            spare[port] -= step * total
        for i in growing:
            rates[i] += step
        growing -= {i for i in growing if any(spare[port] == 0 for port in weights[i])}
    return rates


class _Network:
    def __init__(self, bps: Mapping[PortId, int]) -> None:
        self._capacity = {port: Fraction(rate, 8 * NS_PER_S) for port, rate in bps.items()}
        self.flows: dict[str, _Active] = {}

    def share(self) -> None:
        spare = dict(self._capacity)
        for level in Level:
            peers = [active for active in self.flows.values() if active.level is level]
            weights = [
                {port: Fraction(load, peer.flow.size_bytes) for port, load in peer.flow.load.items()}
                for peer in peers
            ]
            for peer, rate in zip(peers, max_min(weights, spare), strict=True):
                peer.rate = rate

    def run_for(self, duration_ns: Fraction) -> None:
        for active in self.flows.values():
            active.left_bytes -= active.rate * duration_ns

    def next_finish_ns(self) -> Fraction | None:
        """From now, if nothing else happens."""
        return min(
            (active.left_bytes / active.rate for active in self.flows.values() if active.rate > 0),
            default=None,
        )


def run(scheduler: Scheduler, bps: Mapping[PortId, int], happenings: Iterable[Happening]) -> Outcome:
    """Play `happenings` (in the order given where times are equal) until every flow is done.

    Flows must have a size and cross a port. The scheduler hears the progress of every flow before
    each event, which is more than a real fabric tells it.
    """
    network, outcome = _Network(bps), Outcome()
    to_come = sorted(happenings, key=lambda happening: happening.at_ns)
    now = Fraction(0)

    def obey(assignments: list[Assignment]) -> None:
        outcome.assignments += assignments
        for said in assignments:
            network.flows[said.flow].level = said.level

    while to_come or network.flows:
        network.share()
        times = [Fraction(to_come[0].at_ns)] if to_come else []
        finish = network.next_finish_ns()
        tick = scheduler.next_tick_ns()
        times += [] if finish is None else [now + finish]
        times += [] if tick is None else [max(now, Fraction(tick))]
        assert times, "flows are active, but none moves and nothing is to come"
        network.run_for(min(times) - now)
        now = min(times)
        for name in [name for name, active in network.flows.items() if active.left_bytes == 0]:
            del network.flows[name]
            outcome.finish_ns[name] = now
            obey(scheduler.completion(floor(now), name))
        for active in list(network.flows.values()):
            obey(scheduler.progress(floor(now), active.flow.id, ceil(active.left_bytes)))
        while to_come and to_come[0].at_ns <= now:
            match to_come.pop(0):
                case Arrival(flow=flow):
                    network.flows[flow.id] = _Active(flow, Fraction(flow.size_bytes), Level.SCAVENGER)
                    obey(scheduler.submit(floor(now), flow))
                case BatchStart(batch=batch):
                    obey(scheduler.batch_started(floor(now), batch))
                case LayerStart(batch=batch_id, layer=layer):
                    obey(scheduler.layer_advanced(floor(now), batch_id, layer))
        obey(scheduler.tick(floor(now)))
    return outcome

"""A small exact fluid network to judge policies by: the oracle, slow and simple.

Priority is strict by (level, order), flows of equal priority share max-min fairly, and no flow is faster
than its `rate_bps`. Everything is recomputed at every event, in fractions, so only what the scheduler gets
is rounded, to whole nanoseconds and bytes. The caller chooses whether the scheduler uses orders and rates:
it does if it was made with `exact=True`.
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
    """The exact finish of each flow, and all assignments of the scheduler."""

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
    level: Level = Level.SCAVENGER
    order: float = 0.0
    rate_bps: int | None = None
    rate: Fraction = Fraction(0)  # bytes per nanosecond

    @property
    def rank(self) -> tuple[Level, float]:
        return self.level, self.order

    @property
    def weights(self) -> dict[PortId, Fraction]:
        """What one byte of the flow puts on each port. Its own pace is a port that no other flow has."""
        shares = {port: Fraction(load, self.flow.size_bytes) for port, load in self.flow.load.items()}
        return shares if self.rate_bps is None else shares | {self.pace: Fraction(1)}

    @property
    def pace(self) -> PortId:
        return f"pace of {self.flow.id}"


def max_min(weights: Sequence[Mapping[PortId, Fraction]], spare: dict[PortId, Fraction]) -> list[Fraction]:
    """Return the fair rates of flows that put `weights[i][port]` times their rate on a port.

    Progressive filling: all rates grow alike until a port is full. Then the flows on it keep their rates,
    and the others grow on. `spare` (bytes per nanosecond) is reduced by what the flows take.
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
        for active in self.flows.values():
            if active.rate_bps is not None:
                spare[active.pace] = Fraction(active.rate_bps, 8 * NS_PER_S)
        for rank in sorted({active.rank for active in self.flows.values()}):
            peers = [active for active in self.flows.values() if active.rank == rank]
            rates = max_min([peer.weights for peer in peers], spare)
            for peer, rate in zip(peers, rates, strict=True):
                peer.rate = rate

    def run_for(self, duration_ns: Fraction) -> None:
        for active in self.flows.values():
            active.left_bytes -= active.rate * duration_ns

    def next_finish_ns(self) -> Fraction | None:
        """Time from now to the next finish, if nothing else happens."""
        return min(
            (active.left_bytes / active.rate for active in self.flows.values() if active.rate > 0),
            default=None,
        )


def run(scheduler: Scheduler, bps: Mapping[PortId, int], happenings: Iterable[Happening]) -> Outcome:
    """Play `happenings` until every flow is done. If times are equal, the given order counts.

    Flows must have a size and cross a port. The scheduler gets the progress of every flow before each
    event, more often than from a real fabric.
    """
    network, outcome = _Network(bps), Outcome()
    to_come = sorted(happenings, key=lambda happening: happening.at_ns)
    now = Fraction(0)

    def obey(assignments: list[Assignment]) -> None:
        outcome.assignments += assignments
        for said in assignments:
            active = network.flows[said.flow]
            active.level, active.order, active.rate_bps = said.level, said.order, said.rate_bps

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
                    network.flows[flow.id] = _Active(flow, Fraction(flow.size_bytes))
                    obey(scheduler.submit(floor(now), flow))
                case BatchStart(batch=batch):
                    obey(scheduler.batch_started(floor(now), batch))
                case LayerStart(batch=batch_id, layer=layer):
                    obey(scheduler.layer_advanced(floor(now), batch_id, layer))
        obey(scheduler.tick(floor(now)))
    return outcome

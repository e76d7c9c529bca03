"""Which S3 can still be in time: Moore and Hodgson's rule for one machine, applied to all ports at once.

J. M. Moore, "An n job, one machine sequencing algorithm for minimizing the number of late jobs", Management
Science 15 (1968): take jobs by deadline; whenever one would be late, give up the longest of those taken. On
one machine this leaves the fewest jobs late. With several ports it is a heuristic, known for coflows as
CS-MHA (IEEE ICC 2016) and, in another form, as DCoflow (arXiv 2205.01229). What we add to it is in
docs/policies/triage.md.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.flow import PortId
from controller.ports import PortLoads
from controller.units import NS_PER_MS, NS_PER_S
from controller.view import ActiveBatch, ActiveFlow

_UNUSED = 0.01
"""S1 and S2 that take no more of a port than this hold nobody up there."""


@dataclass(slots=True, eq=False)
class Handoff:
    """The S3 of one request, or of a batch if its flows name no request.

    `load` is what its active flows put on each port, in bytes. `tail_ns` is what follows its last byte: the
    least `downstream_ns` of any of its flows so far. `batch` is the one that its latest flow came from.

    `sort_out` writes the rest: whether it is given up, and why, in words; the highest share of a port that
    it needs until it is due, with all that is due no later (`pressure`); and how long that takes on a port of
    S1 and S2, as a share of the time that it takes on its slowest port (`aside`, the highest share).
    """

    deadline_ns: int
    load: dict[PortId, int] = field(default_factory=dict)
    flows: dict[str, ActiveFlow] = field(default_factory=dict)
    tail_ns: int | None = None
    batch: ActiveBatch | None = None
    lost: bool = False
    pressure: float = 0.0
    aside: float = 0.0
    words: str = ""

    def add(self, flow: ActiveFlow) -> None:
        facts = flow.flow
        self.flows[facts.id] = flow
        self.batch = flow.batch
        self.tail_ns = facts.downstream_ns if self.tail_ns is None else min(self.tail_ns, facts.downstream_ns)
        for port, size in facts.load.items():
            if size:
                self.load[port] = self.load.get(port, 0) + size

    def remove(self, flow: ActiveFlow) -> None:
        del self.flows[flow.flow.id]
        for port, size in flow.flow.load.items():
            if size:
                self.load[port] -= size
                if not self.load[port]:
                    del self.load[port]

    @property
    def network_due_ns(self) -> int:
        """When its last byte must have arrived."""
        return self.deadline_ns - (self.tail_ns or 0)

    @property
    def compute_left_ns(self) -> int:
        """The compute of its batch from the next layer on, without any network; 0 if it has no batch."""
        batch = self.batch
        if batch is None or batch.compute_over:
            return 0
        layers = batch.batch.layers
        return batch.batch.compute_ns * (layers - batch.layer - 1) // layers


@dataclass(slots=True)
class _Port:
    """What a port has to send of the handoffs that were taken, in model bytes.

    It has `bps`, of which S1 and S2 leave `free_bps`; `early` says whether they use it at all.
    """

    bps: int
    free_bps: float
    early: bool
    taken: dict[Handoff, int] = field(default_factory=dict)
    bytes: int = 0

    @property
    def seconds(self) -> float:
        """The time that it takes with the port to itself."""
        return self.bytes * 8 / self.bps

    def ready_ns(self, now_ns: int) -> float:
        return now_ns + self.bytes * 8 * NS_PER_S / self.free_bps

    def take(self, handoff: Handoff, left: int) -> None:
        self.taken[handoff] = left
        self.bytes += left

    def give_up(self, handoff: Handoff) -> None:
        self.bytes -= self.taken.pop(handoff)


def sort_out(
    now_ns: int,
    handoffs: Iterable[Handoff],
    ports: PortLoads,
    *,
    rho: float | None = None,
    give_up: bool = True,
) -> None:
    """Decide which of `handoffs` are given up, and how pressing the others are.

    A handoff needs what `ports` say is left of it (`rho` of each port is for S1 and S2; None: as measured).
    It is given up if it could not be in time alone, or even if its batch had nothing but compute to do, or
    by the rule above. Without `give_up`, only what is past its deadline is given up.
    """
    ordered = sorted(handoffs, key=lambda handoff: handoff.deadline_ns)
    left_bytes = _left(ordered, ports)
    tallies: dict[PortId, _Port] = {}
    for handoff in ordered:
        left = left_bytes[handoff]
        for port in left:
            if port not in tallies:
                measured = ports.rho(port, now_ns)
                busy = measured if rho is None else rho
                bps = ports.bps(port)
                tallies[port] = _Port(bps, bps * (1 - busy), early=measured > _UNUSED)
        why = _cannot(now_ns, handoff, left, tallies, alone=give_up)
        if why:
            _lose(handoff, why)
            continue
        handoff.lost = False
        for port, size in left.items():
            tallies[port].take(handoff, size)
        if give_up:
            _until_in_time(now_ns, handoff, left_bytes, tallies)
        if not handoff.lost:
            _press(now_ns, handoff, left, tallies)


def _left(ordered: Iterable[Handoff], ports: PortLoads) -> dict[Handoff, Mapping[PortId, int]]:
    """What each handoff has left on each port. Those of one deadline divide what is due at that moment."""
    before: dict[PortId, int] = {}
    left: dict[Handoff, Mapping[PortId, int]] = {}
    for deadline_ns, group in itertools.groupby(ordered, key=lambda handoff: handoff.deadline_ns):
        tied = list(group)
        submitted: dict[PortId, int] = {}
        for handoff in tied:
            for port, size in handoff.load.items():
                submitted[port] = submitted.get(port, 0) + size
        due: dict[PortId, int] = {}
        for port in submitted:
            by_then = ports.due_bytes(port, deadline_ns)
            due[port] = by_then - before.get(port, 0)
            before[port] = by_then
        for handoff in tied:
            left[handoff] = {port: due[port] * size // submitted[port] for port, size in handoff.load.items()}
    return left


def _cannot(
    now_ns: int, handoff: Handoff, left: Mapping[PortId, int], tallies: Mapping[PortId, _Port], *, alone: bool
) -> str | None:
    """Why the handoff cannot be in time even if all others yield; None if it can."""
    spare_ns = handoff.network_due_ns - now_ns
    if handoff.deadline_ns <= now_ns:
        return f"its deadline passed {(now_ns - handoff.deadline_ns) / NS_PER_MS:.1f} ms ago"
    if not alone:
        return None
    if spare_ns <= 0:
        return f"{-spare_ns / NS_PER_MS:.1f} ms too late for what must follow it"
    if handoff.compute_left_ns > spare_ns:
        computes = handoff.compute_left_ns / NS_PER_MS
        return f"its batch computes {computes:.1f} ms more, {spare_ns / NS_PER_MS:.1f} ms are left"
    for port, size in left.items():
        takes_ns = size * 8 * NS_PER_S / tallies[port].free_bps
        if takes_ns > spare_ns:
            takes = f"{size / 1e6:.3g} MB take {takes_ns / NS_PER_MS:.1f} ms on {port}"
            return f"{takes}, {spare_ns / NS_PER_MS:.1f} ms are left"
    return None


def _until_in_time(
    now_ns: int,
    handoff: Handoff,
    left_bytes: Mapping[Handoff, Mapping[PortId, int]],
    tallies: Mapping[PortId, _Port],
) -> None:
    """While a port would be late for `handoff`, which was taken last, give up what has most to send there."""
    due_ns = handoff.network_due_ns
    for port in left_bytes[handoff]:
        tally = tallies[port]
        while not handoff.lost and tally.ready_ns(now_ns) > due_ns:
            late_ms = (tally.ready_ns(now_ns) - due_ns) / NS_PER_MS
            largest = max(tally.taken, key=tally.taken.__getitem__)
            for each in left_bytes[largest]:
                tallies[each].give_up(largest)
            _lose(largest, f"{port} would be {late_ms:.1f} ms late, and this has most to send there")


def _press(
    now_ns: int, handoff: Handoff, left: Mapping[PortId, int], tallies: Mapping[PortId, _Port]
) -> None:
    """How much of its worst port the handoff needs, with all that was taken before it, and `aside`."""
    handoff.pressure, handoff.aside, handoff.words = 0.0, 0.0, "no port to share"
    slowest_s = max((tallies[port].seconds for port in left), default=0.0)
    spare_ns = max(1, handoff.network_due_ns - now_ns)
    for port in left:
        tally = tallies[port]
        if tally.early and slowest_s:
            handoff.aside = max(handoff.aside, tally.seconds / slowest_s)
        pressure = (tally.ready_ns(now_ns) - now_ns) / spare_ns
        if pressure >= handoff.pressure:
            handoff.pressure = pressure
            handoff.words = (
                f"{pressure:.2g} of {port} until it is due ({tally.bytes / 1e6:.3g} MB due by then)"
            )


def _lose(handoff: Handoff, why: str) -> None:
    handoff.lost, handoff.pressure, handoff.words = True, 0.0, why

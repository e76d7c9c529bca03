"""Which S3 can still be in time: Moore and Hodgson's rule for one machine, applied to all ports at once.

J. M. Moore, "An n job, one machine sequencing algorithm for minimizing the number of late jobs", Management
Science 15 (1968): take jobs by deadline; whenever one would be late, give up the longest of those taken. On
one machine this leaves the fewest jobs late. With several ports it is a heuristic, known for coflows as
CS-MHA (IEEE ICC 2016) and, in another form, as DCoflow (arXiv 2205.01229). What we add to it is in
docs/policies/triage.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.flow import PortId
from controller.ports import PortLoads
from controller.units import NS_PER_MS, NS_PER_S
from controller.view import ActiveBatch, ActiveFlow

_BIT_NS = 8 * NS_PER_S
"""Of a byte on a port of 1 b/s."""
_UNUSED = 0.01
"""S1 and S2 that take no more of a port than this hold nobody up there."""


@dataclass(slots=True, eq=False)
class Handoff:
    """The S3 of one request, or of a batch if its flows name no request.

    `load` is what its active flows put on each port, in bytes. `tail_ns` is what follows its last byte: the
    least `downstream_ns` of any of its flows so far. `batch` is the one that its latest flow came from.

    `sort_out` writes the rest: whether it is given up (`lost`), and why, in words; the highest share of a
    port that it needs until it is due, with all that is due no later (`pressure`), which port that is and how
    much is due there by then; and how long that takes on a port of S1 and S2, as a share of the time that it
    takes on its slowest port (`aside`, the highest share).
    """

    deadline_ns: int
    load: dict[PortId, int] = field(default_factory=dict)
    flows: dict[str, ActiveFlow] = field(default_factory=dict)
    tail_ns: int | None = None
    batch: ActiveBatch | None = None
    lost: bool = False
    why: str = ""
    pressure: float = 0.0
    aside: float = 0.0
    worst_port: PortId | None = None
    worst_bytes: int = 0

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
    def words(self) -> str:
        """Why it is given up, or how pressing it is. Few are asked for of all that are sorted out."""
        if self.lost:
            return self.why
        if self.worst_port is None:
            return "no port to share"
        due_mb = self.worst_bytes / 1e6
        return f"{self.pressure:.2g} of {self.worst_port} until it is due ({due_mb:.3g} MB due by then)"

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

    port: PortId
    bps: int
    free_bps: float
    early: bool
    taken: dict[Handoff, int] = field(default_factory=dict)
    bytes: int = 0

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
        crossed: list[_Port] = []
        for port in left:
            tally = tallies.get(port)
            if tally is None:
                measured = ports.rho(port, now_ns)
                busy = measured if rho is None else rho
                bps = ports.bps(port)
                tally = tallies[port] = _Port(port, bps, bps * (1 - busy), early=measured > _UNUSED)
            crossed.append(tally)
        due_ns = handoff.network_due_ns
        why = _cannot(now_ns, due_ns, handoff, left, crossed, alone=give_up)
        if why:
            _lose(handoff, why)
            continue
        handoff.lost = False
        for tally, size in zip(crossed, left.values(), strict=True):
            tally.taken[handoff] = size
            tally.bytes += size
        late = _press(now_ns, due_ns, handoff, crossed)
        if late and give_up:
            _until_in_time(now_ns, due_ns, handoff, crossed, left_bytes, tallies)
            if not handoff.lost:
                _press(now_ns, due_ns, handoff, crossed)


def _left(ordered: Sequence[Handoff], ports: PortLoads) -> Mapping[Handoff, Mapping[PortId, int]]:
    """What each handoff has left on each port. Those of one deadline divide what is due at that moment."""
    before: dict[PortId, int] = {}
    left: dict[Handoff, dict[PortId, int]] = {}
    end = 0
    for begin, first in enumerate(ordered):
        if begin < end:
            continue
        deadline_ns = first.deadline_ns
        end = begin + 1
        while end < len(ordered) and ordered[end].deadline_ns == deadline_ns:
            end += 1
        if end == begin + 1:  # all that is due at that moment is its own
            own = left[first] = {}
            for port in first.load:
                by_then = ports.due_bytes(port, deadline_ns)
                own[port] = by_then - before.get(port, 0)
                before[port] = by_then
            continue
        tied = ordered[begin:end]
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
    now_ns: int,
    due_ns: int,
    handoff: Handoff,
    left: Mapping[PortId, int],
    crossed: Sequence[_Port],
    *,
    alone: bool,
) -> str | None:
    """Why the handoff cannot be in time even if all others yield; None if it can."""
    spare_ns = due_ns - now_ns
    if handoff.deadline_ns <= now_ns:
        return f"its deadline passed {(now_ns - handoff.deadline_ns) / NS_PER_MS:.1f} ms ago"
    if not alone:
        return None
    if spare_ns <= 0:
        return f"{-spare_ns / NS_PER_MS:.1f} ms too late for what must follow it"
    if handoff.compute_left_ns > spare_ns:
        computes = handoff.compute_left_ns / NS_PER_MS
        return f"its batch computes {computes:.1f} ms more, {spare_ns / NS_PER_MS:.1f} ms are left"
    for tally, size in zip(crossed, left.values(), strict=True):
        takes_ns = size * _BIT_NS / tally.free_bps
        if takes_ns > spare_ns:
            takes = f"{size / 1e6:.3g} MB take {takes_ns / NS_PER_MS:.1f} ms on {tally.port}"
            return f"{takes}, {spare_ns / NS_PER_MS:.1f} ms are left"
    return None


def _until_in_time(
    now_ns: int,
    due_ns: int,
    handoff: Handoff,
    crossed: Sequence[_Port],
    left_bytes: Mapping[Handoff, Mapping[PortId, int]],
    tallies: Mapping[PortId, _Port],
) -> None:
    """While a port would be late for `handoff`, which was taken last, give up what has most to send there."""
    for tally in crossed:
        while not handoff.lost:
            ready_ns = now_ns + tally.bytes * _BIT_NS / tally.free_bps
            if ready_ns <= due_ns:
                break
            late_ms = (ready_ns - due_ns) / NS_PER_MS
            largest = max(tally.taken, key=tally.taken.__getitem__)
            for each in left_bytes[largest]:
                tallies[each].give_up(largest)
            _lose(largest, f"{tally.port} would be {late_ms:.1f} ms late, and this has most to send there")


def _press(now_ns: int, due_ns: int, handoff: Handoff, crossed: Sequence[_Port]) -> bool:
    """How much of its worst port the handoff needs, with all that was taken before it, and `aside`.

    Returns whether any port would be late for it.
    """
    late = False
    worst, worst_port = 0.0, None
    slowest_s = early_s = 0.0
    spare_ns = max(1, due_ns - now_ns)
    for tally in crossed:
        seconds = tally.bytes * 8 / tally.bps  # with the port to itself
        if seconds > slowest_s:
            slowest_s = seconds
        if tally.early and seconds > early_s:
            early_s = seconds
        ready_ns = now_ns + tally.bytes * _BIT_NS / tally.free_bps
        late = late or ready_ns > due_ns
        pressure = (ready_ns - now_ns) / spare_ns
        if pressure >= worst:
            worst, worst_port = pressure, tally
    handoff.pressure = worst
    handoff.aside = early_s / slowest_s if slowest_s else 0.0
    if worst_port is None:
        handoff.worst_port = None
    else:
        handoff.worst_port, handoff.worst_bytes = worst_port.port, worst_port.bytes
    return late


def _lose(handoff: Handoff, why: str) -> None:
    handoff.lost, handoff.pressure, handoff.why = True, 0.0, why

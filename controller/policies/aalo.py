"""Aalo: coflows start high, and their flows sink together as they send bytes (D-CLAS).

The rule, and what differs from the original: docs/policies/aalo.md.
"""

import heapq
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from controller.flow import Flow, PortId
from controller.parts.coflows import Coflow, Coflows
from controller.parts.mlfq import Mlfq
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.units import NS_PER_MS, NS_PER_S
from controller.view import ActiveFlow, FlowGroup, View


@dataclass(frozen=True, slots=True, kw_only=True)
class AaloOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels of the queue", Meta(ge=2, le=6)] = 6
    first_bytes: Annotated[int, "a coflow leaves P1 once it has sent this, model bytes", Meta(ge=1)] = (
        10_000_000
    )
    factor: Annotated[float, "each threshold is this times the one before", Meta(gt=1)] = 10.0

    def __post_init__(self) -> None:
        self.mlfq()

    def mlfq(self) -> Mlfq:
        return Mlfq(levels=self.levels, first_bytes=self.first_bytes, factor=self.factor)


@dataclass(slots=True)
class _Watched:
    """A coflow whose flows report no progress: what it has submitted, and where its flows enter the network.

    Every byte of a flow crosses the first port of its path, and no other port that some flow begins with.
    `look_ns` is when to look at the coflow next.
    """

    look_ns: int
    submitted_bytes: int = 0
    first_ports: dict[PortId, None] = field(default_factory=dict)

    def take(self, flow: Flow) -> None:
        self.submitted_bytes += flow.size_bytes
        self.first_ports[next(iter(flow.load))] = None

    def sent_bytes(self, coflow: Coflow, view: View) -> int:
        left_bytes = view.left_on_ports(coflow)
        return self.submitted_bytes - sum(left_bytes.get(port, 0) for port in self.first_ports)

    def least_ns(self, size_bytes: float, view: View) -> int:
        """The time that these bytes take if all ports that flows begin with send at full rate."""
        bps = sum(view.ports.bps(port) for port in self.first_ports)
        return math.ceil(size_bytes * 8 * NS_PER_S / bps)


@register
class Aalo(Policy):
    name = "aalo"
    summary = "coflows start high and sink as their flows send bytes (D-CLAS)"
    Options = AaloOptions
    by_group = True

    # Where nobody reports progress, coflows are looked at instead. A trace may have a hundred thousand flows
    # at a time, so a coflow is looked at only once it can have sent enough to sink, and no look follows
    # another within a millisecond. `recheck_ns` is the time until the next look.
    recheck_ns = NS_PER_MS

    def __init__(self, options: AaloOptions) -> None:
        super().__init__(options)
        self._queue = options.mlfq()
        self._coflows = Coflows()
        self._watched: dict[Coflow, _Watched] = {}
        self._looks: list[tuple[int, int, Coflow]] = []  # a heap: when, a number that breaks ties, what
        self._count = itertools.count()

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        coflow = self._coflows.join(now_ns, flow)
        if view.left_is_current:
            watched = self._watched.get(coflow)
            if watched is None or watched.look_ns > now_ns + NS_PER_MS:
                # When all that comes now has come. With more ports it may sink earlier.
                watched = self._look_after(NS_PER_MS, now_ns, coflow)
            watched.take(flow.flow)
            self._wait(now_ns)
        return self._verdict(coflow)

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        coflow = self._coflows.of(flow)
        before_bytes = coflow.sent_bytes
        coflow.count(flow)
        return self._sunk(coflow, before_bytes)

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        if view.left_is_current:
            coflow = self._coflows.leave(flow, counted=True)
            if not coflow.flows:
                del self._watched[coflow]
            self._wait(now_ns)
            return UNCHANGED
        before_bytes = self._coflows.of(flow).sent_bytes
        return self._sunk(self._coflows.leave(flow), before_bytes)

    def wants_ticks(self, view: View) -> bool:
        return bool(self._looks)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        verdicts: dict[FlowGroup, Verdict] = {}
        while self._looks and self._looks[0][0] <= now_ns:
            look_ns, _, coflow = heapq.heappop(self._looks)
            watched = self._watched.get(coflow)
            if watched is None or watched.look_ns != look_ns:
                continue  # it is over, or is looked at some other time
            before_bytes, coflow.sent_bytes = coflow.sent_bytes, watched.sent_bytes(coflow, view)
            verdicts |= self._sunk(coflow, before_bytes)
            missing_bytes = self._queue.missing_bytes(coflow.sent_bytes)
            if missing_bytes < math.inf:  # else it cannot sink any more
                self._look_after(watched.least_ns(missing_bytes, view), now_ns, coflow)
        self._wait(now_ns)
        return verdicts

    def _wait(self, now_ns: int) -> None:
        if self._looks:
            self.recheck_ns = max(0, self._looks[0][0] - now_ns)

    def _look_after(self, wait_ns: int, now_ns: int, coflow: Coflow) -> _Watched:
        look_ns = now_ns + max(wait_ns, NS_PER_MS)
        watched = self._watched.setdefault(coflow, _Watched(look_ns))
        watched.look_ns = look_ns
        heapq.heappush(self._looks, (look_ns, next(self._count), coflow))
        return watched

    def _sunk(self, coflow: Coflow, before_bytes: int) -> Mapping[FlowGroup, Verdict]:
        if not coflow.flows or self._queue.level(before_bytes) is self._queue.level(coflow.sent_bytes):
            return {}
        return {coflow: self._verdict(coflow)}

    def _verdict(self, coflow: Coflow) -> Verdict:
        sent_bytes = coflow.sent_bytes
        return Verdict(
            self._queue.level(sent_bytes),
            f"{coflow.name} has {self._queue.words(sent_bytes)}",
            order=coflow.arrived_ns,
        )

"""Deadline pressure: the MLU of S3 flows, computed once for all flows that share it."""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from controller.flow import Level, PortId
from controller.parts.rmlq import Rmlq
from controller.ports import Due, PortLoads, left_on
from controller.urgency import mlu
from controller.view import ActiveFlow


class Rho(enum.Enum):
    MEASURED = "measured"
    OFF = "off"


class Demand(enum.Enum):
    """Which bytes MLU counts: all S3 due at the port by the flow's deadline, or the flow's own."""

    PORT = "port"
    OWN = "own"


class Late(enum.Enum):
    """The level of S3 whose deadline has passed: the top, as its infinite MLU demands, or the lowest."""

    TOP = "top"
    LOWEST = "lowest"


class Worst(NamedTuple):
    """The highest MLU of a flow, its port, and its level."""

    mlu: float
    port: PortId
    level: Level


class Gauge:
    """The MLU of flows at one moment. `rho` is the estimator, or a constant for all ports."""

    def __init__(
        self, now_ns: int, ports: PortLoads, queue: Rmlq, *, rho: float | Rho, demand: Demand, late: Late
    ) -> None:
        self._now_ns = now_ns
        self._ports = ports
        self._queue = queue
        self._estimator = rho
        self._own = demand is Demand.OWN
        self._late_level = queue.lowest if late is Late.LOWEST else queue.reserved
        self._rho: dict[PortId, float] = {}

    def worst(self, flow: ActiveFlow) -> Worst | None:
        """The highest MLU of `flow`; None if it has no deadline or crosses no port."""
        deadline_ns = flow.flow.deadline_ns
        if deadline_ns is None or not flow.flow.load:
            return None
        left_ns = deadline_ns - self._now_ns
        if left_ns <= 0:
            return Worst(math.inf, next(iter(flow.flow.load)), self._late_level)
        highest, where = -1.0, ""
        for port in flow.flow.load:
            rho = self._rho[port] if port in self._rho else self.rho(port)
            value = mlu(self._due_bytes(flow, port, deadline_ns), left_ns, self._ports.bps(port), rho)
            if value > highest:
                highest, where = value, port
        return Worst(highest, where, self._queue.for_mlu(highest))

    def rho(self, port: PortId) -> float:
        if port not in self._rho:
            match self._estimator:
                case Rho.MEASURED:
                    self._rho[port] = self._ports.rho(port, self._now_ns)
                case Rho.OFF:
                    self._rho[port] = 0.0
                case constant:
                    self._rho[port] = constant
        return self._rho[port]

    def reason(self, flow: ActiveFlow, worst: Worst | None) -> str:
        """The MLU in words, with the threshold that it reached and what it was computed from."""
        if flow.flow.deadline_ns is None:
            return "S3 without a deadline"
        if worst is None:
            return "S3 with no port to share"
        if math.isinf(worst.mlu):
            return f"its deadline passed {(self._now_ns - flow.flow.deadline_ns) / 1e6:.1f} ms ago"
        for threshold in self._queue.mlu_thresholds:
            if worst.mlu >= threshold:
                against = f">= {_figure(threshold)}"
                break
        else:
            against = f"< {_figure(self._queue.mlu_thresholds[-1])}"
        due = self._due(flow, worst.port, flow.flow.deadline_ns)
        flows = "1 flow" if due.flows == 1 else f"{due.flows} flows"
        rho = "" if self._estimator is Rho.OFF else f", rho {self.rho(worst.port):.2f}"
        return (
            f"MLU {_figure(worst.mlu)} {against} on {worst.port} ({flows}, {due.bytes / 1e6:.3g} MB due{rho})"
        )

    def _due(self, flow: ActiveFlow, port: PortId, deadline_ns: int) -> Due:
        if self._own:
            return Due(self._due_bytes(flow, port, deadline_ns), 1)
        return self._ports.due(port, deadline_ns)

    def _due_bytes(self, flow: ActiveFlow, port: PortId, deadline_ns: int) -> int:
        if self._own:
            return left_on(flow.flow, port, flow.bytes_left)
        return self._ports.due_bytes(port, deadline_ns)


@dataclass(slots=True, eq=False)
class SharedDeadline:
    """S3 flows of one batch that share a deadline and ports, and so their MLU.

    None of them is on a lower level than `lowest`.
    """

    key: tuple[object, ...]
    lowest: Level
    flows: dict[str, ActiveFlow] = field(default_factory=dict)

    @property
    def any_flow(self) -> ActiveFlow:
        return next(iter(self.flows.values()))


class SharedDeadlines:
    """The active S3 flows by batch and, inside a batch, by what their MLU depends on.

    A request posts one S3 flow per layer along one path. So a review of a batch takes one look per request
    and path, however many layers have been posted. Memory: one entry per active flow.
    """

    def __init__(self, demand: Demand) -> None:
        self._own = demand is Demand.OWN
        self._batches: dict[str | None, dict[tuple[object, ...], SharedDeadline]] = {}

    def add(self, flow: ActiveFlow, level: Level) -> None:
        """`flow` is about to be given `level`."""
        groups = self._batches.setdefault(flow.flow.batch, {})
        key = self._key(flow)
        group = groups.get(key)
        if group is None:
            group = groups[key] = SharedDeadline(key, level)
        group.lowest = max(group.lowest, level)
        group.flows[flow.flow.id] = flow

    def remove(self, flow: ActiveFlow) -> None:
        groups = self._batches[flow.flow.batch]
        group = groups[self._key(flow)]
        del group.flows[flow.flow.id]
        if not group.flows:
            del groups[group.key]
        if not groups:
            del self._batches[flow.flow.batch]

    def of_batch(self, batch: str) -> Iterable[SharedDeadline]:
        return self._batches.get(batch, {}).values()

    def with_flow(self, flow: ActiveFlow) -> SharedDeadline:
        return self._batches[flow.flow.batch][self._key(flow)]

    def all(self) -> Iterable[SharedDeadline]:
        for groups in self._batches.values():
            yield from groups.values()

    def unpaced(self) -> Iterable[SharedDeadline]:
        """Those for which no layer boundary will come. It is the same for all flows of a batch."""
        for groups in self._batches.values():
            if next(iter(groups.values())).any_flow.unpaced:
                yield from groups.values()

    def _key(self, flow: ActiveFlow) -> tuple[object, ...]:
        shared = (flow.flow.deadline_ns, *flow.flow.load)
        return (flow.flow.id, *shared) if self._own else shared


def _figure(number: float) -> str:
    return f"{number:.2f}" if number >= 0.2 else f"{number:.3g}"

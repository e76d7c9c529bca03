"""Deadline pressure: the MLU of S3 flows, computed once for all flows that share it."""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec import Meta

from controller.flow import Level, PortId
from controller.parts.rmlq import Rmlq
from controller.ports import RHO_CAP, PortLoads
from controller.view import ActiveFlow

WINDOW_MS = Meta(ge=0.001, le=1e6)
"""Of the time constant of the measured rho."""


class Rho(enum.Enum):
    MEASURED = "measured"
    OFF = "off"


def check_rho(rho: float | Rho, window_ms: float) -> None:
    """Raise `ValueError` for values that are out of bounds."""
    if not isinstance(rho, Rho) and not 0.0 <= rho <= RHO_CAP:
        raise ValueError(f"rho must be 0 to {RHO_CAP}, not {rho}")
    if not 1e-3 <= window_ms <= 1e6:
        raise ValueError(f"rho_window_ms must be 0.001 to 1e6, not {window_ms}")


def constant_rho(rho: float | Rho) -> float | None:
    """The rho of all ports; None if it is measured at each."""
    if isinstance(rho, Rho):
        return None if rho is Rho.MEASURED else 0.0
    return rho


class Demand(enum.Enum):
    """Which bytes MLU counts: all S3 due at the port by the flow's deadline, or the flow's own."""

    PORT = "port"
    OWN = "own"


class Late(enum.Enum):
    """The level of S3 whose deadline has passed: the top, as its infinite MLU demands, or the lowest."""

    TOP = "top"
    LOWEST = "lowest"


class Worst(msgspec.Struct, frozen=True, gc=False):
    """The highest MLU of a flow, its level, and of what the MLU was computed.

    `mlu` is infinite once the deadline has passed; then only `level` counts as well.
    """

    mlu: float
    level: Level
    port: PortId = ""
    due_bytes: int = 0
    due_flows: int = 0
    rho: float = 0.0


class Gauge:
    """Measures the MLU of flows. `rho` is the estimator, or a constant for all ports."""

    def __init__(self, queue: Rmlq, *, rho: float | Rho, demand: Demand, late: Late) -> None:
        self._queue = queue
        self._rho = constant_rho(rho)
        self._tells_rho = rho is not Rho.OFF
        self._own = demand is Demand.OWN
        self._late = Worst(math.inf, queue.lowest if late is Late.LOWEST else queue.reserved)
        self._below_all = f"< {_figure(queue.mlu_thresholds[-1])}"
        self._reached = [(threshold, f">= {_figure(threshold)}") for threshold in queue.mlu_thresholds]

    def worst(self, now_ns: int, flow: ActiveFlow, ports: PortLoads) -> Worst | None:
        """The highest MLU of `flow`; None if it has no deadline or crosses no port."""
        facts = flow.flow
        if facts.deadline_ns is None or not facts.load:
            return None
        if facts.deadline_ns <= now_ns:
            return self._late
        own_bytes = flow.bytes_left if self._own else None
        mlu, port, due_bytes, due_flows, rho = ports.highest_mlu(now_ns, facts, self._rho, own_bytes)
        return Worst(mlu, self._queue.for_mlu(mlu), port, due_bytes, due_flows, rho)

    def reason(self, now_ns: int, flow: ActiveFlow, worst: Worst | None) -> str:
        """The MLU in words, with the threshold that it reached and what it was computed from."""
        if flow.flow.deadline_ns is None:
            return "S3 without a deadline"
        if worst is None:
            return "S3 with no port to share"
        if worst.mlu == math.inf:
            return f"its deadline passed {(now_ns - flow.flow.deadline_ns) / 1e6:.1f} ms ago"
        against = self._below_all
        for threshold, reached in self._reached:
            if worst.mlu >= threshold:
                against = reached
                break
        flows = "1 flow" if worst.due_flows == 1 else f"{worst.due_flows} flows"
        rho = f", rho {worst.rho:.2f}" if self._tells_rho else ""
        due = f"{flows}, {worst.due_bytes / 1e6:.3g} MB due{rho}"
        return f"MLU {_figure(worst.mlu)} {against} on {worst.port} ({due})"


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
    and path, however many layers have been posted. Memory: two entries per active flow.
    """

    def __init__(self, demand: Demand) -> None:
        self._own = demand is Demand.OWN
        self._batches: dict[str | None, dict[tuple[object, ...], SharedDeadline]] = {}
        self._of_flow: dict[str, SharedDeadline] = {}

    def add(self, flow: ActiveFlow, level: Level) -> None:
        """`flow` is about to be given `level`."""
        facts = flow.flow
        groups = self._batches.get(facts.batch)
        if groups is None:
            groups = self._batches[facts.batch] = {}
        key = (facts.id if self._own else None, facts.deadline_ns, *facts.load)
        group = groups.get(key)
        if group is None:
            group = groups[key] = SharedDeadline(key, level)
        elif level > group.lowest:
            group.lowest = level
        group.flows[facts.id] = flow
        self._of_flow[facts.id] = group

    def remove(self, flow: ActiveFlow) -> None:
        group = self._of_flow.pop(flow.flow.id)
        del group.flows[flow.flow.id]
        if not group.flows:
            groups = self._batches[flow.flow.batch]
            del groups[group.key]
            if not groups:
                del self._batches[flow.flow.batch]

    def of_batch(self, batch: str) -> Iterable[SharedDeadline]:
        return self._batches.get(batch, {}).values()

    def with_flow(self, flow: ActiveFlow) -> SharedDeadline:
        return self._of_flow[flow.flow.id]

    def all(self) -> Iterable[SharedDeadline]:
        for groups in self._batches.values():
            yield from groups.values()

    def unpaced(self) -> Iterable[SharedDeadline]:
        """Those for which no layer boundary will come. It is the same for all flows of a batch."""
        for groups in self._batches.values():
            if next(iter(groups.values())).any_flow.unpaced:
                yield from groups.values()


def _figure(number: float) -> str:
    return f"{number:.2f}" if number >= 0.2 else f"{number:.3g}"

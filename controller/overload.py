"""Request control: its options, and Algorithm 1 of MFS v1, which chooses the requests to prune.

Formulas and our choices: docs/concepts/request-control.md.
"""

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from controller.flow import Batch, Flow, PortId, Stage
from controller.ports import left_on
from controller.urgency import loose_deadline, transfer_ns
from controller.view import ActiveBatch, ActiveFlow


class QueueOrder(enum.Enum):
    RED = "red"
    FCFS = "fcfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestControl:
    """The options of `+requests`. Raises `ValueError` for values out of range."""

    order: Annotated[QueueOrder, "prefill queue: red (by deadline) or fcfs (by arrival)"] = QueueOrder.RED
    prune: Annotated[bool, "off: no request is put behind the others for being too late"] = True
    drop_budget: Annotated[float, "largest share of requests to give up for the others", Meta(ge=0, le=1)] = (
        0.3
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.drop_budget <= 1.0:
            raise ValueError(f"drop_budget must be 0 to 1, not {self.drop_budget}")

    def most_pruned(self, requests: int) -> int:
        """How many of `requests` may be pruned: the budget's share, rounded down. 0.3 of 3 is none."""
        # A tiny bit more, because 0.29 * 100 is slightly below 29 in floating point.
        return math.floor(self.drop_budget * requests + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLoad:
    """The bytes that the S1 and S3 flows of a request have yet to put on each port (`load`).

    `due_ns` is when compute and transfers must be over: the deadline less `BatchRequest.tail_ns`.
    """

    id: str
    due_ns: int
    load: Mapping[PortId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLoad:
    """What is left of a batch: compute, one or more requests, and its collectives' bytes on each port."""

    id: str
    red_ns: int
    compute_left_ns: int
    requests: tuple[RequestLoad, ...]
    load: Mapping[PortId, int]


def overloading_requests(
    now_ns: int, batches: Iterable[BatchLoad], *, bps: Mapping[PortId, int], budget: int
) -> dict[str, str]:
    """The ids of the requests to prune, at most `budget`, each with the reason. Algorithm 1 of MFS v1.

    `bps` are the capacities of the ports in model bits/s. The batches are walked in order of RED, equal
    ones in the order given. A batch is expected to end at

        now + compute left + max over its ports of (bytes of the batches before it + its own) * 8 / bps

    While that is after the batch's loose deadline, the algorithm prunes the request with the most bytes on
    that busiest port, of all requests walked so far. Of equal ones, it prunes the last.
    """
    before: dict[PortId, int] = {}
    kept: list[RequestLoad] = []
    pruned: dict[str, str] = {}
    for batch in sorted(batches, key=lambda batch: batch.red_ns):
        own = _sum_of([batch.load, *(request.load for request in batch.requests)])
        mine = list(batch.requests)
        while mine and len(pruned) < budget:
            port, drain_ns = _bottleneck(own, before, bps)
            loose_ns = loose_deadline([request.due_ns for request in mine])
            late_ns = now_ns + batch.compute_left_ns + drain_ns - loose_ns
            if late_ns <= 0 or port is None:
                break
            heaviest = _heaviest([*kept, *mine], port)
            if heaviest is None:
                break
            pruned[heaviest.id] = (
                f"pruned: batch {batch.id} would end {_figure(late_ns / 1e6)} ms after its loose deadline;"
                f" request {heaviest.id} loads {port} most, {_figure(heaviest.load[port] / 1e6)} MB"
            )
            if heaviest in mine:
                mine.remove(heaviest)
                _take_off(own, heaviest.load)
            else:
                kept.remove(heaviest)
                _take_off(before, heaviest.load)
        before = _sum_of([before, own])
        kept += mine
    return pruned


def _bottleneck(
    own: Mapping[PortId, int], before: Mapping[PortId, int], bps: Mapping[PortId, int]
) -> tuple[PortId | None, int]:
    """The port that takes longest, of those that `own` loads, and its time in ns; the first of equals."""
    busiest: PortId | None = None
    longest_ns = 0
    for port, size_bytes in own.items():
        drain_ns = transfer_ns(size_bytes + before.get(port, 0), bps[port]) if size_bytes else 0
        if drain_ns > longest_ns:
            busiest, longest_ns = port, drain_ns
    return busiest, longest_ns


def _heaviest(requests: Sequence[RequestLoad], port: PortId) -> RequestLoad | None:
    """The request with the largest load on `port`, the last of equals; None if no request loads it."""
    heaviest = max(reversed(requests), key=lambda request: request.load.get(port, 0))
    return heaviest if heaviest.load.get(port, 0) else None


def _sum_of(loads: Iterable[Mapping[PortId, int]]) -> dict[PortId, int]:
    total: dict[PortId, int] = {}
    for load in loads:
        for port, size_bytes in load.items():
            total[port] = total.get(port, 0) + size_bytes
    return total


def _take_off(total: dict[PortId, int], load: Mapping[PortId, int]) -> None:
    for port, size_bytes in load.items():
        total[port] -= size_bytes


class Prunings:
    """Which requests were ever pruned, how often, and which of them were still pruned at their end.

    A `Scheduler` calls `changed`. The scheduler itself forgets a request when its batch departs.
    """

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        self._now: set[str] = set()

    def changed(self, request: str, pruned: bool) -> None:
        """`request` is pruned from now on, or freed."""
        if pruned:
            self.times[request] = self.times.get(request, 0) + 1
            self._now.add(request)
        else:
            self._now.discard(request)

    @property
    def at_their_end(self) -> frozenset[str]:
        """The requests that were pruned and never freed again."""
        return frozenset(self._now)


@dataclass(slots=True)
class _Left:
    """Bytes of a batch that are not delivered yet, by port: of its collectives, and of each request."""

    collectives: dict[PortId, int]
    requests: dict[str, dict[PortId, int]]


class Overload:
    """Keeps what is left of each active batch, and which requests are pruned until the next review.

    `ports` are capacities in model bits/s. `changed(request, True)` is called when a request is pruned,
    `changed(request, False)` when it is freed while it is active, or comes back with another part of its
    prompt. Memory: one entry per active batch, request and port. Without a `control`, or with `prune` off,
    it keeps nothing.
    """

    def __init__(
        self,
        control: RequestControl | None,
        ports: Mapping[PortId, int],
        changed: Callable[[str, bool], None],
    ) -> None:
        self._changed = changed
        self._control = control if control is not None and control.prune else None
        self._bps = ports
        self._active_requests = 0
        self._left: dict[str, _Left] = {}
        self._pruned: dict[str, str] = {}
        self._wholly: set[str] = set()

    @property
    def controls(self) -> bool:
        """Whether requests may be pruned at all."""
        return self._control is not None

    def started(self, batch: Batch) -> None:
        if self._control is None:
            return
        self._left[batch.id] = _Left(
            dict(batch.load), {request.id: dict(request.load) for request in batch.requests}
        )
        for request in batch.requests:
            if request.id not in self._pruned:
                self._changed(request.id, False)

    def moved(self, flow: Flow, *, before_bytes: int, after_bytes: int) -> None:
        """`flow` had `before_bytes` left and now has `after_bytes`."""
        left = self._left.get(flow.batch or "")
        if left is None:
            return
        collective = flow.stage is Stage.COLLECTIVE
        load = left.collectives if collective else left.requests.get(flow.request or "", {})
        for port in flow.load:
            if port in load:
                gone = left_on(flow, port, before_bytes) - left_on(flow, port, after_bytes)
                # A flow takes one of several equal-cost paths, but its load was announced on all of them.
                load[port] = max(0, load[port] - gone)

    def departed(self, batch: str) -> None:
        self._left.pop(batch, None)

    def review(self, now_ns: int, batches: Iterable[ActiveBatch]) -> list[ActiveBatch]:
        """Choose the pruned requests anew. Returns the batches in which one is newly pruned or freed."""
        if self._control is None:
            return []
        active = list(batches)
        loads = [load for batch in active if (load := self._load_of(batch)).requests]
        # A request may be in several batches: its fetch plan, and one batch per part of its prompt.
        requests = {request.id for load in loads for request in load.requests}
        self._active_requests = len(requests)
        budget = self._control.most_pruned(self._active_requests)
        before = self._pruned
        self._pruned = overloading_requests(now_ns, loads, bps=self._bps, budget=budget)
        for request in self._pruned:
            if request not in before:
                self._changed(request, True)
        for request in before:
            if request not in self._pruned and request in requests:
                self._changed(request, False)
        self._wholly = {
            load.id for load in loads if all(request.id in self._pruned for request in load.requests)
        }
        return [
            batch
            for batch in active
            if any((r.id in before) != (r.id in self._pruned) for r in batch.batch.requests)
        ]

    def reason(self, flow: ActiveFlow) -> str | None:
        """Why `flow` belongs in SCAVENGER; None if it does not."""
        if flow.batch is None:
            return None
        if flow.flow.stage is Stage.COLLECTIVE:
            batch = flow.batch.batch.id
            return f"pruned: all requests of batch {batch} are" if batch in self._wholly else None
        return self._pruned.get(flow.flow.request or "")

    @property
    def freed(self) -> str:
        """Why a flow that was pruned before the last review no longer is."""
        return (
            "no longer pruned, the policy's level again:"
            f" {len(self._pruned)} of {self._active_requests} active requests are pruned"
        )

    def _load_of(self, batch: ActiveBatch) -> BatchLoad:
        left = self._left[batch.batch.id]
        layers = batch.batch.layers
        waiting = {flow.flow.request for flow in batch.flows.values()}
        return BatchLoad(
            id=batch.batch.id,
            red_ns=batch.red_ns or 0,
            compute_left_ns=batch.batch.compute_ns * (layers - batch.layer) // layers,
            requests=tuple(
                RequestLoad(
                    id=request.id,
                    due_ns=request.deadline_ns - request.tail_ns,
                    load=left.requests[request.id],
                )
                for request in batch.batch.requests
                # A request that has all its KV must no longer hold its batch to its deadline.
                if not batch.compute_over or request.id in waiting
            ),
            load=left.collectives,
        )


def _figure(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

"""What waits for a transfer, and when a request has all its KV. Pure, for every fabric."""

from typing import NamedTuple

import msgspec

from controller.flow import Stage
from workers.plan import RequestPlan
from workers.protocol import FirstToken


class ByConductor(NamedTuple):
    """The conductor waits for the transfer: a micro flow, or one of background decoding."""


class ByLayer(NamedTuple):
    """A layer at the receiver waits for the transfer."""


class ByFirstToken(NamedTuple):
    """The first token of `request` waits for the transfer."""

    request: int


def awaited(stage: Stage, request: int | None) -> ByConductor | ByLayer | ByFirstToken:
    """What waits for a transfer of `stage` between two ranks; `request` is None if it belongs to none."""
    if request is None:
        return ByConductor()
    return ByFirstToken(request) if stage is Stage.P2D else ByLayer()


class Delivered(NamedTuple):
    """A request whose KV for this decode rank has all been here since `p2d_end_ns`.

    `batch` computed the last part of its prompt.
    """

    plan: RequestPlan
    batch: str
    p2d_end_ns: int


class _Expected:
    """`plan`, `flows` and `batch` are those of the newest known part of the prompt."""

    __slots__ = ("arrived", "batch", "flows", "last_ns", "plan")

    def __init__(self) -> None:
        self.plan: RequestPlan | None = None
        self.flows = 0
        self.batch = ""
        self.arrived = 0
        self.last_ns = 0


class Deliveries:
    """Counts the P2D flows of each request to decode rank `rank`, over all batches with a part of its prompt.

    Flows of an earlier part may be the last to arrive, and flows may arrive before their plan.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._expected: dict[int, _Expected] = {}

    def planned(self, request: RequestPlan, batch: str) -> Delivered | None:
        """The request, or a part of its prompt, is in `batch`. Returns it if all its KV has arrived.

        Raises `ValueError` if the rank does not decode it.
        """
        expected = self._of(request.request)
        expected.plan, expected.batch = request, batch
        expected.flows = request.p2d_flows[request.decode_ranks.index(self._rank)]
        return self._complete(expected)

    def arrived(self, request: int, now_ns: int) -> Delivered | None:
        """A P2D flow of the request has arrived at `now_ns`. Returns the request if that was the last one.

        Calls may come in another order than the flows: the latest time counts, not that of the last call.
        """
        expected = self._of(request)
        expected.arrived += 1
        if now_ns > expected.last_ns:
            expected.last_ns = now_ns
        return self._complete(expected)

    def _of(self, request: int) -> _Expected:
        expected = self._expected.get(request)
        if expected is None:
            expected = self._expected[request] = _Expected()
        return expected

    def _complete(self, expected: _Expected) -> Delivered | None:
        plan = expected.plan
        if plan is None or not plan.last or expected.arrived < expected.flows:
            return None
        del self._expected[plan.request]
        return Delivered(plan, expected.batch, expected.last_ns)


class FirstSteps:
    """Counts the ranks of a decode worker that have taken the first decode step of a request.

    Each rank takes it as soon as its own KV is there, and waits for no other rank. So the worker's step has
    ended when the last rank's has.
    """

    def __init__(self) -> None:
        self._taken: dict[int, list[FirstToken]] = {}

    def taken(self, step: FirstToken) -> FirstToken | None:
        """A rank has taken its step. Returns the request's first token once all ranks have."""
        taken = self._taken.setdefault(step.request, [])
        taken.append(step)
        if len(taken) < step.ranks:
            return None
        del self._taken[step.request]
        return msgspec.structs.replace(
            step,
            p2d_end_ns=max(each.p2d_end_ns for each in taken),
            time_ns=max(each.time_ns for each in taken),
        )

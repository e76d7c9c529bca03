"""Admission: the scheduler's answers carried through to the lanes. Pure; the same on every fabric.

A fabric reports each event. It gets back which flows have to move to another level, which have just got a
lane, and which were lent a level, and carries this out in that order.
"""

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from controller.flow import Assignment, Batch, Decision, Flow
from controller.lanes import Claim, Claims, Lane, LanePool
from controller.scheduler import Scheduler

C = TypeVar("C", bound=Claim[Any])


class Orders(NamedTuple, Generic[C]):
    """What a fabric has to do, in order: move flows, start those that got a lane, move what was lent to."""

    moved: list[C]
    granted: list[C]
    lent: list[C]


class Admission(Generic[C]):
    """Submits flows to `scheduler`, and gives them lanes and levels as it says.

    `decided` is called with each change of a level. All times are model ns. A flow that was moved is on a
    lane, and its level, order or rate may have changed. Raises what the scheduler raises, and `LaneError`
    for events that contradict each other.
    """

    def __init__(self, scheduler: Scheduler, decided: Callable[[Decision], None]) -> None:
        self._scheduler = scheduler
        self._claims: Claims[C] = Claims(decided)

    @property
    def submitted(self) -> int:
        """How many flows have been submitted."""
        return self._claims.submitted

    def next_tick_ns(self) -> int | None:
        """When to call `tick` next; None if never."""
        return self._scheduler.next_tick_ns()

    # --- flows ----------------------------------------------------------------------------------

    def submit(self, now_ns: int, claim: C, pool: LanePool[Any, C], flow: Flow) -> Orders[C]:
        """`flow` wants to be sent over a lane of `pool`, and waits until one is free."""
        self._claims.submit(claim, pool)
        moved = self._obey(self._scheduler.submit(now_ns, flow))
        return self._fill(now_ns, moved, pool)

    def submit_on(self, now_ns: int, claim: C, lane: Lane[C], flow: Flow) -> list[C]:
        """`flow`, a share of a collective, takes `lane`, its rank's side of the group. Returns what moved."""
        self._claims.submit_on(claim, lane)
        return self._obey(self._scheduler.submit(now_ns, flow))

    def progress(self, now_ns: int, flow: str, bytes_left: int) -> list[C]:
        """`flow` has `bytes_left` to arrive. Returns the flows to move."""
        return self._obey(self._scheduler.progress(now_ns, flow, bytes_left))

    def claim(self, flow: str) -> C:
        """The claim of an active flow. Raises `LaneError` if it has no lane."""
        return self._claims.on_a_lane(flow)

    def complete(self, now_ns: int, flow: str) -> Orders[C]:
        """`flow` has arrived. Its lane goes to the most urgent flow that waits for one."""
        claim = self._claims.complete(flow)
        moved = self._obey(self._scheduler.completion(now_ns, flow))
        return Orders(moved, [], []) if claim.pool is None else self._fill(now_ns, moved, claim.pool)

    # --- everything else that the scheduler hears of: returns the flows to move ------------------

    def batch_started(self, now_ns: int, batch: Batch) -> list[C]:
        return self._obey(self._scheduler.batch_started(now_ns, batch))

    def layer_advanced(self, now_ns: int, batch: str, layer: int) -> list[C]:
        return self._obey(self._scheduler.layer_advanced(now_ns, batch, layer))

    def tick(self, now_ns: int) -> list[C]:
        return self._obey(self._scheduler.tick(now_ns))

    # --- inside ---------------------------------------------------------------------------------

    def _obey(self, assignments: Iterable[Assignment]) -> list[C]:
        return self._claims.obey(assignments) if assignments else []

    def _fill(self, now_ns: int, moved: list[C], pool: LanePool[Any, C]) -> Orders[C]:
        granted = pool.fill()
        return Orders(moved, granted, self._claims.lend(now_ns, pool))

"""Lanes: which flow gets one, and which levels waiting flows lend. Pure, and the same on every fabric.

A lane carries one flow at a time from one rank to another. All lanes of the two ranks for a stage form a
pool. A submitted flow has a claim to a lane of its pool and waits until one is free; the most urgent flow
goes first. While all lanes of a pool are taken, a more urgent flow that waits lends its level to the lane
that was taken first. A rank's side of a process group is a lane as well. The rank's share of a collective
takes it at once.

A fabric extends `Lane` and `Claim` with what it needs to carry flows, and acts on what the calls return: it
permits the flows that got a lane, and moves the flows whose level changed.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from controller.flow import Assignment, Decision, Level, PortId, Stage

L = TypeVar("L", bound="Lane[Any]")
C = TypeVar("C", bound="Claim[Any]")


class LaneError(ValueError):
    """A flow is submitted twice, completes without a lane, or takes a lane that another flow has."""


class LevelTrail:
    """The first and the last level of a flow, and how often it was promoted in between."""

    __slots__ = ("level_first", "level_last", "promotions")

    def __init__(self) -> None:
        self.level_first: Level | None = None
        self.level_last: Level | None = None
        self.promotions = 0

    def moved_to(self, level: Level) -> None:
        """The flow is at `level` now. Its first level is not a promotion."""
        if self.level_last is None:
            self.level_first = level
        elif level < self.level_last:
            self.promotions += 1
        self.level_last = level


class Lane(Generic[C]):
    """Carries one flow at a time. `level` is the level in force on it, `ports` are the ports of its path.

    `taken` is smaller for a lane of the pool that was taken earlier. A `spare` lane is made for one flow,
    beyond the lanes of the pool, and is gone when that flow is complete.
    """

    __slots__ = ("claim", "level", "name", "ports", "spare", "taken")

    def __init__(self, name: str, ports: tuple[PortId, ...], *, spare: bool = False) -> None:
        self.name = name
        self.ports = ports
        self.spare = spare
        self.claim: C | None = None
        self.level = Level.CONTROL
        self.taken = 0


class Claim(LevelTrail, Generic[L]):
    """A flow that waits for a lane or has one, and the levels it was at.

    `level`, `order` and `rate_bps` are from the scheduler's last assignment. `lent` is the level that a
    more urgent waiting flow has lent to this one. The flow is served at `wanted`, the more urgent of
    `level` and `lent`. `number` counts submissions.
    """

    __slots__ = ("id", "lane", "lent", "level", "number", "order", "pool", "rate_bps", "wanted")

    def __init__(self, id: str) -> None:
        super().__init__()
        self.id = id
        self.number = 0
        self.pool: LanePool[L, Any] | None = None
        self.lane: L | None = None
        self.level = self.wanted = Level.SCAVENGER
        self.lent: Level | None = None
        self.order = 0.0
        self.rate_bps: int | None = None

    def obey(self, said: Assignment) -> None:
        self.level, self.order, self.rate_bps = said.level, said.order, said.rate_bps
        self.wanted = self.level if self.lent is None else min(self.level, self.lent)

    def borrow(self, level: Level) -> None:
        self.lent = level
        self.wanted = min(self.level, level)


def urgency(claim: Claim[Any]) -> tuple[Level, float, int]:
    """The sort key of waiting flows: level, then the exact order inside it, then submission."""
    return claim.level, claim.order, claim.number


class LanePool(Generic[L, C]):
    """The lanes from one rank to another for one stage, and the flows that wait for one of them.

    With `spare` no flow ever waits. When all lanes are taken, `spare(i)` makes another lane over the path
    of lane `i`; the lanes take turns.
    """

    __slots__ = ("_free", "_load", "_ports", "_spare", "_spares", "_takes", "lanes", "waiting")

    def __init__(self, lanes: Iterable[L] = (), *, spare: Callable[[int], L] | None = None) -> None:
        self.lanes: list[L] = []
        self.waiting: dict[str, C] = {}
        self._spare = spare
        self._spares = 0
        self._takes = 0
        self._free = 0
        self._ports: dict[PortId, int] = {}
        self._load: tuple[int, dict[PortId, int]] | None = None
        for lane in lanes:
            self.add(lane)

    def add(self, lane: L) -> None:
        self.lanes.append(lane)
        self._free += 1
        self._load = None
        for port in lane.ports:
            self._ports[port] = self._ports.get(port, 0) + 1

    def load(self, size_bytes: int) -> dict[PortId, int]:
        """Bytes that a flow of `size_bytes` will put on each port, as far as known before it has a lane.

        A port that every lane crosses gets all bytes; a port that n of m lanes cross gets n/m of them.
        Consecutive calls with one size return the same dictionary. Do not change it.
        """
        if self._load is None or self._load[0] != size_bytes:
            count = len(self.lanes)
            self._load = (
                size_bytes,
                {port: size_bytes * lanes // count for port, lanes in self._ports.items()},
            )
        return self._load[1]

    def fill(self) -> Iterator[C]:
        """Give free lanes to the flows that wait, the most urgent first. Yields each flow that got one.

        A lane that is at the flow's level already is preferred, because no rule has to change for it.
        """
        while self.waiting and (self._free or self._spare is not None):
            claim = min(self.waiting.values(), key=urgency)
            del self.waiting[claim.id]
            self.take(claim, self._next_lane(claim.wanted))
            yield claim

    def take(self, claim: C, lane: L) -> None:
        """`claim` gets `lane`, which is free."""
        if not lane.spare:
            self._free -= 1
        lane.claim = claim
        lane.taken = self._takes
        self._takes += 1
        claim.lane = lane

    def release(self, lane: L) -> None:
        """The flow that had `lane` is complete."""
        lane.claim = None
        if not lane.spare:
            self._free += 1

    def lend(self) -> Iterator[tuple[C, C]]:
        """Lend the levels of waiting flows to flows that have a lane.

        Yields pairs: the flow that is lent a level, and the waiting flow that lends it. The first keeps the
        level until it is complete.
        """
        if not self.waiting or self._free:
            return  # a lane is free, and the most urgent flow will take it
        held = [lane.claim for lane in sorted(self.lanes, key=_taken) if lane.claim is not None]
        lowest = max(claim.wanted for claim in held)
        if all(claim.level >= lowest for claim in self.waiting.values()):
            return
        urgent = heapq.nsmallest(len(held), self.waiting.values(), key=urgency)
        for number, i in loans([claim.wanted for claim in held], [claim.level for claim in urgent]):
            held[number].borrow(urgent[i].level)
            yield held[number], urgent[i]

    def _next_lane(self, level: Level) -> L:
        if not self._free:
            assert self._spare is not None
            self._spares += 1
            return self._spare((self._spares - 1) % len(self.lanes))
        first: L | None = None
        for lane in self.lanes:
            if lane.claim is None:
                if lane.level == level:
                    return lane
                first = first or lane
        assert first is not None
        return first


def _taken(lane: Lane[Any]) -> int:
    return lane.taken


def loans(held: Sequence[Level], waiting: Sequence[Level]) -> Iterator[tuple[int, int]]:
    """Yields which lane each waiting flow lends its level to, as pairs of a lane's and a flow's index.

    `held` are the levels of a pool's lanes, all taken, in the order in which they were taken. `waiting` are
    the levels of the flows that wait, the most urgent first, at most one per lane. The i-th waiting flow
    needs i lanes that are at least as urgent as it is. If one is missing, the flow lends its level to the
    lane that was taken first among the less urgent ones.

    Without lending, a pool full of deferred flows would hold up an urgent one (priority inversion).
    """
    levels = list(held)
    for i, level in enumerate(waiting):
        if sum(other <= level for other in levels) > i:
            continue
        lane = next(number for number, other in enumerate(levels) if other > level)
        levels[lane] = level
        yield lane, i


class Claims(Generic[C]):
    """Every flow that waits for a lane or has one, and its level.

    `changed` is called with each change of a level. `obey` and `lend` return the flows to move: those on a
    lane whose level, order or rate may have changed, in order. A flow can be among them twice.
    """

    def __init__(self, changed: Callable[[Decision], None]) -> None:
        self._changed = changed
        self._active: dict[str, C] = {}
        self._submitted = 0

    @property
    def submitted(self) -> int:
        """How many flows have been submitted."""
        return self._submitted

    def submit(self, claim: C, pool: LanePool[Any, C]) -> None:
        """The flow waits for a lane of `pool`. Raises `LaneError` if a flow of its id is active."""
        self._admit(claim)
        claim.pool = pool
        pool.waiting[claim.id] = claim

    def submit_on(self, claim: C, lane: Lane[C]) -> None:
        """The flow takes `lane`, a rank's side of a process group, which is in no pool.

        Raises `LaneError` if a flow of its id is active, or if another flow has the lane.
        """
        if lane.claim is not None:
            raise LaneError(f"{claim.id!r} starts before {lane.claim.id!r} has ended")
        self._admit(claim)
        lane.claim = claim
        claim.lane = lane

    def obey(self, assignments: Iterable[Assignment]) -> list[C]:
        """Take in assignments, and lend levels where flows wait."""
        moved: list[C] = []
        crowded: dict[int, tuple[int, LanePool[Any, C]]] = {}
        for said in assignments:
            claim = self._active[said.flow]
            before = claim.level_last
            claim.obey(said)
            if claim.wanted is not before:
                self._note(said.time_ns, claim, before, said.reason)
            if claim.lane is not None:
                moved.append(claim)
            elif claim.pool is not None:
                crowded[id(claim.pool)] = said.time_ns, claim.pool
        for time_ns, pool in crowded.values():
            moved += self.lend(time_ns, pool)
        return moved

    def lend(self, time_ns: int, pool: LanePool[Any, C]) -> list[C]:
        """Lend the levels of the flows that wait for a lane of `pool`."""
        moved: list[C] = []
        for holder, waiting in pool.lend():
            reason = f"its lane is needed by {waiting.id}, which waits at {waiting.level.name}"
            self._note(time_ns, holder, holder.level_last, reason)
            moved.append(holder)
        return moved

    def complete(self, flow: str) -> C:
        """The flow has arrived, and its lane is free. Raises `LaneError` if the flow has no lane."""
        claim = self.on_a_lane(flow)
        assert claim.lane is not None
        del self._active[flow]
        if claim.pool is not None:
            claim.pool.release(claim.lane)
        else:
            claim.lane.claim = None
        return claim

    def on_a_lane(self, flow: str) -> C:
        """The claim of an active flow. Raises `LaneError` if the flow has no lane."""
        claim = self._active.get(flow)
        if claim is None or claim.lane is None:
            raise LaneError(f"flow {flow!r} has no lane")
        return claim

    def _admit(self, claim: C) -> None:
        if claim.id in self._active:
            raise LaneError(f"flow {claim.id!r} is submitted twice")
        self._active[claim.id] = claim
        claim.number = self._submitted
        self._submitted += 1

    def _note(self, time_ns: int, claim: C, before: Level | None, reason: str) -> None:
        claim.moved_to(claim.wanted)
        self._changed(
            Decision(time_ns=time_ns, flow=claim.id, level_from=before, level_to=claim.wanted, reason=reason)
        )


def lane_name(stage: Stage, src: int, dst: int, number: int) -> str:
    """The name of lane `number` from rank `src` to rank `dst`: `S3.2-9.0`. Its hash selects the path."""
    return f"{stage.value}.{src}-{dst}.{number}"


def load_of(sizes: Mapping[int, int], paths: Mapping[int, Sequence[PortId]]) -> dict[PortId, int]:
    """Bytes that a share of a collective puts on each port: `sizes[peer]` bytes go along `paths[peer]`."""
    load: dict[PortId, int] = {}
    for peer, size in sizes.items():
        for port in paths[peer]:
            load[port] = load.get(port, 0) + size
    return load

"""Between the scheduler's word and the first byte: lanes, levels in force, permits. Pure.

Events in (`submit`, `completed`, `confirmed`, ...), actions out: `Enforce` (put this level in force
on these connections, then call `confirmed`) and `Grant` (send this permit). A flow is permitted
only when its lane is its own *and* its level is confirmed on the lane's connections.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from controller.flow import Assignment, Batch, Flow, Level, PortId, Stage
from controller.lending import loans
from controller.openflow import FlowMod, RuleBook, ports_of
from controller.protocol import (
    GroupUp,
    LaneUp,
    LoggedDecision,
    LoggedPath,
    Permit,
    ProbeUp,
    Submit,
    SubmitShare,
)
from controller.scheduler import Scheduler


class Enforce(msgspec.Struct, frozen=True, kw_only=True):
    """Send `mods` with a barrier to every switch they touch; then `confirmed(carrier, level)`."""

    carrier: str
    level: Level
    mods: tuple[FlowMod, ...]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    rank: int
    permit: Permit


Action = Enforce | Grant


class DispatchError(ValueError):
    """A worker said something that contradicts what it said before."""


@dataclass(slots=True)
class _Carrier:
    """What carries one flow at a time: a lane, or a rank's side of a process group.

    `taken` numbers the moments at which lanes were given to flows, so that the oldest can be told.
    """

    name: str
    connections: tuple[str, ...]
    ports: tuple[PortId, ...]
    said: Level = Level.CONTROL
    lent: Level | None = None
    taken: int = 0
    in_force: Level = Level.CONTROL
    pending: Level | None = None
    flow: str | None = None
    free_since_wall_ns: int = 0

    @property
    def wanted(self) -> Level:
        """What the scheduler has said, or the level of a more urgent flow that waits for this lane."""
        return self.said if self.lent is None else min(self.said, self.lent)


@dataclass(slots=True)
class _Waiting:
    flow: str
    order: int
    sent_wall_ns: int
    level: Level


@dataclass(slots=True)
class _Pool:
    """The lanes of one pair of ranks for one stage, and the flows that wait for one of them."""

    lanes: list[_Carrier] = field(default_factory=list)
    waiting: dict[str, _Waiting] = field(default_factory=dict)


@dataclass(slots=True)
class _Active:
    rank: int
    pool: tuple[Stage, int, int] | None
    carrier: _Carrier | None = None
    permitted: bool = False
    lane_wait_wall_ns: int = 0


@dataclass(slots=True)
class _Pace:
    """Which layer of a batch of `layers` layers each of its ranks is at; -1 before the first."""

    layers: int
    at: dict[int, int]


@dataclass(slots=True)
class _Group:
    carrier: _Carrier
    peer_ports: dict[int, tuple[PortId, ...]]


class Dispatcher:
    """Owns the lanes and the level in force on each; asks the scheduler, obeys it."""

    def __init__(self, scheduler: Scheduler, rules: RuleBook) -> None:
        self._scheduler = scheduler
        self._rules = rules
        self._pools: dict[tuple[Stage, int, int], _Pool] = {}
        self._groups: dict[tuple[str, int], _Group] = {}
        self._carriers: dict[str, _Carrier] = {}
        self._flows: dict[str, _Active] = {}
        self._orders = 0
        self._takes = 0
        self._batches: dict[str, _Pace] = {}
        self.decisions: list[LoggedDecision] = []
        self.paths: list[LoggedPath] = []

    @property
    def lanes(self) -> int:
        return sum(len(pool.lanes) for pool in self._pools.values())

    @property
    def groups(self) -> int:
        return len(self._groups)

    # --- set-up ---------------------------------------------------------------------------------

    def lane_up(self, message: LaneUp) -> list[FlowMod]:
        """Add a lane to its pool; returns the path rules its connections need."""
        if not message.connections and message.src_server != message.dst_server:
            raise DispatchError(f"lane {message.lane!r} leaves its server, but has no connection to steer")
        mods: list[FlowMod] = []
        names = []
        for i, connection in enumerate(message.connections):
            name = f"{message.lane}#{i}"
            mods += self._rules.add(name, connection, message.src_server, message.dst_server)
            names.append(name)
        ports = ports_of(self._rules.path(names[0])) if names else ()
        lane = self._add_carrier(message.lane, tuple(names), ports)
        self._pools.setdefault((message.stage, message.src, message.dst), _Pool()).lanes.append(lane)
        return mods

    def probe_up(self, message: ProbeUp) -> list[FlowMod]:
        """Rules for a probe's connections, at the level that `fair` gives to every flow."""
        mods: list[FlowMod] = []
        names = [f"{message.name}#{i}" for i in range(len(message.connections))]
        for name, connection in zip(names, message.connections, strict=True):
            mods += self._rules.add(name, connection, message.src_server, message.dst_server)
        return mods + self._rules.set_level(names, Level.P3)

    def group_up(self, message: GroupUp) -> list[FlowMod]:
        """Add one rank's side of a process group; its connections change level together."""
        mods: list[FlowMod] = []
        names: list[str] = []
        peer_ports: dict[int, tuple[PortId, ...]] = {}
        for peer, connections in sorted(message.connections.items()):
            ports: tuple[PortId, ...] = ()
            there = message.peers[peer]
            if not connections and there != message.server:
                raise DispatchError(f"group {message.group!r} has no connection to rank {peer} to steer")
            for i, connection in enumerate(connections):
                name = f"{message.group}:{message.rank}-{peer}#{i}"
                # One path to all peers of a server: which connection is whose cannot be seen from here.
                key = f"{message.group}:{message.rank}-{there}"
                mods += self._rules.add(name, connection, message.server, there, path_key=key)
                names.append(name)
                ports = ports_of(self._rules.path(name))
            peer_ports[peer] = ports
        carrier = self._add_carrier(f"{message.group}:{message.rank}", tuple(names), ())
        self._groups[message.group, message.rank] = _Group(carrier, peer_ports)
        return mods

    def _add_carrier(self, name: str, connections: tuple[str, ...], ports: tuple[PortId, ...]) -> _Carrier:
        if name in self._carriers:
            raise DispatchError(f"{name!r} is registered twice")
        carrier = _Carrier(name=name, connections=connections, ports=ports)
        self._carriers[name] = carrier
        return carrier

    # --- events ---------------------------------------------------------------------------------

    def batch_started(self, now_ns: int, batch: Batch, ranks: Iterable[int]) -> list[Action]:
        self._batches[batch.id] = _Pace(batch.layers, dict.fromkeys(ranks, -1))
        return self._apply(self._scheduler.batch_started(now_ns, batch))

    def layer_advanced(self, now_ns: int, batch: str, rank: int, layer: int) -> list[Action]:
        """A rank begins a layer. The batch is where its slowest rank is.

        Replicas that share no collective run at their own pace: the first one at the end must not
        end the batch for the others.
        """
        pace = self._batches.get(batch)
        if pace is None or rank not in pace.at:
            raise DispatchError(f"rank {rank} reports a layer of batch {batch!r}, which it does not run")
        before = min(pace.at.values())
        pace.at[rank] = layer
        reached = min(pace.at.values())
        if reached == before:
            return []
        if reached == pace.layers:
            del self._batches[batch]
        return self._apply(self._scheduler.layer_advanced(now_ns, batch, reached))

    def progress(self, now_ns: int, flow: str, bytes_left: int) -> list[Action]:
        return self._apply(self._scheduler.progress(now_ns, flow, bytes_left))

    def next_tick_ns(self) -> int | None:
        return self._scheduler.next_tick_ns()

    def tick(self, now_ns: int) -> list[Action]:
        return self._apply(self._scheduler.tick(now_ns))

    def submit(self, now_ns: int, message: Submit) -> list[Action]:
        """A message between two ranks wants to go; it waits here until a lane of its pair is free."""
        self._refuse_twice(message.flow)
        key = (message.stage, message.src, message.dst)
        pool = self._pools.get(key)
        if pool is None:
            raise DispatchError(
                f"flow {message.flow!r}: no lane for {message.stage.value} from rank"
                f" {message.src} to rank {message.dst}"
            )
        self._flows[message.flow] = _Active(rank=message.src, pool=key)
        pool.waiting[message.flow] = _Waiting(
            message.flow, self._orders, message.sent_wall_ns, Level.SCAVENGER
        )
        self._orders += 1
        flow = Flow(
            id=message.flow,
            stage=message.stage,
            size_bytes=message.size_bytes,
            load=self._expected_load(pool.lanes, message.size_bytes),
            batch=message.batch,
            request=message.request,
            layer=message.layer,
            deadline_ns=message.deadline_ns,
            coflow=message.coflow,
            downstream_ns=message.downstream_ns,
        )
        actions = self._apply(self._scheduler.submit(now_ns, flow))
        return actions + self._fill_lanes(now_ns, pool)

    def submit_share(self, now_ns: int, message: SubmitShare) -> list[Action]:
        """One rank's share of a collective wants to start; its process group is its carrier."""
        self._refuse_twice(message.flow)
        group = self._groups.get((message.group, message.rank))
        if group is None:
            raise DispatchError(f"group {message.group!r} has no member rank {message.rank}")
        carrier = group.carrier
        if carrier.flow is not None:
            raise DispatchError(f"{message.flow!r} starts before {carrier.flow!r} has ended")
        load: dict[PortId, int] = {}
        for peer, size in message.peer_bytes.items():
            for port in group.peer_ports[peer]:
                load[port] = load.get(port, 0) + size
        flow = Flow(
            id=message.flow,
            stage=Stage.COLLECTIVE,
            size_bytes=sum(message.peer_bytes.values()),
            load=load,
            batch=message.batch,
            layer=message.layer,
            coflow=message.coflow,
            downstream_ns=message.downstream_ns,
        )
        carrier.flow = message.flow
        self._flows[message.flow] = _Active(rank=message.rank, pool=None, carrier=carrier)
        self.paths.append(LoggedPath(flow=message.flow, lane=carrier.name, ports=tuple(load)))
        return self._apply(self._scheduler.submit(now_ns, flow))

    def completed(self, now_ns: int, wall_ns: int, flow: str) -> list[Action]:
        """The flow has arrived; its lane goes to the most urgent flow that waits for one."""
        active = self._flows.pop(flow, None)
        if active is None or active.carrier is None or not active.permitted:
            raise DispatchError(f"completion of {flow!r}, which was never permitted")
        active.carrier.flow = None
        active.carrier.free_since_wall_ns = wall_ns
        actions = self._apply(self._scheduler.completion(now_ns, flow))
        if active.pool is not None:
            actions += self._fill_lanes(now_ns, self._pools[active.pool])
        return actions

    def confirmed(self, carrier_name: str, level: Level) -> list[Action]:
        """The switches have answered the barrier: `level` is in force on the carrier."""
        carrier = self._carriers[carrier_name]
        carrier.in_force = level
        carrier.pending = None
        return self._settle(carrier)

    def _refuse_twice(self, flow: str) -> None:
        if flow in self._flows:
            raise DispatchError(f"flow {flow!r} is submitted twice")

    # --- inside ---------------------------------------------------------------------------------

    def _apply(self, assignments: Iterable[Assignment]) -> list[Action]:
        actions: list[Action] = []
        reordered: dict[tuple[Stage, int, int], int] = {}
        for assignment in assignments:
            active = self._flows[assignment.flow]
            carrier = active.carrier
            before = assignment.previous if carrier is None or carrier.lent is None else carrier.wanted
            after = assignment.level
            if carrier is not None:
                carrier.said = assignment.level
                after = carrier.wanted
                actions += self._settle(carrier)
            elif active.pool is not None:
                self._pools[active.pool].waiting[assignment.flow].level = assignment.level
                reordered[active.pool] = assignment.time_ns
            if after != before:
                self._log(assignment.time_ns, assignment.flow, before, after, assignment.reason)
        for key, time_ns in reordered.items():
            actions += self._lend(time_ns, self._pools[key])
        return actions

    def _log(self, time_ns: int, flow: str, before: Level | None, after: Level, reason: str) -> None:
        self.decisions.append(
            LoggedDecision(time_ns=time_ns, flow=flow, level_from=before, level_to=after, reason=reason)
        )

    def _lend(self, time_ns: int, pool: _Pool) -> list[Action]:
        """Lend the levels of waiting flows to the lanes they wait for; a lane keeps what it was lent until
        its flow is done."""
        busy = sorted((lane for lane in pool.lanes if lane.flow is not None), key=lambda lane: lane.taken)
        if len(busy) < len(pool.lanes):
            return []  # a lane is free: the flow that comes next takes it
        actions: list[Action] = []
        urgent = heapq.nsmallest(len(busy), pool.waiting.values(), key=lambda w: (w.level, w.order))
        for number, i in loans([lane.wanted for lane in busy], [waiting.level for waiting in urgent]):
            lane, waiting = busy[number], urgent[i]
            reason = f"its lane is needed by {waiting.flow}, which waits at {waiting.level.name}"
            self._log(time_ns, lane.flow or "", lane.wanted, waiting.level, reason)
            lane.lent = waiting.level
            actions += self._settle(lane)
        return actions

    def _fill_lanes(self, now_ns: int, pool: _Pool) -> list[Action]:
        """Give free lanes to waiting flows, most urgent level first, then first come first served.

        A lane that already has the flow's level is preferred: it needs no rule change.
        """
        actions: list[Action] = []
        while pool.waiting:
            free = [lane for lane in pool.lanes if lane.flow is None]
            if not free:
                break
            chosen = min(pool.waiting.values(), key=lambda w: (w.level, w.order))
            del pool.waiting[chosen.flow]
            lane = next((lane for lane in free if lane.in_force == chosen.level), free[0])
            active = self._flows[chosen.flow]
            active.carrier = lane
            # Waiting for a lane ends when the lane was free; what follows is permit latency.
            active.lane_wait_wall_ns = max(0, lane.free_since_wall_ns - chosen.sent_wall_ns)
            lane.flow = chosen.flow
            lane.said, lane.lent = chosen.level, None
            lane.taken = self._takes
            self._takes += 1
            self.paths.append(LoggedPath(flow=chosen.flow, lane=lane.name, ports=lane.ports))
            actions += self._settle(lane)
        return actions + self._lend(now_ns, pool)

    def _settle(self, carrier: _Carrier) -> list[Action]:
        """Bring the level in force to the wanted one; permit the flow once they are the same.

        While a level is on its way to the switches no other is sent after it: the next one follows
        the confirmation, so rules of one carrier never overtake each other.
        """
        actions: list[Action] = []
        if carrier.pending is None and carrier.in_force != carrier.wanted:
            if carrier.connections:
                carrier.pending = carrier.wanted
                mods = self._rules.set_level(carrier.connections, carrier.wanted)
                actions.append(Enforce(carrier=carrier.name, level=carrier.wanted, mods=tuple(mods)))
            else:
                carrier.in_force = carrier.wanted  # nothing between two ranks of one server
        if carrier.flow is not None and carrier.pending is None:
            active = self._flows[carrier.flow]
            if not active.permitted:
                active.permitted = True
                actions.append(
                    Grant(
                        rank=active.rank,
                        permit=Permit(
                            flow=carrier.flow,
                            lane="" if active.pool is None else carrier.name,
                            level=carrier.in_force,
                            lane_wait_wall_ns=active.lane_wait_wall_ns,
                        ),
                    )
                )
        return actions

    @staticmethod
    def _expected_load(lanes: list[_Carrier], size_bytes: int) -> dict[PortId, int]:
        """Bytes per port before the lane is chosen: ports all lanes cross get everything, others a share."""
        load: dict[PortId, float] = {}
        for lane in lanes:
            for port in lane.ports:
                load[port] = load.get(port, 0.0) + size_bytes / len(lanes)
        return {port: round(share) for port, share in load.items()}

"""Turns the scheduler's assignments into levels that are in force, and into permits. Pure.

Events go in (`submit`, `completed`, `confirmed`, ...), actions come out: `Enforce` (put this level in
force on a lane's connections, then call `confirmed`) and `Grant` (send this permit). A flow gets its permit
only when it has a lane (`controller.lanes`) *and* its level is confirmed on the lane's connections.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from controller.admission import Admission, Orders
from controller.ecmp import connection_key, member_key
from controller.flow import Batch, Decision, Flow, Level, PortId, Stage
from controller.lanes import Claim, Lane, LaneError, LanePool, load_of
from controller.openflow import ports_of
from controller.pace import Pace
from controller.protocol import (
    GroupUp,
    LaneUp,
    Logged,
    LoggedPath,
    Permit,
    ProbeUp,
    Submit,
    SubmitShare,
    TcpConnection,
)
from controller.scheduler import Scheduler

M = TypeVar("M")
"""A change that puts a level in force: of a switch's rules, or of a connection's mark."""


class Steering(Protocol[M]):
    """The book of all connections: where each goes, and what its level is. Pure; returns the changes.

    `controller.openflow.RuleBook` is one, for switches that are told, and `controller.marks.MarkBook`
    another, for ends that mark.
    """

    def add(
        self,
        name: str,
        connection: TcpConnection,
        src: str,
        dst: str,
        *,
        rank: int,
        path_key: str | None = None,
    ) -> list[M]:
        """Steer a new connection, on which `rank` on server `src` sends. It is at CONTROL until `set_level`.

        `path_key` is hashed for its path; by default, its `name` is.
        """
        ...

    def set_level(self, names: Iterable[str], level: Level) -> list[M]:
        """One change per connection whose level differs from `level`."""
        ...

    def path(self, name: str) -> tuple[str, ...]: ...


class Enforce(msgspec.Struct, Generic[M], frozen=True, kw_only=True):
    """Send `mods` to whatever they change. When all of it has confirmed them, call `confirmed`."""

    lane: str
    level: Level
    mods: tuple[M, ...]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    rank: int
    permit: Permit


Action = Enforce[M] | Grant


class DispatchError(LaneError):
    """A worker's message does not fit the earlier ones, such as one that names an unknown batch."""


class _Lane(Lane["_Claim"]):
    """A lane, or a rank's side of a process group, and the names of its connections in the rule book.

    `pending` is the level that has been sent to the switches and is not confirmed yet.
    """

    __slots__ = ("connections", "free_since_wall_ns", "pending")

    def __init__(self, name: str, connections: tuple[str, ...], ports: tuple[PortId, ...]) -> None:
        super().__init__(name, ports)
        self.connections = connections
        self.pending: Level | None = None
        self.free_since_wall_ns = 0


class _Claim(Claim[_Lane]):
    """A flow that rank `rank` submitted at `sent_wall_ns`."""

    __slots__ = ("lane_wait_wall_ns", "permitted", "rank", "sent_wall_ns")

    def __init__(self, id: str, rank: int, sent_wall_ns: int) -> None:
        super().__init__(id)
        self.rank = rank
        self.sent_wall_ns = sent_wall_ns
        self.lane_wait_wall_ns = 0
        self.permitted = False


_Pool = LanePool[_Lane, _Claim]


@dataclass(frozen=True, slots=True)
class _Group:
    """A rank's side of a process group, and the ports of the path to each peer rank."""

    lane: _Lane
    peer_ports: dict[int, tuple[PortId, ...]]


@dataclass(frozen=True, slots=True)
class _Running:
    layers: int
    pace: Pace


class Dispatcher(Generic[M]):
    """Passes events to the scheduler and enforces its assignments on the lanes."""

    def __init__(self, scheduler: Scheduler, rules: Steering[M]) -> None:
        self.decisions: list[Decision] = []
        self._admission: Admission[_Claim] = Admission(scheduler, self.decisions.append)
        self._rules = rules
        self._pools: dict[tuple[Stage, int, int], _Pool] = {}
        self._groups: dict[tuple[str, int], _Group] = {}
        self._lanes: dict[str, _Lane] = {}
        self._batches: dict[str, _Running] = {}
        self.paths: list[LoggedPath] = []
        self._ended: list[str] = []

    @property
    def lanes(self) -> int:
        return sum(len(pool.lanes) for pool in self._pools.values())

    @property
    def groups(self) -> int:
        return len(self._groups)

    def waiting(self) -> tuple[int, ...]:
        """How many flows wait for a lane, by the level that they want."""
        counts = [0] * len(Level)
        for pool in self._pools.values():
            for claim in pool.waiting:
                counts[claim.wanted] += 1
        return tuple(counts)

    def on_lanes(self) -> tuple[tuple[int, ...], int]:
        """How many flows send, by level, and how many have a lane whose level is not in force yet."""
        counts, changing = [0] * len(Level), 0
        for lane in self._lanes.values():
            if lane.claim is None:
                continue
            if lane.claim.permitted:
                counts[lane.level if lane.level is not None else lane.claim.wanted] += 1
            else:
                changing += 1
        return tuple(counts), changing

    def sending(self) -> list[LoggedPath]:
        """The flows that have their permits and have not arrived, with the ports that they cross."""
        shares = {group.lane.name: group.peer_ports.values() for group in self._groups.values()}
        return [
            LoggedPath(
                flow=lane.claim.id,
                ports=tuple(dict.fromkeys(itertools.chain(lane.ports, *shares.get(name, ())))),
            )
            for name, lane in self._lanes.items()
            if lane.claim is not None and lane.claim.permitted
        ]

    def logged(self) -> Logged:
        """Return the decisions, paths and ends of flows since the last call, and forget them."""
        made = Logged(decisions=tuple(self.decisions), paths=tuple(self.paths), ended=tuple(self._ended))
        for rows in (self.decisions, self.paths, self._ended):
            rows.clear()
        return made

    # --- set-up ---------------------------------------------------------------------------------

    def lane_up(self, message: LaneUp) -> list[M]:
        """Add a lane to its pool. Returns the path rules that its connections need."""
        if not message.connections and message.src_server != message.dst_server:
            raise DispatchError(f"lane {message.lane!r} leaves its server, but has no connection to steer")
        mods: list[M] = []
        names = []
        for i, connection in enumerate(message.connections):
            name = connection_key(message.lane, i)
            mods += self._rules.add(
                name, connection, message.src_server, message.dst_server, rank=message.src
            )
            names.append(name)
        ports = ports_of(self._rules.path(names[0])) if names else ()
        lane = self._add_lane(message.lane, tuple(names), ports)
        self._pools.setdefault((message.stage, message.src, message.dst), LanePool()).add(lane)
        return mods

    def probe_up(self, message: ProbeUp) -> list[M]:
        """Returns the rules of a probe's connections, at the level that `fair` gives to every flow."""
        mods: list[M] = []
        names = [f"{message.name}#{i}" for i in range(len(message.connections))]
        for name, connection in zip(names, message.connections, strict=True):
            mods += self._rules.add(
                name, connection, message.src_server, message.dst_server, rank=message.src
            )
        return mods + self._rules.set_level(names, Level.P3)

    def group_up(self, message: GroupUp) -> list[M]:
        """Add a rank's side of a process group. Returns the path rules that its connections need.

        These connections change level together.
        """
        mods: list[M] = []
        names: list[str] = []
        peer_ports: dict[int, tuple[PortId, ...]] = {}
        for peer, connections in sorted(message.connections.items()):
            ports: tuple[PortId, ...] = ()
            there = message.peers[peer]
            if not connections and there != message.server:
                raise DispatchError(f"group {message.group!r} has no connection to rank {peer} to steer")
            for i, connection in enumerate(connections):
                name = f"{message.group}:{message.rank}-{peer}#{i}"
                # All peers on a server share a path: which connection is which peer's is not known here.
                key = member_key(message.group, message.rank, there)
                mods += self._rules.add(
                    name, connection, message.server, there, rank=message.rank, path_key=key
                )
                names.append(name)
                ports = ports_of(self._rules.path(name))
            peer_ports[peer] = ports
        lane = self._add_lane(f"{message.group}:{message.rank}", tuple(names), ())
        self._groups[message.group, message.rank] = _Group(lane, peer_ports)
        return mods

    def _add_lane(self, name: str, connections: tuple[str, ...], ports: tuple[PortId, ...]) -> _Lane:
        if name in self._lanes:
            raise DispatchError(f"{name!r} is registered twice")
        lane = self._lanes[name] = _Lane(name, connections, ports)
        return lane

    # --- events ---------------------------------------------------------------------------------

    def batch_started(self, now_ns: int, batch: Batch, ranks: Iterable[int]) -> list[Action[M]]:
        self._batches[batch.id] = _Running(batch.layers, Pace(ranks))
        return self._move(self._admission.batch_started(now_ns, batch))

    def layer_advanced(self, now_ns: int, batch: str, rank: int, layer: int) -> list[Action[M]]:
        """A rank begins a layer. The scheduler is told when the whole batch reaches a layer (`Pace`)."""
        running = self._batches.get(batch)
        if running is None or rank not in running.pace:
            raise DispatchError(f"rank {rank} reports a layer of batch {batch!r}, which it does not run")
        reached = running.pace.begins(rank, layer)
        if reached is None:
            return []
        if reached == running.layers:
            del self._batches[batch]
        return self._move(self._admission.layer_advanced(now_ns, batch, reached))

    def progress(self, now_ns: int, flow: str, bytes_left: int) -> list[Action[M]]:
        return self._move(self._admission.progress(now_ns, flow, bytes_left))

    def next_tick_ns(self) -> int | None:
        return self._admission.next_tick_ns()

    def tick(self, now_ns: int) -> list[Action[M]]:
        return self._move(self._admission.tick(now_ns))

    def submit(self, now_ns: int, message: Submit) -> list[Action[M]]:
        """A transfer between two ranks wants to start. It waits until a lane of its pool is free."""
        transfer = message.transfer
        pool = self._pools.get((transfer.stage, transfer.src, transfer.dst))
        if pool is None:
            raise DispatchError(
                f"flow {transfer.id!r}: no lane for {transfer.stage.value} from rank"
                f" {transfer.src} to rank {transfer.dst}"
            )
        claim = _Claim(transfer.id, transfer.src, message.sent_wall_ns)
        flow = Flow.of(transfer, pool.load(transfer.size_bytes))
        return self._carry_out(self._admission.submit(now_ns, claim, pool, flow))

    def submit_share(self, now_ns: int, message: SubmitShare) -> list[Action[M]]:
        """A rank's share of a collective wants to start. Its lane is the rank's side of the group."""
        share = message.share
        group = self._groups.get((message.group, share.src))
        if group is None:
            raise DispatchError(f"group {message.group!r} has no member rank {share.src}")
        claim = _Claim(share.id, share.src, message.sent_wall_ns)
        load = load_of(message.peer_bytes, group.peer_ports)
        moved = self._admission.submit_on(now_ns, claim, group.lane, Flow.of(share, load))
        self.paths.append(LoggedPath(flow=share.id, ports=tuple(load), sizes=tuple(load.values())))
        return self._move(moved)

    def completed(self, now_ns: int, wall_ns: int, flow: str) -> list[Action[M]]:
        """The flow has arrived. Its lane goes to the most urgent flow that waits for one."""
        claim = self._admission.claim(flow)
        if not claim.permitted or claim.lane is None:
            raise DispatchError(f"completion of {flow!r}, which was never permitted")
        claim.lane.free_since_wall_ns = wall_ns
        self._ended.append(flow)
        return self._carry_out(self._admission.complete(now_ns, flow))

    def confirmed(self, lane_name: str, level: Level) -> list[Action[M]]:
        """All barriers have been answered: `level` is in force on the lane."""
        lane = self._lanes[lane_name]
        lane.level = level
        lane.pending = None
        return self._settle(lane)

    # --- inside ---------------------------------------------------------------------------------

    def _carry_out(self, orders: Orders[_Claim]) -> list[Action[M]]:
        return [*self._move(orders.moved), *self._start(orders.granted), *self._move(orders.lent)]

    def _start(self, claims: Iterable[_Claim]) -> list[Action[M]]:
        """Settle lanes that flows have just got."""
        actions: list[Action[M]] = []
        for claim in claims:
            lane = claim.lane
            assert lane is not None
            # The wait for a lane ends when the lane becomes free. What follows is permit latency.
            claim.lane_wait_wall_ns = max(0, lane.free_since_wall_ns - claim.sent_wall_ns)
            self.paths.append(LoggedPath(flow=claim.id, ports=lane.ports))
            actions += self._settle(lane)
        return actions

    def _move(self, claims: Iterable[_Claim]) -> list[Action[M]]:
        return [action for claim in claims if claim.lane is not None for action in self._settle(claim.lane)]

    def _settle(self, lane: _Lane) -> list[Action[M]]:
        """Enforce the level that the lane's flow wants, or permit the flow if that level is in force.

        While a level is on its way to the switches, no other is sent. The next one follows the
        confirmation, so the rules of one lane never overtake each other.
        """
        claim = lane.claim
        if claim is None or lane.pending is not None:
            return []
        actions: list[Action[M]] = []
        if lane.level != claim.wanted:
            if mods := self._rules.set_level(lane.connections, claim.wanted):
                lane.pending = claim.wanted
                return [Enforce(lane=lane.name, level=claim.wanted, mods=tuple(mods))]
            lane.level = claim.wanted  # as between two ranks of one server, where no packet has a level
        if not claim.permitted:
            claim.permitted = True
            permit = Permit(
                flow=claim.id,
                lane="" if claim.pool is None else lane.name,
                level=lane.level,
                lane_wait_wall_ns=claim.lane_wait_wall_ns,
            )
            actions.append(Grant(rank=claim.rank, permit=permit))
        return actions

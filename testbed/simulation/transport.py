"""Between what ranks send and the fluid network: lanes, levels, completions.

Does what the emulated fabric's dispatcher and lanes do, without the time they take: a flow waits for
a lane of its pair of ranks, the most urgent first; a lane that a more urgent flow waits for is lent
its level; a share of a collective has a connection to each peer.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from controller.ecmp import pick
from controller.flow import Assignment, Flow, Level, PortId, Stage, coflow_of
from controller.lending import loans
from controller.scheduler import Scheduler
from testbed.job import Job
from testbed.record import DecisionRow, FlowRow
from testbed.simulation.clock import Agenda
from testbed.simulation.network import FluidNetwork, Place, Stream
from testbed.topology import server_ip
from workers.plan import Collective, Transfer

Done = Callable[[], None]
Arrived = Callable[[int], None]
_Pair = tuple[Stage, int, int]


@dataclass(slots=True, eq=False)
class _Route:
    """A connection of a flow: its path and the bytes that take it."""

    path: tuple[PortId, ...]
    size: int
    arrived: Done | None = None


@dataclass(slots=True, eq=False)
class _Lane:
    path: tuple[PortId, ...]
    flow: "_Sending | None" = None
    taken: int = 0


@dataclass(slots=True, eq=False)
class _Pool:
    """The lanes of a pair of ranks for a stage. Without `bounded` there are always more of them."""

    lanes: list[_Lane]
    bounded: bool
    waiting: dict[str, "_Sending"] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Sending:
    """A flow on its way. `under_way` counts the connections whose last byte has not arrived."""

    flow: Flow
    src: int
    dst: int
    submit_ns: int
    done: Done
    pool: _Pool | None
    routes: list[_Route]
    order: float = 0.0
    rate_bps: int | None = None
    level: Level = Level.SCAVENGER
    lent: Level | None = None
    permit_ns: int | None = None
    streams: list[Stream] = field(default_factory=list)
    under_way: int = 0
    path: tuple[PortId, ...] = ()
    said: list[Level] = field(default_factory=list)

    @property
    def wanted(self) -> Level:
        return self.level if self.lent is None else min(self.level, self.lent)

    @property
    def place(self) -> Place:
        return self.wanted, self.order


class Transport:
    """Carries the flows of `job` over `network` as `scheduler` says."""

    def __init__(self, job: Job, scheduler: Scheduler, network: FluidNetwork, agenda: Agenda) -> None:
        self._job = job
        self._scheduler = scheduler
        self._network = network
        self._agenda = agenda
        self._ip = {name: server_ip(i) for i, name in enumerate(job.topology.servers)}
        self._lane_counts = _lanes_of_micro(job)
        self._pools: dict[_Pair, _Pool] = {}
        self._sending: dict[str, _Sending] = {}
        self._owner: dict[int, tuple[_Sending, _Route]] = {}
        self._takes = itertools.count()
        self.carried: dict[PortId, int] = dict.fromkeys((link.id for link in job.topology.links), 0)
        self.flows: list[FlowRow] = []
        self.decisions: list[DecisionRow] = []

    # --- from the ranks -------------------------------------------------------------------------

    def post(self, transfer: Transfer, done: Done) -> None:
        """Send `transfer`; `done` is called when its last byte has arrived."""
        pool = self._pool(transfer.stage, transfer.src, transfer.dst)
        load: dict[PortId, int] = {}
        for lane in pool.lanes:
            for port in lane.path:
                load[port] = load.get(port, 0) + transfer.size_bytes
        flow = Flow(
            id=transfer.id,
            stage=transfer.stage,
            size_bytes=transfer.size_bytes,
            load={port: size // len(pool.lanes) for port, size in load.items()},
            batch=transfer.batch,
            request=None if transfer.request is None else str(transfer.request),
            layer=transfer.layer,
            coflow=coflow_of(transfer.batch, transfer.layer, transfer.stage),
            deadline_ns=transfer.deadline_ns,
            downstream_ns=transfer.downstream_ns,
        )
        sending = _Sending(flow, transfer.src, transfer.dst, self._agenda.now_ns, done, pool, [])
        self._sending[flow.id] = pool.waiting[flow.id] = sending
        self.obey(self._scheduler.submit(self._agenda.now_ns, flow))
        self._fill(pool)

    def share(
        self, step: Collective, index: int, batch: str, layer: int, *, arrived: Arrived | None, done: Done
    ) -> None:
        """Send what member `index` of the group of `step` sends to its peers.

        `arrived` is called with the index of each peer that has all it gets from this member, those
        that get nothing included; `done` after the last of them.
        """
        members = self._job.placement.groups[step.group]

        def route(peer: int, size: int) -> _Route:
            path = self._path(members[index], members[peer], f"{step.group}:{members[index]}")
            return _Route(path, size, None if arrived is None else partial(arrived, peer))

        routes = [route(peer, size) for peer, size in step.sent_by(index, len(members)).items()]
        load: dict[PortId, int] = {}
        for one in routes:
            for port in one.path:
                load[port] = load.get(port, 0) + one.size
        flow = Flow(
            id=f"{step.id}.{index}",
            stage=Stage.COLLECTIVE,
            size_bytes=sum(one.size for one in routes),
            load=load,
            batch=batch,
            layer=layer,
            coflow=step.id,
            downstream_ns=step.downstream_ns,
        )
        sending = _Sending(flow, members[index], -1, self._agenda.now_ns, done, None, routes)
        sending.path = tuple(load)
        self._sending[flow.id] = sending
        self.obey(self._scheduler.submit(self._agenda.now_ns, flow))
        self._permit(sending)

    # --- from the network and the scheduler -----------------------------------------------------

    def finished(self, streams: Sequence[Stream]) -> None:
        """These have ended; flows of which none is left are complete."""
        for stream in streams:
            sending, route = self._owner.pop(stream.serial)
            sending.streams.remove(stream)
            self._through(sending, route)

    def report_progress(self) -> None:
        """Tell the scheduler how much is left of every flow that moves."""
        now_ns = self._agenda.now_ns
        for sending in list(self._sending.values()):
            if sending.streams:
                # Upwards: a pace worked out from a byte too few would end after the deadline.
                left = math.ceil(sum(stream.left_at(now_ns) for stream in sending.streams))
                self.obey(
                    self._scheduler.progress(now_ns, sending.flow.id, min(left, sending.flow.size_bytes))
                )

    def obey(self, assignments: Sequence[Assignment]) -> None:
        crowded: dict[int, _Pool] = {}
        for said in assignments:
            sending = self._sending[said.flow]
            before = sending.wanted if sending.said else None
            sending.level, sending.order, sending.rate_bps = said.level, said.order, said.rate_bps
            if sending.wanted != before:
                self._log(sending, before, said.reason)
            self._move(sending)
            if sending.pool is not None and sending.permit_ns is None:
                crowded[id(sending.pool)] = sending.pool
        for pool in crowded.values():
            self._lend(pool)

    # --- inside ---------------------------------------------------------------------------------

    def _pool(self, stage: Stage, src: int, dst: int) -> _Pool:
        key = (stage, src, dst)
        if key not in self._pools:
            workers = self._job.workers
            usual = workers.lanes_s1 if stage is Stage.KV_REUSE else workers.lanes_s3
            count = self._lane_counts.get(key, usual)
            names = [f"{stage.value}.{src}-{dst}.{i}" for i in range(count)]
            lanes = [_Lane(self._path(src, dst, name)) for name in names]
            self._pools[key] = _Pool(lanes, self._job.simulation.lanes)
        return self._pools[key]

    def _path(self, src: int, dst: int, key: str) -> tuple[PortId, ...]:
        server_of = self._job.placement.server_of
        a, b = server_of(src), server_of(dst)
        paths = self._job.topology.paths(a, b)
        return pick(paths, seed=self._job.seed, src_ip=self._ip[a], dst_ip=self._ip[b], key=key)

    def _fill(self, pool: _Pool) -> None:
        while pool.waiting:
            lane = next((lane for lane in pool.lanes if lane.flow is None), None)
            if lane is None and pool.bounded:
                break
            if lane is None:
                lane = _Lane(pool.lanes[next(self._takes) % len(pool.lanes)].path)
            sending = min(pool.waiting.values(), key=lambda sending: sending.place)
            del pool.waiting[sending.flow.id]
            lane.flow, lane.taken = sending, next(self._takes)
            sending.path = lane.path
            sending.routes = [_Route(lane.path, sending.flow.size_bytes)]
            self._permit(sending)
        self._lend(pool)

    def _lend(self, pool: _Pool) -> None:
        if not pool.waiting:
            return
        lanes = sorted((lane for lane in pool.lanes if lane.flow is not None), key=lambda lane: lane.taken)
        if len(lanes) < len(pool.lanes):
            return
        busy = [lane.flow for lane in lanes if lane.flow is not None]
        urgent = heapq.nsmallest(len(busy), pool.waiting.values(), key=lambda sending: sending.place)
        for number, i in loans([flow.wanted for flow in busy], [flow.level for flow in urgent]):
            holder, waiting = busy[number], urgent[i]
            before, holder.lent = holder.wanted, waiting.level
            reason = f"its lane is needed by {waiting.flow.id}, which waits at {waiting.level.name}"
            self._log(holder, before, reason)
            self._move(holder)

    def _permit(self, sending: _Sending) -> None:
        now_ns = self._agenda.now_ns
        sending.permit_ns = now_ns
        cap = _cap(sending)
        sending.under_way = len(sending.routes)
        for route in sending.routes:
            if route.path and route.size > 0:
                for port in route.path:
                    self.carried[port] += route.size
                ports = self._network.ports(route.path)
                stream = self._network.add(now_ns, ports, route.size, sending.place, cap)
                sending.streams.append(stream)
                self._owner[stream.serial] = sending, route
            else:  # nothing to send, or it stays on the server
                self._agenda.at(now_ns, partial(self._through, sending, route))
        if not sending.routes:
            self._agenda.at(now_ns, partial(self._complete, sending))

    def _through(self, sending: _Sending, route: _Route) -> None:
        sending.under_way -= 1
        if route.arrived is not None:
            route.arrived()
        if sending.under_way == 0:
            self._complete(sending)

    def _move(self, sending: _Sending) -> None:
        cap = _cap(sending)
        for stream in sending.streams:
            self._network.move(self._agenda.now_ns, stream, sending.place, cap)

    def _complete(self, sending: _Sending) -> None:
        now_ns = self._agenda.now_ns
        flow = sending.flow
        del self._sending[flow.id]
        self.flows.append(self._row(sending))
        self.obey(self._scheduler.completion(now_ns, flow.id))
        if sending.pool is not None:
            for lane in sending.pool.lanes:
                if lane.flow is sending:
                    lane.flow = None
            self._fill(sending.pool)
        sending.done()

    def _log(self, sending: _Sending, before: Level | None, reason: str) -> None:
        sending.said.append(sending.wanted)
        self.decisions.append(
            DecisionRow(
                time_ns=self._agenda.now_ns,
                flow=sending.flow.id,
                level_from=before,
                level_to=sending.wanted,
                reason=reason,
            )
        )

    def _row(self, sending: _Sending) -> FlowRow:
        flow, server_of = sending.flow, self._job.placement.server_of
        permit_ns = self._agenda.now_ns if sending.permit_ns is None else sending.permit_ns
        return FlowRow(
            id=flow.id,
            stage=flow.stage,
            src=sending.src,
            dst=sending.dst,
            src_server=server_of(sending.src),
            dst_server=None if sending.dst < 0 else server_of(sending.dst),
            size_bytes=flow.size_bytes,
            batch=flow.batch,
            request=None if flow.request is None else int(flow.request),
            layer=flow.layer,
            coflow=flow.coflow,
            deadline_ns=flow.deadline_ns,
            submit_ns=sending.submit_ns,
            permit_ns=permit_ns,
            lane_wait_ns=permit_ns - sending.submit_ns,
            finish_ns=self._agenda.now_ns,
            level_first=sending.said[0],
            level_last=sending.said[-1],
            promotions=sum(b < a for a, b in itertools.pairwise(sending.said)),
            path=sending.path,
            verified=None,
        )


def _cap(sending: _Sending) -> float | None:
    """A pace is for the flow; its connections get an even part of it."""
    if sending.rate_bps is None:
        return None
    return sending.rate_bps / 8e9 / max(1, sum(route.size > 0 for route in sending.routes))


def _lanes_of_micro(job: Job) -> dict[_Pair, int]:
    """As many as there are micro flows of a pair and stage, so that none waits for another."""
    counts: dict[_Pair, int] = {}
    for micro in job.flows:
        key = (micro.transfer.stage, micro.transfer.src, micro.transfer.dst)
        counts[key] = counts.get(key, 0) + 1
    return counts

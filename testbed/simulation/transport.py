"""Between what ranks send and the fluid network: lanes, levels, completions.

Does what the emulated fabric's dispatcher and lanes do, without the time they take: a flow waits for
a lane of its pair of ranks, the most urgent first; a lane that a more urgent flow waits for is lent
its level; a share of a collective has a connection to each peer.
"""

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

from controller.flow import Assignment, Flow, Level, PortId, Stage
from controller.lending import loans
from controller.scheduler import Scheduler
from testbed.job import Job
from testbed.record import DecisionRow, FlowRow
from testbed.simulation.agenda import Agenda
from testbed.simulation.collectives import Messages, Send
from testbed.simulation.connections import Connections, Route
from testbed.simulation.invariants import Invariants
from testbed.simulation.links.network import FluidNetwork, StreamId
from testbed.simulation.overheads import Bursts, all_to_all_caps, connections_beside
from testbed.simulation.sending import (
    Arrived,
    Done,
    Lane,
    Message,
    Pool,
    Sending,
    submission,
    taken_at,
    urgency,
)
from testbed.simulation.shares import Shares, share_flow
from testbed.spool import Spool
from workers.plan import Collective, CollectiveKind, Transfer

_Pair = tuple[Stage, int, int]


class Transport:
    """Carries the flows of `job` over `network` as `scheduler` says."""

    def __init__(
        self,
        job: Job,
        scheduler: Scheduler,
        network: FluidNetwork,
        agenda: Agenda,
        invariants: Invariants,
    ) -> None:
        self._job = job
        self._scheduler = scheduler
        self._network = network
        self._agenda = agenda
        self._invariants = invariants
        self._connections = Connections(job, network, self._busy_s)
        self._lane_counts = _lanes_of_micro(job)
        self._pools: dict[_Pair, Pool] = {}
        self._sending: dict[str, Sending] = {}
        self._owner: dict[StreamId, Sending] = {}
        self._takes = itertools.count()
        self._shares = Shares(job.placement.groups, self._connections)
        self._grouped: dict[PortId, int] = {}
        self._overheads = job.simulation.overheads
        self._group_levels: dict[tuple[str, int], Level] = {}
        self._bursts = Bursts(network, self._overheads.burst_bytes)
        self.submitted = 0
        self.messages = 0
        self.flows: Spool[FlowRow] = Spool(FlowRow)
        self.decisions: Spool[DecisionRow] = Spool(DecisionRow)

    def carried(self) -> dict[PortId, float]:
        """The bytes that flows had for each port so far."""
        total: dict[PortId, float] = dict.fromkeys(self._network.names, 0.0)
        for route in self._connections.routes():
            for port in route.names:
                total[port] += route.carried
        for port, size in self._grouped.items():
            total[port] += size
        return total

    # --- from the ranks -------------------------------------------------------------------------

    def post(self, transfer: Transfer, done: Done) -> None:
        """Send `transfer`; `done` is called when its last byte has arrived."""
        pool = self._pool(transfer.stage, transfer.src, transfer.dst)
        route, load = None, None
        if self._connections.by_flow:
            route = self._connections.of_flow(
                transfer.id, transfer.stage, transfer.src, transfer.dst, transfer.size_bytes
            )
            load = dict.fromkeys(route.path, transfer.size_bytes)
        flow = Flow(
            id=transfer.id,
            stage=transfer.stage,
            size_bytes=transfer.size_bytes,
            load=pool.load(transfer.size_bytes) if load is None else load,
            batch=transfer.batch,
            request=None if transfer.request is None else str(transfer.request),
            layer=transfer.layer,
            coflow=transfer.belongs_to,
            deadline_ns=transfer.deadline_ns,
            downstream_ns=transfer.downstream_ns,
        )
        sending = Sending(flow, transfer.src, transfer.dst, self._agenda.now_ns, done)
        sending.pool = pool
        if route is not None:
            sending.routes = {transfer.dst: route}
        sending.number = self.submitted
        self.submitted += 1
        self._sending[flow.id] = pool.waiting[flow.id] = sending
        self.obey(self._scheduler.submit(self._agenda.now_ns, flow))
        self._fill(pool)

    def open_share(
        self, step: Collective, index: int, batch: str, layer: int, total: Mapping[int, int], done: Done
    ) -> Send:
        """Submit what member `index` of the group of `step` sends, `total[peer]` bytes to each peer.

        It is sent with what is returned, in as many rounds as the caller likes; `done` is called when the
        last byte has arrived. Nothing is called back before this has returned. `total` is the same
        object as long as it is equal.
        """
        members = self._job.placement.groups[step.group]
        name = f"{step.id}.{index}"
        known = self._shares.of_member(name, step, index, total)
        flow = share_flow(name, step, batch, layer, known.size, known.load)
        sending = self._submit(flow, members[index], known.path, done)
        routes = sending.routes = known.routes
        before = self._group_levels.get((step.group, index), Level.CONTROL)
        self._permit(sending, before)
        sending.after_ns = sending.then_ns = self._overheads.collective_ns
        if step.kind is not CollectiveKind.ALL_TO_ALL:
            sending.then_ns = self._overheads.round_ns
        self._group_levels[step.group, index] = sending.wanted
        if self._bursts.burst_bytes or self._overheads.all_to_all_goodput < 1:
            sending.beside = connections_beside(step, index)
        if self._overheads.all_to_all_goodput < 1:
            sending.caps = all_to_all_caps(sending.beside, routes, self._overheads.all_to_all_goodput)
        if sending.owed == 0:
            self._agenda.at(_permitted_ns(sending) + sending.after_ns, partial(self._complete, sending))
        return partial(self.send, sending)

    def open_group(self, step: Collective, batch: str, layer: int, done: Done) -> None:
        """Send what all members of the group of `step` send as one flow, its connections in lockstep.

        Of the connections that cross a port each counts by its bytes over those of the largest. Nothing
        is called back before this has returned.
        """
        members = self._job.placement.groups[step.group]
        load, size, largest = self._shares.of_group(step)
        flow = share_flow(step.id, step, batch, layer, size, load)
        sending = self._submit(flow, members[0], tuple(load), done)
        sending.unsent = 0
        self._permit(sending, self._group_levels.get((step.group, 0), Level.CONTROL))
        self._group_levels[step.group, 0] = sending.wanted
        further = step.rounds(len(members)).count - 1
        sending.after_ns = self._overheads.collective_ns + further * self._overheads.round_ns
        permit_ns = _permitted_ns(sending)
        if largest == 0:  # it stays on the server
            self._agenda.at(permit_ns + sending.after_ns, partial(self._complete, sending))
        elif permit_ns > self._agenda.now_ns:
            self._agenda.at(permit_ns, partial(self._begin_group, sending, load, size, largest))
        else:
            self._begin_group(sending, load, size, largest)

    def _begin_group(self, sending: Sending, load: Mapping[PortId, int], size: int, largest: int) -> None:
        ports = [(port, sent) for port, sent in load.items() if sent > 0]
        for port, sent in ports:
            self._grouped[port] = self._grouped.get(port, 0) + sent
        stream = self._network.add(
            self._network.ports(port for port, _ in ports),
            largest,
            sending.place,
            sending.bounds(-1),
            [sent / largest for _, sent in ports],
        )
        self.messages += 1
        sending.streams[stream] = -1, size, None, sending.after_ns
        sending.in_step = size / largest
        self._owner[stream] = sending

    def send(self, sending: Sending, messages: Messages, arrived: Arrived | None) -> None:
        """Hand over bytes of a flow for peers of its routes."""
        now_ns = self._agenda.now_ns
        if sending.permit_ns is not None and sending.permit_ns > now_ns:
            self._agenda.at(sending.permit_ns, partial(self.send, sending, messages, arrived))
            return
        routes, streams, place = sending.routes, sending.streams, sending.place
        free = sending.rate_bps is None and not sending.caps
        after_ns, sending.after_ns = sending.after_ns, sending.then_ns
        first = sending.unsent == sending.flow.size_bytes
        for peer, size in messages:
            route = routes[peer]
            message = peer, size, arrived, after_ns
            sending.unsent -= size
            if size > 0 and route.ports:
                self.messages += 1
                over: float = size
                if self._bursts.burst_bytes:
                    sharing = max(sending.beside.get(peer, (1, 1))) if first or sending.beside else 0
                    over -= self._passed(route, size, sharing)
                route.carried += over
                cap = None if free else sending.bounds(peer)
                stream = self._network.add(route.ports, over, place, cap)
                streams[stream] = message
                self._owner[stream] = sending
            else:  # nothing to send, or it stays on the server
                self.messages += size > 0
                self._agenda.at(now_ns + after_ns, partial(self._through, sending, message))
        if sending.rate_bps is not None:
            self._move(sending)  # the pace is now for more streams

    # --- from the network and the scheduler -----------------------------------------------------

    def finished(self, streams: Sequence[StreamId]) -> None:
        """These have ended; flows of which none is left are complete."""
        now_ns = self._agenda.now_ns
        ended: list[tuple[Sending, Message]] = []
        for stream in streams:  # all of them first: their numbers are used again
            sending = self._owner.pop(stream)
            ended.append((sending, sending.streams.pop(stream)))
        if self._bursts.burst_bytes:
            for sending, message in ended:
                if message[0] >= 0:
                    self._bursts.ends(now_ns, sending.routes[message[0]].ports)
        for sending, message in ended:
            if message[3]:
                self._agenda.at(now_ns + message[3], partial(self._through, sending, message))
            else:
                self._through(sending, message)

    def report_progress(self) -> None:
        """Tell the scheduler how much is left of every flow that has moved since it was told last."""
        now_ns = self._agenda.now_ns
        left_of = self._network.left_bytes(now_ns).__getitem__
        moving = sorted(dict.fromkeys(self._owner.values()), key=submission)
        for sending in moving:
            # Upwards: a pace worked out from a byte too few would end after the deadline.
            left = sending.unsent + math.ceil(sum(map(left_of, sending.streams)) * sending.in_step)
            if left < sending.told:
                sending.told = left
                self.obey(self._scheduler.progress(now_ns, sending.flow.id, left))

    def obey(self, assignments: Sequence[Assignment]) -> None:
        if not assignments:
            return
        crowded: dict[int, Pool] = {}
        for said in assignments:
            sending = self._sending[said.flow]
            before = None if sending.promotions < 0 else sending.wanted
            sending.obey(said)
            if sending.wanted != before:
                self._log(sending, before, said.reason)
            if sending.streams:
                self._move(sending)
            if sending.pool is not None and sending.permit_ns is None:
                crowded[id(sending.pool)] = sending.pool
        for pool in crowded.values():
            self._lend(pool)

    # --- inside ---------------------------------------------------------------------------------

    def _permit(self, sending: Sending, before: Level) -> None:
        """The flow may go as soon as its level is in force where `before` was."""
        kept = before == sending.wanted
        sending.lane_ns = self._agenda.now_ns
        sending.permit_ns = sending.lane_ns + (
            self._overheads.permit_kept_ns if kept else self._overheads.permit_ns
        )

    def _passed(self, route: Route, size: int, sharing: int) -> float:
        """How many of `size` bytes pass at once; a last one always has to be sent.

        None of later rounds (`sharing` 0): what a port gets back between them is in `round_ns` as it is
        measured.
        """
        now_ns = self._agenda.now_ns
        passed = min(size - 1.0, self._bursts.credit(now_ns, route.ports, sharing)) if sharing else 0.0
        self._bursts.begins(now_ns, route.ports, passed)
        return passed

    def _submit(self, flow: Flow, src: int, path: tuple[PortId, ...], done: Done) -> Sending:
        """A flow that needs no lane."""
        now_ns = self._agenda.now_ns
        sending = Sending(flow, src, -1, now_ns, done)
        sending.path = path
        sending.number = self.submitted
        self.submitted += 1
        self._sending[flow.id] = sending
        self.obey(self._scheduler.submit(now_ns, flow))
        return sending

    def _busy_s(self, port: PortId) -> float:
        return self._network.busy_ns(self._agenda.now_ns, port) / 1e9

    def _pool(self, stage: Stage, src: int, dst: int) -> Pool:
        key = (stage, src, dst)
        pool = self._pools.get(key)
        if pool is None:
            workers = self._job.workers
            usual = workers.lanes_s1 if stage is Stage.KV_REUSE else workers.lanes_s3
            count = self._lane_counts.get(key, usual)
            lanes = [Lane(self._connections.of_lane(stage, src, dst, i)) for i in range(count)]
            pool = self._pools[key] = Pool(lanes, self._job.simulation.lanes)
        return pool

    def _fill(self, pool: Pool) -> None:
        while pool.waiting:
            if pool.free:
                lane = None
            elif pool.bounded:
                break
            else:
                lane = Lane(pool.lanes[next(self._takes) % len(pool.lanes)].route)
            sending = min(pool.waiting.values(), key=urgency)
            if lane is None:
                lane = pool.take(sending.wanted)
            del pool.waiting[sending.flow.id]
            lane.flow, lane.taken = sending, next(self._takes)
            sending.lane = lane
            if not sending.routes:
                sending.routes = {sending.dst: lane.route}
            sending.path = sending.routes[sending.dst].path
            self._permit(sending, lane.level)
            sending.after_ns = self._overheads.transfer_ns
            self.send(sending, ((sending.dst, sending.flow.size_bytes),), None)
        self._lend(pool)

    def _lend(self, pool: Pool) -> None:
        if not pool.waiting or pool.free:
            return
        busy = [lane.flow for lane in sorted(pool.lanes, key=taken_at) if lane.flow is not None]
        lowest = max(flow.wanted for flow in busy)
        if all(flow.level >= lowest for flow in pool.waiting.values()):
            return
        urgent = heapq.nsmallest(len(busy), pool.waiting.values(), key=urgency)
        for number, i in loans([flow.wanted for flow in busy], [flow.level for flow in urgent]):
            holder, waiting = busy[number], urgent[i]
            before = holder.wanted
            holder.borrow(waiting.level)
            reason = f"its lane is needed by {waiting.flow.id}, which waits at {waiting.level.name}"
            self._log(holder, before, reason)
            self._move(holder)

    def _through(self, sending: Sending, message: Message) -> None:
        peer, size, arrived, _ = message
        sending.owed -= size
        if arrived is not None:
            arrived(peer)
        if sending.owed == 0 and (size > 0 or sending.lane is not None):
            self._complete(sending)

    def _move(self, sending: Sending) -> None:
        if sending.streams:
            place = sending.place
            free = sending.rate_bps is None and not sending.caps
            for stream, (peer, *_) in sending.streams.items():
                self._network.move(stream, place, None if free else sending.bounds(peer))

    def _complete(self, sending: Sending) -> None:
        now_ns = self._agenda.now_ns
        flow = sending.flow
        del self._sending[flow.id]
        narrowest = None if sending.lane is None else sending.routes[sending.dst].narrowest
        self._invariants.flow_done(
            sending.submit_ns,
            sending.permit_ns or 0,
            now_ns,
            flow.size_bytes - self._overheads.burst_bytes,
            narrowest,
        )
        self.flows.append(self._row(sending))
        self.obey(self._scheduler.completion(now_ns, flow.id))
        pool, lane = sending.pool, sending.lane
        if pool is not None and lane is not None:
            lane.flow = None
            lane.level = sending.wanted
            if lane in pool.lanes:
                pool.free += 1
            self._fill(pool)
        sending.done()

    def _log(self, sending: Sending, before: Level | None, reason: str) -> None:
        wanted = sending.wanted
        if sending.promotions < 0:
            sending.first = wanted
            sending.promotions = 0
        elif wanted < sending.last:
            sending.promotions += 1
        sending.last = wanted
        self.decisions.append(
            DecisionRow(
                time_ns=self._agenda.now_ns,
                flow=sending.flow.id,
                level_from=before,
                level_to=wanted,
                reason=reason,
            )
        )

    def _row(self, sending: Sending) -> FlowRow:
        flow, ranks = sending.flow, self._job.placement.ranks
        permit_ns = self._agenda.now_ns if sending.permit_ns is None else sending.permit_ns
        return FlowRow(
            id=flow.id,
            stage=flow.stage,
            src=sending.src,
            dst=sending.dst,
            src_server=ranks[sending.src].server,
            dst_server=None if sending.dst < 0 else ranks[sending.dst].server,
            size_bytes=flow.size_bytes,
            batch=flow.batch,
            request=None if flow.request is None else int(flow.request),
            layer=flow.layer,
            coflow=flow.coflow,
            deadline_ns=flow.deadline_ns,
            submit_ns=sending.submit_ns,
            permit_ns=permit_ns,
            lane_wait_ns=sending.lane_ns - sending.submit_ns,
            finish_ns=self._agenda.now_ns,
            level_first=sending.first,
            level_last=sending.last,
            promotions=sending.promotions,
            path=sending.path,
            verified=None,
        )


def _permitted_ns(sending: Sending) -> int:
    assert sending.permit_ns is not None
    return sending.permit_ns


def _lanes_of_micro(job: Job) -> dict[_Pair, int]:
    """As many as there are micro flows of a pair and stage, so that none waits for another."""
    counts: dict[_Pair, int] = {}
    for micro in job.flows:
        key = (micro.transfer.stage, micro.transfer.src, micro.transfer.dst)
        counts[key] = counts.get(key, 0) + 1
    return counts

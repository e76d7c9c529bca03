"""What is between the ranks and the simulated network: lanes, levels and completions.

It does what the dispatcher and the lanes of the emulated fabric do, but takes no time unless
`simulation.overheads` says so. A flow waits for a lane of its pair of ranks, and the most urgent flow goes
first. While all lanes are taken, a more urgent flow that waits lends its level to one of them. A share of a
collective has a connection to each peer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from controller.admission import Admission, Orders
from controller.flow import ALL_PEERS, Batch, Decision, Flow, PortId, Stage, Transfer
from controller.lanes import LanePool, lane_name
from controller.scheduler import Scheduler
from controller.units import NS_PER_S
from testbed.columns import ColumnSpool
from testbed.job import Collect, Job
from testbed.lane_counts import LaneCounts, Pair
from testbed.record import FlowRow
from testbed.simulation.agenda import Agenda
from testbed.simulation.collectives import Messages, SendMessages
from testbed.simulation.connections import Connections, Route
from testbed.simulation.invariants import Invariants
from testbed.simulation.links.network import FluidNetwork, StreamId
from testbed.simulation.overheads import Bursts, all_to_all_caps, connections_beside
from testbed.simulation.sending import Done, OnArrival, Sending, SentMessage, SimulatedLane, submission
from testbed.simulation.shares import Shares
from workers.plan import Collective, CollectiveKind

_Pool = LanePool[SimulatedLane, Sending]


class Transport:
    """Carries the flows of `job` over `network`, at the levels that `scheduler` gives them."""

    def __init__(
        self,
        job: Job,
        scheduler: Scheduler,
        network: FluidNetwork,
        agenda: Agenda,
        invariants: Invariants,
    ) -> None:
        self._job = job
        self._network = network
        self._agenda = agenda
        self._invariants = invariants
        self._connections = Connections(job, network, self._busy_s)
        self._lane_counts = LaneCounts(job)
        self._pools: dict[Pair, _Pool] = {}
        self._sides: dict[tuple[str, int], SimulatedLane] = {}
        self._owner: dict[StreamId, Sending] = {}
        self._shares = Shares(job.placement.groups, self._connections)
        self._grouped: dict[PortId, int] = {}
        self._overheads = job.simulation.overheads
        self._bursts = Bursts(network, self._overheads.burst_bytes)
        self.messages = 0
        self.flows: ColumnSpool[FlowRow] = ColumnSpool(FlowRow)
        self.decisions: ColumnSpool[Decision] = ColumnSpool(Decision)
        self._admission: Admission[Sending] = Admission(
            scheduler, self.decisions.append if job.collect is Collect.ALL else lambda decision: None
        )

    @property
    def submitted(self) -> int:
        """The number of flows submitted so far."""
        return self._admission.submitted

    def carried(self) -> dict[PortId, float]:
        """The bytes handed over for each port so far, without those that passed at once."""
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
        now_ns = self._agenda.now_ns
        pool = self._pool(transfer.stage, transfer.src, transfer.dst)
        sending = Sending(transfer, now_ns, done)
        if self._connections.by_flow:
            route = self._connections.of_flow(
                transfer.id, transfer.stage, transfer.src, transfer.dst, transfer.size_bytes
            )
            sending.routes = {transfer.dst: route}
            load = dict.fromkeys(route.path, transfer.size_bytes)
        else:
            load = pool.load(transfer.size_bytes)
        self._carry_out(self._admission.submit(now_ns, sending, pool, Flow.of(transfer, load)))

    def open_share(
        self, step: Collective, index: int, batch: str, layer: int, total: Mapping[int, int], done: Done
    ) -> SendMessages:
        """Submit what member `index` of the group of `step` sends: `total[peer]` bytes to each peer.

        The caller sends it with the function that is returned, in any number of rounds. `done` is called
        when the last byte has arrived. Nothing is called back before this method has returned. Pass the
        same object for equal totals, so that the share is worked out only once.
        """
        rank = self._job.placement.groups[step.group][index]
        known = self._shares.of_member(step, index, total)
        share = step.share(index, rank, known.size, batch=batch, layer=layer)
        sending = self._submit_share(share, self._side(step.group, index), known.load, done)
        sending.path = known.path
        routes = sending.routes = known.routes
        sending.after_ns = sending.then_ns = self._overheads.collective_ns
        if step.kind is not CollectiveKind.ALL_TO_ALL:
            sending.then_ns = self._overheads.round_ns
        if self._bursts.burst_bytes or self._overheads.all_to_all_goodput < 1:
            sending.beside = connections_beside(step, index)
        if self._overheads.all_to_all_goodput < 1:
            sending.caps = all_to_all_caps(sending.beside, routes, self._overheads.all_to_all_goodput)
        if sending.owed == 0:
            self._agenda.at(_permitted_ns(sending) + sending.after_ns, partial(self._complete, sending))
        return partial(self.send, sending)

    def open_group(self, step: Collective, batch: str, layer: int, done: Done) -> None:
        """Send what all members of the group of `step` send as one flow, its connections in lockstep.

        On a port, each connection has the weight of its bytes over those of the largest connection.
        `done` is called at the end. Nothing is called back before this method has returned.
        """
        members = self._job.placement.groups[step.group]
        load, size, largest = self._shares.of_group(step)
        whole = step.whole(members[0], size, batch=batch, layer=layer)
        sending = self._submit_share(whole, self._side(step.group, 0), load, done)
        sending.path = tuple(load)
        sending.unsent = 0
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
            sending.bounds(ALL_PEERS),
            [sent / largest for _, sent in ports],
        )
        self.messages += 1
        sending.streams[stream] = ALL_PEERS, size, None, sending.after_ns
        sending.in_step = size / largest
        self._owner[stream] = sending

    def send(self, sending: Sending, messages: Messages, arrived: OnArrival | None) -> None:
        """Hand over bytes of a flow: `messages` has peers, and the bytes for each."""
        now_ns = self._agenda.now_ns
        if sending.permit_ns is not None and sending.permit_ns > now_ns:
            self._agenda.at(sending.permit_ns, partial(self.send, sending, messages, arrived))
            return
        routes, streams, place = sending.routes, sending.streams, sending.place
        free = sending.rate_bps is None and not sending.caps
        after_ns, sending.after_ns = sending.after_ns, sending.then_ns
        first = sending.unsent == sending.transfer.size_bytes
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
            self._move(sending)  # more streams share its pace now

    # --- from the network and the scheduler -----------------------------------------------------

    def finished(self, streams: Sequence[StreamId]) -> None:
        """These streams have ended. A flow is complete when all its bytes have arrived."""
        now_ns = self._agenda.now_ns
        ended: list[tuple[Sending, SentMessage]] = []
        for stream in streams:  # all of them first, because their ids are used again
            sending = self._owner.pop(stream)
            ended.append((sending, sending.streams.pop(stream)))
        if self._bursts.burst_bytes:
            for sending, message in ended:
                if message[0] != ALL_PEERS:
                    self._bursts.ends(now_ns, sending.routes[message[0]].ports)
        for sending, message in ended:
            if message[3]:
                self._agenda.at(now_ns + message[3], partial(self._through, sending, message))
            else:
                self._through(sending, message)

    def report_progress(self) -> None:
        """Report the bytes left of every flow on its way that has moved since its last report."""
        now_ns = self._agenda.now_ns
        left_of = self._network.left_bytes(now_ns).__getitem__
        moving = sorted(dict.fromkeys(self._owner.values()), key=submission)
        for sending in moving:
            # Round up: with a pace worked out from a byte too few, the flow would end after its deadline.
            left = sending.unsent + math.ceil(sum(map(left_of, sending.streams)) * sending.in_step)
            if left < sending.told:
                sending.told = left
                self._move_all(self._admission.progress(now_ns, sending.id, left))

    def batch_started(self, batch: Batch) -> None:
        self._move_all(self._admission.batch_started(self._agenda.now_ns, batch))

    def layer_advanced(self, batch: str, layer: int) -> None:
        self._move_all(self._admission.layer_advanced(self._agenda.now_ns, batch, layer))

    def next_tick_ns(self) -> int | None:
        """When the scheduler wants to be asked again without an event."""
        return self._admission.next_tick_ns()

    def tick(self) -> None:
        self._move_all(self._admission.tick(self._agenda.now_ns))

    # --- inside ---------------------------------------------------------------------------------

    def _permitted(self, sending: Sending) -> None:
        """The flow has its lane, and may start as soon as its level is in force there."""
        assert sending.lane is not None
        kept = sending.lane.level == sending.wanted
        sending.lane_ns = self._agenda.now_ns
        sending.permit_ns = sending.lane_ns + (
            self._overheads.permit_kept_ns if kept else self._overheads.permit_ns
        )

    def _passed(self, route: Route, size: int, sharing: int) -> float:
        """How many of `size` bytes pass at once. At least one byte is left to send.

        In later rounds (`sharing` 0), none do: the measured `round_ns` already includes what ports let pass
        at once between rounds.
        """
        now_ns = self._agenda.now_ns
        passed = min(size - 1.0, self._bursts.credit(now_ns, route.ports, sharing)) if sharing else 0.0
        self._bursts.begins(now_ns, route.ports, passed)
        return passed

    def _submit_share(
        self, share: Transfer, side: SimulatedLane, load: Mapping[PortId, int], done: Done
    ) -> Sending:
        """Submit a share of a collective. Its lane is its member's side of the process group."""
        now_ns = self._agenda.now_ns
        sending = Sending(share, now_ns, done)
        self._move_all(self._admission.submit_on(now_ns, sending, side, Flow.of(share, load)))
        self._permitted(sending)
        return sending

    def _busy_s(self, port: PortId) -> float:
        return self._network.busy_ns(self._agenda.now_ns, port) / NS_PER_S

    def _pool(self, stage: Stage, src: int, dst: int) -> _Pool:
        key = (stage, src, dst)
        pool = self._pools.get(key)
        if pool is None:
            lanes = [
                SimulatedLane(
                    lane_name(stage, src, dst, i), {dst: self._connections.of_lane(stage, src, dst, i)}
                )
                for i in range(self._lane_counts.of(stage, src, dst))
            ]

            def spare(i: int) -> SimulatedLane:
                return SimulatedLane(lanes[i].name, lanes[i].routes, spare=True)

            bounded = self._job.simulation.lanes
            pool = self._pools[key] = LanePool(lanes, spare=None if bounded else spare)
        return pool

    def _side(self, group: str, index: int) -> SimulatedLane:
        """The side of member `index` of a process group."""
        side = self._sides.get((group, index))
        if side is None:
            side = self._sides[group, index] = SimulatedLane(f"{group}:{index}", {})
        return side

    def _carry_out(self, orders: Orders[Sending]) -> None:
        self._move_all(orders.moved)
        for sending in orders.granted:
            assert sending.lane is not None
            dst = sending.transfer.dst
            if not sending.routes:
                sending.routes = sending.lane.routes
            sending.path = sending.routes[dst].path
            self._permitted(sending)
            sending.after_ns = self._overheads.transfer_ns
            self.send(sending, ((dst, sending.transfer.size_bytes),), None)
        self._move_all(orders.lent)

    def _through(self, sending: Sending, message: SentMessage) -> None:
        peer, size, arrived, _ = message
        sending.owed -= size
        if arrived is not None:
            arrived(peer)
        if sending.owed == 0 and (size > 0 or sending.pool is not None):
            self._complete(sending)

    def _move_all(self, moved: Iterable[Sending]) -> None:
        for sending in moved:
            self._move(sending)

    def _move(self, sending: Sending) -> None:
        if sending.streams:
            place = sending.place
            free = sending.rate_bps is None and not sending.caps
            for stream, (peer, *_) in sending.streams.items():
                self._network.move(stream, place, None if free else sending.bounds(peer))

    def _complete(self, sending: Sending) -> None:
        now_ns = self._agenda.now_ns
        transfer, pool = sending.transfer, sending.pool
        self._invariants.flow_done(
            sending.submit_ns,
            sending.permit_ns or 0,
            now_ns,
            transfer.size_bytes - self._overheads.burst_bytes,
            None if pool is None else sending.routes[transfer.dst].narrowest,
        )
        self.flows.append(self._row(sending))
        assert sending.lane is not None
        sending.lane.level = sending.wanted
        self._carry_out(self._admission.complete(now_ns, sending.id))
        sending.done()

    def _row(self, sending: Sending) -> FlowRow:
        now_ns = self._agenda.now_ns
        return FlowRow.of(
            sending.transfer,
            self._job.placement.server_of,
            submit_ns=sending.submit_ns,
            permit_ns=now_ns if sending.permit_ns is None else sending.permit_ns,
            lane_wait_ns=sending.lane_ns - sending.submit_ns,
            finish_ns=now_ns,
            trail=sending,
            path=sending.path,
            verified=None,
        )


def _permitted_ns(sending: Sending) -> int:
    assert sending.permit_ns is not None
    return sending.permit_ns

"""A rank: connects its lanes and groups, then runs the plans it is given, layer by layer."""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from controller.protocol import (
    Completion,
    Down,
    FlowProgress,
    GroupUp,
    LaneUp,
    LayerAdvanced,
    Permit,
    ProbeUp,
    decode_down,
)
from controller.protocol import encode as encode_up
from workers.clock import Clock
from workers.collectives import CollectiveGroup
from workers.compute import make_compute
from workers.decode import DecodeDesk
from workers.lanes import ReceiveLane, SendLane
from workers.payload import Payloads, sampled
from workers.plan import BatchPlan, Collective, Compute, Resume
from workers.probe import ProbeEnd
from workers.process_groups import Transport, by_peer
from workers.protocol import (
    Arrived,
    BatchDone,
    Finish,
    Flows,
    LayerBegun,
    Paused,
    Plan,
    ProgressMark,
    RankConfig,
    RankTrouble,
    Ready,
    ReceivedFlow,
    RunProbe,
    Send,
    Span,
    Start,
    TimedTransfer,
    ToRank,
    decode_to_rank,
)
from workers.protocol import encode as encode_report
from workers.recorder import Recorder
from workers.sender import Sender
from workers.wire import Inbox, Outbox

_CONNECT_SECONDS = 120


class Rank:
    """One worker process. `main` is its whole life."""

    def __init__(self, config: RankConfig) -> None:
        self._config = config
        self._clock = Clock(config.time_dilation)
        self._recorder = Recorder()
        self._controller = Outbox(config.to_controller)
        self._coordinator = Outbox(config.to_coordinator)
        self._sender = Sender(self._clock, self._controller, self._recorder, config.bytes_scale)
        self._device, self._nccl = choose_device(config.device, config.rank, len(config.servers))
        self._payloads = Payloads(config.seed, self._device)
        self._compute = make_compute(config.compute, self._clock, self._device, config.time_dilation)
        self._decode = DecodeDesk(config.rank, self._clock, self._coordinator, self._recorder)
        self._groups: dict[str, CollectiveGroup] = {}
        self._probes: dict[str, ProbeEnd] = {}
        self._arrived: dict[str, int] = {}  # and when
        self._arrival = threading.Condition()
        self._plans: queue.SimpleQueue[BatchPlan | Resume] = queue.SimpleQueue()

    # --- life -----------------------------------------------------------------------------------

    def main(self) -> None:
        """Connect, report `Ready`, run plans until `Finish` ends the process."""
        config = self._config
        Inbox(config.from_controller, decode_down, self._on_permit, self.failed).start()
        transport = self._connect()
        Inbox(config.from_coordinator, decode_to_rank, self._on_order, self.failed).start()
        self._coordinator.send(
            encode_report(
                Ready(
                    rank=config.rank,
                    lanes=sum(lane.src == config.rank for lane in config.lanes),
                    groups=len(self._groups),
                    device=str(self._device),
                    backend=transport.backend,
                )
            )
        )
        while True:
            plan = self._plans.get()
            if isinstance(plan, Resume):
                raise RuntimeError(f"told to go on with batch {plan.batch}, which has not paused")
            self._run_batch(plan)

    def failed(self, error: BaseException) -> None:
        """Tell the coordinator, which ends the run; the traceback goes to this process's log."""
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
        self._coordinator.send(
            encode_report(
                RankTrouble(
                    rank=self._config.rank,
                    message=f"{type(error).__name__}: {error}",
                )
            )
        )

    # --- connections ----------------------------------------------------------------------------

    def _connect(self) -> Transport:
        """Open probes, lanes and groups in one order that is the same on all ranks.

        Opening blocks until the peer opens the same one, so a common order cannot deadlock.
        """
        config = self._config
        store = dist.TCPStore(
            config.store_host,
            config.store_port,
            is_master=config.rank == 0,
            wait_for_workers=False,
            timeout=timedelta(seconds=_CONNECT_SECONDS),
        )
        transport = Transport(
            store=store,
            store_port=config.store_port,
            interface=config.interface,
            device=self._device,
            nccl=self._nccl,
        )
        for probe in config.probes:
            if config.rank in (probe.src, probe.dst):
                group, connections = transport.lane(probe.id, int(config.rank == probe.dst))
                if config.rank == probe.src:
                    self._controller.send(
                        encode_up(
                            ProbeUp(
                                name=probe.id,
                                src_server=config.servers[probe.src],
                                dst_server=config.servers[probe.dst],
                                connections=connections,
                            )
                        )
                    )
                self._probes[probe.id] = ProbeEnd(
                    probe,
                    group,
                    sends=config.rank == probe.src,
                    coordinator=self._coordinator,
                    failed=self.failed,
                )
        for lane in config.lanes:
            if config.rank == lane.src:
                group, connections = transport.lane(lane.id, 0)
                self._sender.add_lane(
                    SendLane(lane.id, group, self._payloads, config.chunk_bytes, self.failed)
                )
                self._controller.send(
                    encode_up(
                        LaneUp(
                            lane=lane.id,
                            stage=lane.stage,
                            src=lane.src,
                            dst=lane.dst,
                            src_server=config.servers[lane.src],
                            dst_server=config.servers[lane.dst],
                            connections=connections,
                        )
                    )
                )
            elif config.rank == lane.dst:
                group, _ = transport.lane(lane.id, 1)
                ReceiveLane(
                    lane.id,
                    group,
                    self._payloads,
                    config.chunk_bytes,
                    config.verify_share,
                    device=self._device,
                    progressed=self._on_progress,
                    arrived=self._on_arrival,
                    failed=self.failed,
                )
        for name, members in sorted(config.groups.items()):
            if config.rank in members:
                self._connect_group(transport, name, members)
        return transport

    def _connect_group(self, transport: Transport, name: str, members: tuple[int, ...]) -> None:
        config = self._config
        group, connections = transport.group(name, members.index(config.rank), len(members))
        self._groups[name] = CollectiveGroup(
            name,
            group,
            members,
            config.rank,
            self._payloads,
            self._device,
            staged=transport.backend == "gloo",
        )
        peers = {rank: config.servers[rank] for rank in members if rank != config.rank}
        self._controller.send(
            encode_up(
                GroupUp(
                    group=name,
                    rank=config.rank,
                    server=config.servers[config.rank],
                    peers=peers,
                    connections=by_peer(
                        connections,
                        {rank: config.addresses[server] for rank, server in peers.items()},
                    ),
                )
            )
        )

    # --- messages -------------------------------------------------------------------------------

    def _on_permit(self, message: Down) -> None:
        if not isinstance(message, Permit):
            raise TypeError(f"a rank is sent permits only, not {type(message).__name__}")
        self._sender.permitted(message)

    def _on_order(self, message: ToRank) -> None:
        match message:
            case Start():
                self._clock.start(message.zero_wall_ns)
            case Plan(plan=plan):
                self._take_plan(plan)
            case Resume():
                self._plans.put(message)
            case Send(transfers=transfers):
                for transfer in transfers:
                    self._sender.post(transfer)
            case Flows(flows=flows):
                threading.Thread(target=self._post_timed, args=(flows,), daemon=True).start()
            case RunProbe():
                self._probes[message.probe].run(message.wire_bytes, message.at_wall_ns)
            case Finish():
                self._finish()

    def _take_plan(self, plan: BatchPlan) -> None:
        """Start our part at once where we are a victim or a decode worker; queue it where we compute."""
        with self._arrival:
            for flow in self._decode.expect(plan) & self._arrived.keys():
                self._decode.arrived(flow, self._arrived.pop(flow))
        at_once = plan.layers if plan.fetch_ahead is None else plan.layers[: plan.fetch_ahead + 1]
        for layer in at_once:
            for transfer in layer.wait:
                if transfer.src == self._config.rank:
                    self._sender.post(transfer)
        if self._config.rank in plan.ranks:
            self._plans.put(plan)

    def _post_timed(self, flows: tuple[TimedTransfer, ...]) -> None:
        try:
            for timed in sorted(flows, key=lambda f: f.start_ns):
                self._clock.wait_until(timed.start_ns)
                self._sender.post(timed.transfer)
        except BaseException as error:
            self.failed(error)

    def _on_progress(self, flow: str, size_bytes: int, received_bytes: int) -> None:
        self._recorder.progress.append(
            ProgressMark(flow=flow, time_ns=self._clock.now_ns(), received_bytes=received_bytes)
        )
        self._controller.send(encode_up(FlowProgress(flow=flow, bytes_left=size_bytes - received_bytes)))

    def _on_arrival(self, flow: str, verified: bool | None) -> None:
        now_ns = self._clock.now_ns()
        self._recorder.received.append(ReceivedFlow(id=flow, finish_ns=now_ns, verified=verified))
        self._controller.send(encode_up(Completion(flow=flow)))
        with self._arrival:
            if self._decode.arrived(flow, now_ns):
                return
            self._arrived[flow] = now_ns
            self._arrival.notify_all()
        self._coordinator.send(encode_report(Arrived(flow=flow)))

    def _finish(self) -> None:
        records = self._recorder.records(self._config.rank, self._clock.late_ms)
        self._coordinator.send(encode_report(records))
        self._coordinator.close()
        self._controller.close()
        os._exit(0)  # lanes wait for messages that will not come; there is nothing to unwind

    # --- the layer loop -------------------------------------------------------------------------

    def _run_batch(self, plan: BatchPlan) -> None:
        start_ns = self._clock.now_ns()
        place = plan.ranks.index(self._config.rank)
        for layer in plan.layers:
            if plan.pauses_before(layer.index):
                self._pause(plan, layer.index)
            self._advance(plan, layer.index)
            reused = [t.id for t in (*layer.wait, *layer.under_way) if t.dst == self._config.rank]
            self._wait_for(reused, plan.id, layer.index)
            for step in layer.steps:
                if isinstance(step, Compute):
                    self._run_compute(step, place, plan.id, layer.index)
                elif step.group in self._groups:
                    self._run_collective(step, plan.id, layer.index)
            for transfer in layer.post:
                if transfer.src == self._config.rank:
                    self._sender.post(transfer)
        self._advance(plan, len(plan.layers))
        self._coordinator.send(
            encode_report(
                BatchDone(
                    batch=plan.id,
                    rank=self._config.rank,
                    start_ns=start_ns,
                    end_ns=self._clock.now_ns(),
                )
            )
        )

    def _pause(self, plan: BatchPlan, layer: int) -> None:
        """Stop until told to go on; batches that are handed out meanwhile go first."""
        start_ns = self._clock.now_ns()
        self._coordinator.send(encode_report(Paused(batch=plan.id, rank=self._config.rank, layer=layer)))
        while isinstance(order := self._plans.get(), BatchPlan):
            self._run_batch(order)
        if order.batch != plan.id:
            raise RuntimeError(f"told to go on with batch {order.batch}, but {plan.id} has paused")
        self._span("paused", "", plan.id, layer, start_ns)

    def _advance(self, plan: BatchPlan, layer: int) -> None:
        """To the scheduler, reused KV that was sent for early is at the layer of the batch it is for."""
        rank = self._config.rank
        for batch in (plan.id, *plan.fetches):
            self._controller.send(encode_up(LayerAdvanced(batch=batch, rank=rank, layer=layer)))
        if plan.fetch_ahead is not None and layer < len(plan.layers):
            self._coordinator.send(encode_report(LayerBegun(batch=plan.id, rank=rank, layer=layer)))

    def _wait_for(self, flows: list[str], batch: str, layer: int) -> None:
        """S1: the layer's reused KV must be here before its attention can run."""
        if not flows:
            return
        start_ns = self._clock.now_ns()
        with self._arrival:
            self._arrival.wait_for(lambda: all(flow in self._arrived for flow in flows))
            for flow in flows:
                del self._arrived[flow]
        self._span("s1_wait", f"{len(flows)} flows", batch, layer, start_ns)

    def _run_compute(self, step: Compute, place: int, batch: str, layer: int) -> None:
        start_ns = self._clock.now_ns()
        if step.seconds[place] > 0:
            self._compute.run(step.seconds[place])
        self._span("compute", step.label, batch, layer, start_ns)

    def _run_collective(self, step: Collective, batch: str, layer: int) -> None:
        group = self._groups[step.group]
        start_ns = self._clock.now_ns()
        peer_bytes = _peer_bytes(step, group)
        rank, size = self._config.rank, sum(peer_bytes.values())
        share = step.share(group.index, rank, size, batch=batch, layer=layer)
        self._sender.share_permitted(share, step.group, peer_bytes)
        verify = sampled(step.id, self._config.verify_share)
        compute = self._rounds_of_attention(step, group.index, batch, layer, start_ns)
        group.carry_out(step, self._config.bytes_scale, compute, verify=verify)
        end_ns = self._clock.now_ns()
        self._sender.share_ended(share.id)
        self._recorder.received.append(
            ReceivedFlow(id=share.id, finish_ns=end_ns, verified=True if verify else None)
        )
        if not step.round_seconds:
            self._span("collective", step.label, batch, layer, start_ns)

    def _rounds_of_attention(
        self, step: Collective, index: int, batch: str, layer: int, start_ns: int
    ) -> Callable[[int], None]:
        """The compute over the block of a round. Its spans are compute; what is between them is waiting."""
        waiting_since_ns = start_ns

        def compute(number: int) -> None:
            nonlocal waiting_since_ns
            self._span("collective", step.label, batch, layer, waiting_since_ns)
            begun_ns = self._clock.now_ns()
            if step.round_seconds[index][number] > 0:
                self._compute.run(step.round_seconds[index][number])
            self._span("compute", step.label, batch, layer, begun_ns)
            waiting_since_ns = self._clock.now_ns()

        return compute

    def _span(self, kind: str, label: str, batch: str, layer: int, start_ns: int) -> None:
        self._recorder.spans.append(
            Span(
                kind=kind,
                label=label,
                batch=batch,
                layer=layer,
                start_ns=start_ns,
                end_ns=self._clock.now_ns(),
            )
        )


def _peer_bytes(step: Collective, group: CollectiveGroup) -> dict[int, int]:
    """Model bytes this rank sends to each peer."""
    sent = step.sent_by(group.index, len(group.members))
    return {group.members[index]: size for index, size in sent.items()}


def choose_device(wanted: str, rank: int, ranks: int) -> tuple[torch.device, bool]:
    """The device of a rank, and whether collectives can use NCCL there.

    `auto` takes CUDA when present. NCCL needs a GPU per rank; with fewer, ranks share GPUs and
    collectives go through gloo. Raises `RuntimeError` for `cuda` on a machine without.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise RuntimeError("workers.device is cuda, but this machine has no CUDA device")
    if wanted == "cpu" or not available:
        return torch.device("cpu"), False
    count = torch.cuda.device_count()
    return torch.device("cuda", rank % count), count >= ranks


def run(config: RankConfig) -> None:
    """Entry point of a forked rank; returns only if the rank fails, after telling the coordinator."""
    rank = Rank(config)
    try:
        rank.main()
    except BaseException as error:
        rank.failed(error)
        time.sleep(1.0)  # let the message leave before the process does

"""A rank: connects its lanes and groups, then runs the plans that it gets, layer by layer."""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial

from controller.protocol import Down, LayerAdvanced, Mark, Marked, Permit, decode_down
from controller.protocol import encode as encode_up
from controller.units import NS_PER_S
from workers.arrivals import Arrivals
from workers.clock import Clock
from workers.collectives import CollectiveGroup
from workers.compute import make_compute
from workers.connecting import Connected, Connector
from workers.decode import DecodeDesk
from workers.device_choice import choose_device
from workers.heart import Heart
from workers.marking import Marker
from workers.model.prefill import PrefillWork
from workers.model.rank_model import RankModel
from workers.payload import Payloads, sampled
from workers.plan import BatchPlan, Collective, Compute, Resume
from workers.protocol import (
    BatchDone,
    Evidence,
    Finish,
    Flows,
    LayerBegun,
    Leave,
    Paused,
    Plan,
    RankConfig,
    RankTrouble,
    Ready,
    ReceivedFlow,
    RunProbe,
    Span,
    Start,
    TimedTransfer,
    ToRank,
    Transfers,
    decode_to_rank,
)
from workers.protocol import encode as encode_report
from workers.recorder import Recorder
from workers.sender import Sender
from workers.spans import SpanKind
from workers.wire import Inbox, Outbox


class Rank:
    """One worker process. `main` runs until the process ends."""

    def __init__(self, config: RankConfig) -> None:
        self._config = config
        remote = config.remote
        self._keys = None if remote is None else remote.keys
        offset_ns = 0 if remote is None else remote.clock_offset_ns
        self._clock = Clock(config.time_dilation, offset_ns, config.slowdowns)
        self._recorder = Recorder()
        name = f"rank {config.rank}"  # not that of its inbox, which is another peer
        self._controller = Outbox(config.to_controller, self._keys, name)
        self._coordinator = Outbox(config.to_coordinator, self._keys, name)
        self._heart = Heart(
            config.rank, self._clock, self._recorder, self._coordinator, hand_over=remote is None
        )
        if remote is None:
            self._device, self._nccl = choose_device(config.device, config.rank, len(config.servers))
        else:
            # NCCL fixes the class of a connection when it makes it, so no level could be changed.
            self._device, self._nccl = choose_device(config.device, remote.gpu, 0)[0], False
        self._model: RankModel | None = None
        if config.model is not None:
            # Its KV is on the device. Its layers, and so what collectives carry, are on the CPU.
            self._nccl = False
            self._model = RankModel(config.model, config.rank, self._leave_to_checks, self._device)
        self._sender = Sender(
            self._clock,
            self._controller,
            self._recorder,
            config.bytes_scale,
            None if self._model is None else self._model.load,
        )
        self._marker = None if remote is None or remote.control_dscp is None else Marker(remote.control_dscp)
        self._payloads = Payloads(config.seed, self._device)
        self._compute = make_compute(
            config.compute, self._clock, self._device, config.time_dilation, config.layer
        )
        self._decode = DecodeDesk(
            config.rank,
            self._clock,
            self._coordinator,
            self._recorder,
            self.failed,
            None if self._model is None else self._model.first_token,
        )
        self._arrivals = Arrivals(
            self._clock, self._controller, self._coordinator, self._recorder, self._decode
        )
        self._connected = Connected({}, {}, "")
        self._plans: queue.SimpleQueue[BatchPlan | Resume] = queue.SimpleQueue()
        self._finished = False

    # --- life -----------------------------------------------------------------------------------

    def main(self) -> None:
        """Connect, report `Ready`, and run plans until `Leave` ends the process."""
        config = self._config
        name = str(config.rank)
        Inbox(
            config.from_controller, decode_down, self._on_down, self.failed, keys=self._keys, name=name
        ).start()
        self._connected = Connector(
            config,
            device=self._device,
            nccl=self._nccl,
            payloads=self._payloads,
            sender=self._sender,
            arrivals=self._arrivals,
            clock=self._clock,
            marker=self._marker,
            controller=self._controller,
            coordinator=self._coordinator,
            failed=self.failed,
            keep=None if self._model is None else self._model.keep,
        ).connect()
        Inbox(
            config.from_coordinator, decode_to_rank, self._on_order, self.failed, keys=self._keys, name=name
        ).start()
        self._coordinator.send(
            encode_report(
                Ready(
                    rank=config.rank,
                    device=str(self._device),
                    backend=self._connected.backend,
                )
            )
        )
        while True:
            plan = self._plans.get()
            if isinstance(plan, Resume):
                raise RuntimeError(f"told to go on with batch {plan.batch}, which has not paused")
            self._run_batch(plan)

    def failed(self, error: BaseException) -> None:
        """Report an error to the coordinator, which ends the run. The traceback goes to this process's log.

        After `Finish` nothing is a failure: peers that leave first close their connections.
        """
        if self._finished:
            return
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

    def _leave_to_checks(self, evidence: Evidence) -> None:
        self._coordinator.send(encode_report(evidence))

    def _finish(self, evidence: tuple[Evidence, ...] = ()) -> None:
        pauses = self._heart.pulse.longest_ones(self._clock.wall_ns())
        tokens = () if self._model is None else self._model.checks(evidence)
        records = self._recorder.records(self._config.rank, self._clock.late_ms, pauses, tokens)
        report = encode_report(records)
        self._finished = True  # first, because peers may leave as soon as all records are in
        self._coordinator.send(report)

    def _leave(self) -> None:
        self._coordinator.close()
        self._controller.close()
        os._exit(0)  # lanes wait for messages that will not come; there is nothing to unwind

    # --- messages -------------------------------------------------------------------------------

    def _on_down(self, message: Down) -> None:
        match message:
            case Permit():
                self._sender.permitted(message)
            case Mark() if self._marker is not None:
                self._marker.mark(message.connections, message.dscp)
                if message.lane:
                    self._controller.send(encode_up(Marked(lane=message.lane, level=message.level)))
            case _:
                raise TypeError(f"the controller sends no {type(message).__name__} to this rank")

    def _on_order(self, message: ToRank) -> None:
        match message:
            case Start():
                self._heart.pulse.restart(self._clock.wall_ns())
                self._clock.start(message.zero_wall_ns)
            case Plan(plan=plan):
                self._take_plan(plan)
            case Resume():
                self._plans.put(message)
            case Transfers(transfers=transfers, requests=requests):
                if self._model is not None:
                    self._model.sends(transfers, requests)
                for transfer in transfers:
                    self._sender.post(transfer)
            case Flows(flows=flows):
                threading.Thread(target=self._post_timed, args=(flows,), daemon=True).start()
            case RunProbe():
                self._connected.probes[message.probe].run(message.wire_bytes, message.at_wall_ns)
            case Finish(evidence=evidence):
                self._finish(evidence)
            case Leave():
                self._leave()

    def _take_plan(self, plan: BatchPlan) -> None:
        """Note the requests that decode here, and queue the plan if this rank computes it."""
        if self._model is not None:
            self._model.planned(plan)
        self._decode.expect(plan)
        if self._config.rank in plan.ranks:
            self._plans.put(plan)

    def _post_timed(self, flows: tuple[TimedTransfer, ...]) -> None:
        try:
            for timed in sorted(flows, key=lambda f: f.start_ns):
                self._clock.wait_until(timed.start_ns)
                self._sender.post(timed.transfer)
        except BaseException as error:
            self.failed(error)

    # --- the layer loop -------------------------------------------------------------------------

    def _run_batch(self, plan: BatchPlan) -> None:
        start_ns = self._clock.now_ns()
        place = plan.ranks.index(self._config.rank)
        work = None if self._model is None else self._model.work(plan)
        for layer in plan.layers:
            if plan.pauses_before(layer.index):
                self._pause(plan, layer.index)
            self._advance(plan, layer.index)
            reused = [t.id for t in (*layer.wait, *layer.under_way) if t.dst == self._config.rank]
            self._wait_for(reused, plan.id, layer.index)
            for step in layer.steps:
                if isinstance(step, Compute):
                    self._run_compute(step, place, plan.id, layer.index, work)
                elif step.group in self._connected.groups:
                    self._run_collective(step, plan.id, layer.index, work)
            for transfer in layer.post:
                if transfer.src == self._config.rank:
                    self._sender.post(transfer)
        self._advance(plan, len(plan.layers))
        if self._model is not None and work is not None:
            self._model.ended(work)
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
        """Wait for `Resume`, and run the batches that arrive before it."""
        start_ns = self._clock.now_ns()
        self._coordinator.send(encode_report(Paused(batch=plan.id, rank=self._config.rank, layer=layer)))
        while isinstance(order := self._plans.get(), BatchPlan):
            self._run_batch(order)
        if order.batch != plan.id:
            raise RuntimeError(f"told to go on with batch {order.batch}, but {plan.id} has paused")
        self._span(SpanKind.PAUSED, "", plan.id, layer, start_ns)

    def _advance(self, plan: BatchPlan, layer: int) -> None:
        """Report that `layer` begins: to the scheduler, and to the coordinator if it has to fetch ahead."""
        rank = self._config.rank
        for batch in plan.announced:
            self._controller.send(encode_up(LayerAdvanced(batch=batch, rank=rank, layer=layer)))
        if plan.fetch_ahead is not None and layer < len(plan.layers):
            self._coordinator.send(encode_report(LayerBegun(batch=plan.id, rank=rank, layer=layer)))

    def _wait_for(self, flows: list[str], batch: str, layer: int) -> None:
        """Wait for the layer's S1: its attention needs the reused KV."""
        if not flows:
            return
        start_ns = self._clock.now_ns()
        self._arrivals.take(flows)
        self._span(SpanKind.S1_WAIT, f"{len(flows)} flows", batch, layer, start_ns)

    def _run_compute(
        self, step: Compute, place: int, batch: str, layer: int, work: PrefillWork | None
    ) -> None:
        real = None if work is None else partial(work.compute, step.label, layer)
        begun_ns = self._compute_for(step.seconds[place], step.label, real)
        self._span(SpanKind.COMPUTE, step.label, batch, layer, begun_ns)

    def _run_collective(self, step: Collective, batch: str, layer: int, work: PrefillWork | None) -> None:
        group = self._connected.groups[step.group]
        start_ns = self._clock.now_ns()
        peer_bytes = _peer_bytes(step, group)
        rank, size = self._config.rank, sum(peer_bytes.values())
        share = step.share(group.index, rank, size, batch=batch, layer=layer)
        self._sender.share_permitted(share, step.group, peer_bytes)
        verify = work is None and sampled(step.id, self._config.verify_share)
        compute = self._rounds_of_attention(step, group.index, batch, layer, start_ns, work)
        if work is not None:
            work.collective(step, layer, group.exchange, compute)
        else:
            group.carry_out(step, self._config.bytes_scale, compute, verify=verify)
        end_ns = self._clock.now_ns()
        self._sender.share_ended(share.id)
        self._recorder.received.append(
            ReceivedFlow(id=share.id, finish_ns=end_ns, verified=True if verify else None)
        )
        if not step.round_seconds:
            self._span(SpanKind.COLLECTIVE, step.label, batch, layer, start_ns)

    def _rounds_of_attention(
        self,
        step: Collective,
        index: int,
        batch: str,
        layer: int,
        start_ns: int,
        work: PrefillWork | None,
    ) -> Callable[[int], None]:
        """The compute over the block of a round. The time before each such compute is a collective span."""
        waiting_since_ns = start_ns

        def compute(number: int) -> None:
            nonlocal waiting_since_ns
            self._span(SpanKind.COLLECTIVE, step.label, batch, layer, waiting_since_ns)
            attend = None if work is None else partial(work.attend, number)
            begun_ns = self._compute_for(step.round_seconds[index][number], step.label, attend)
            self._span(SpanKind.COMPUTE, step.label, batch, layer, begun_ns)
            waiting_since_ns = self._clock.now_ns()

        return compute

    def _compute_for(self, seconds: float, label: str, real: Callable[[], None] | None) -> int:
        """Compute for `seconds` of model time at full speed: what `real` computes in it, if anything.

        Returns the model time at which it began. Of work on a device, this is when the device began with it,
        by the device's own events.
        """
        seconds = self._clock.compute_s(seconds)
        begun_ns, begun_wall_ns = self._clock.now_ns(), self._clock.wall_ns()
        if real is not None:
            real()
            if seconds > 0:
                self._clock.wait_out(begun_wall_ns, seconds)
        elif seconds > 0:
            busy_wall_s = self._compute.run(seconds, label)
            if busy_wall_s is not None:
                busy_ns = self._clock.span_ns(round(busy_wall_s * NS_PER_S))
                return max(begun_ns, self._clock.now_ns() - busy_ns)
        return begun_ns

    def _span(self, kind: SpanKind, label: str, batch: str, layer: int, start_ns: int) -> None:
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
    """Model bytes that this rank sends to each peer rank."""
    sent = step.sent_by(group.index, len(group.members))
    return {group.members[index]: size for index, size in sent.items()}


def run(config: RankConfig) -> None:
    """Entry point of a forked rank. Returns only if the rank fails, after reporting it."""
    rank = Rank(config)
    try:
        rank.main()
    except BaseException as error:
        rank.failed(error)
        time.sleep(1.0)  # let the message leave before the process does

"""Runs a job in wall time: carries out the conductor's actions, and reports back what ranks did."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, assert_never

import msgspec
import zmq

from controller.flow import PortId, Transfer
from controller.protocol import BatchKnown, FlowCounts
from controller.units import NS_PER_S
from testbed.coordinator.controller import ControllerProcess
from testbed.coordinator.outages import Down
from testbed.coordinator.ranks import Ranks
from testbed.coordinator.real_model import is_real
from testbed.coordinator.silence import PATIENCE_S, Silences
from testbed.fabric import RunFailed, RunProgress
from testbed.faults import Straggler
from testbed.job import Job, MicroFlow
from testbed.live import FlowsNow, LiveState, PortNow
from testbed.serving.actions import Action, Announce, AtLayer, Expect, GoOn, Post, PostTimed, Run
from testbed.serving.conductor import Conductor
from testbed.serving.plans.fetching import by_sender
from workers.first_tokens import FirstSteps
from workers.options import ComputeMode
from workers.plan import BatchPlan, Collective, Compute, FetchPlan, Resume
from workers.protocol import (
    Arrived,
    BatchDone,
    FirstToken,
    Flows,
    FromRank,
    LayerBegun,
    Paused,
    Plan,
    TimedTransfer,
    Transfers,
)

_STALL_S = 10.0
_CUT_OFF_S = 20.0
"""With a link down for good, by how much longer than `_STALL_S` background decoding may be all that moves."""
_REPORT_S = 0.5
_PORTS_SHOWN = 8
_FLOWS_NAMED = 5


def longest_silence_s(plan: BatchPlan) -> float:
    """Model seconds for which nothing may move while ranks run `plan`: its longest compute or decode step.

    Everything else moves: ranks record each step and each chunk, and servers receive segments.
    """
    steps = [step for layer in plan.layers for step in layer.steps]
    return max(
        (
            *(max(step.seconds) for step in steps if isinstance(step, Compute)),
            *(max(own) for step in steps if isinstance(step, Collective) for own in step.round_seconds),
            *(request.decode_step_s for request in plan.requests),
        ),
        default=0.0,
    )


def _crowd(job: Job) -> float:
    """How many times longer real compute may take than modelled: ranks may share one core."""
    return len(job.placement.ranks) if job.workers.compute is not ComputeMode.TIMED else 1


class Faults(Protocol):
    """The faults that the scenario asks for: `testbed.emulation.faults.FaultInjector`."""

    def holds_up(self) -> bool: ...

    def for_good(self) -> Sequence[str]: ...

    def controller_away(self) -> bool: ...


class _NoFaults:
    def holds_up(self) -> bool:
        return False

    def for_good(self) -> Sequence[str]:
        return ()

    def controller_away(self) -> bool:
        return False


NO_FAULTS: Faults = _NoFaults()


class Player:
    """Passes reports and due moments to the conductor, and carries out its actions, until it is done."""

    def __init__(
        self,
        job: Job,
        conductor: Conductor,
        controller: ControllerProcess,
        ranks: Ranks,
        progress: Callable[[RunProgress], None],
        ports: Callable[[], tuple[PortNow, ...]] = tuple,
        received: Callable[[], int] = int,
        silent_ports: Callable[[int], set[PortId]] = lambda _: set(),
        outages: Callable[[], Sequence[Down]] = tuple,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self._job = job
        self._conductor = conductor
        self._controller = controller
        self._ranks = ranks
        self._progress = progress
        self._ports = ports
        self._received = received
        self._silent_ports = silent_ports
        self._outages = outages
        self._faults = faults
        self._slowest = max((f.factor for f in job.faults if isinstance(f, Straggler)), default=1.0)
        self._flows: FlowsNow | None = None
        self._zero_wall_ns = 0
        self._patience_s = _STALL_S
        self._controller_silence = Silences(["the controller"], 0.0)
        self._last_start_ns = 0
        self._without_ranks: set[str] = set()
        self._real = is_real(job)
        self._plans: dict[str, BatchPlan] = {}
        self._first_steps = FirstSteps()

    def play(self, zero_wall_ns: int, alive: Callable[[], None]) -> None:
        """Return when all work is done. `alive` is called twice a second and may raise `RunFailed`.

        Raises `RunFailed` if a rank or the controller reports trouble, if the controller is silent, or if
        nothing has moved for `_STALL_S` longer than the work can explain. What moves are requests, what ranks
        record, and what `received` counts.
        """
        self._zero_wall_ns = zero_wall_ns
        poller = zmq.Poller()
        poller.register(self._ranks.inbox, zmq.POLLIN)
        poller.register(self._controller.inbox, zmq.POLLIN)
        moved = stepped = reported = time.monotonic()
        steps: tuple[int, ...] = ()
        self._controller_silence.look(moved)
        self._controller_silence.heard("the controller")
        self._do(self._conductor.begin())
        while not self._conductor.finished:
            due_ns = self._due_ns()
            wait_s = _REPORT_S if due_ns is None else min(_REPORT_S, self._wall_until(due_ns))
            ready = dict(poller.poll(max(0, math.ceil(wait_s * 1000))))
            if self._controller.inbox in ready:
                message = self._controller.receive()
                if isinstance(message, BatchKnown):
                    self._do(self._conductor.known(message.batch))
                elif isinstance(message, FlowCounts):
                    self._controller_silence.heard("the controller")
                    self._flows = msgspec.convert(message, FlowsNow, from_attributes=True)
            if self._ranks.inbox in ready:
                report = self._ranks.receive(0.0)
                if report is not None:
                    self._hear(report)
            self._act_if_due(self._now_ns())
            now = time.monotonic()
            reached = (self._conductor.steps, self._ranks.steps, self._received())
            excused = self._only_waits() or self._faults.holds_up()
            if excused or reached[:1] != steps[:1]:
                stepped = now
            if excused or reached != steps:
                moved, steps = now, reached
            if now - reported >= _REPORT_S:
                reported = now
                alive()
                self._ranks.check()
                self._controller_silence.look(now)
                if self._faults.controller_away():
                    self._controller_silence.heard("the controller")
                if self._controller_silence.too_long():
                    raise RunFailed(f"the controller has not answered for {PATIENCE_S:.0f} s")
                self._report()
            if now - moved > self._patience_s:
                raise RunFailed(
                    f"nothing has moved for {self._patience_s:.0f} s: {self._conductor.describe()};"
                    f" {self._where_it_hangs(round(moved * NS_PER_S))}{self._what_was_down()}"
                )
            cut_off = self._faults.for_good()
            if cut_off and now - stepped > self._patience_s + _CUT_OFF_S:
                raise RunFailed(
                    f"{', '.join(cut_off)} (faults), and no request has got on for {now - stepped:.0f} s:"
                    f" {self._conductor.describe()}"
                )

    def _where_it_hangs(self, moved_wall_ns: int) -> str:
        """The flows that should be moving, and the first port on the path of each that sends nothing."""
        answer = self._controller.sending()
        if answer.away:
            return f"bridges that are not connected: {', '.join(answer.away)}"
        sending = answer.flows
        if not sending:
            return "no flow has a permit that has not arrived"
        silent = self._silent_ports(moved_wall_ns)
        stuck = []
        for flow in sending[:_FLOWS_NAMED]:
            quiet = [f"{port} sends nothing" for port in flow.ports if port in silent]
            lost = f"{', '.join(flow.ports) or 'no port'} send, and nothing arrives"
            stuck.append(f"{flow.flow} ({quiet[0] if quiet else lost})")
        more = len(sending) - len(stuck)
        return "permitted and not arrived: " + ", ".join(stuck) + (f" and {more} more" if more else "")

    def _what_was_down(self) -> str:
        """The links that were down before, even if they are up again: what they cut off may not come back."""
        return "".join(f"; {one.link} was down for {one.wall_ns / NS_PER_S:.1f} s" for one in self._outages())

    def _report(self) -> None:
        """Report the progress, with what flows did at the last report, and ask what they do now."""
        done, total, now_ns = self._conductor.done, self._conductor.total, self._now_ns()
        ports = self._ports()
        live = LiveState(
            time_ns=now_ns,
            requests=self._conductor.requests_at(now_ns),
            flows=self._flows,
            ports=ports[:_PORTS_SHOWN],
            ports_in_all=len(ports),
        )
        self._progress(RunProgress(phase="running", done=done, total=total, live=live))
        self._controller.ask_flows()

    # --- when -----------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        wall_ns = time.monotonic_ns() - self._zero_wall_ns
        return round(wall_ns / self._job.scale.time_dilation)

    def _wall_until(self, model_ns: int) -> float:
        return (model_ns - self._now_ns()) * self._job.scale.time_dilation / NS_PER_S

    def _due_ns(self) -> int | None:
        """Model time of the next act of the conductor or start of a micro flow; None if none is planned."""
        due_ns = self._conductor.due_ns
        if due_ns is None and self._now_ns() < self._last_start_ns:
            return self._last_start_ns
        return due_ns

    def _only_waits(self) -> bool:
        """Whether nothing has to happen before the next arrival, or before the last micro flow starts."""
        return not self._conductor.under_way or self._now_ns() < self._last_start_ns

    def _act_if_due(self, now_ns: int) -> None:
        due_ns = self._conductor.due_ns
        if due_ns is not None and due_ns <= now_ns:
            self._do(self._conductor.act(now_ns))

    # --- what the conductor decides -------------------------------------------------------------

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Announce(batch=batch, ranks=ranks):
                    if not ranks:
                        self._without_ranks.add(batch.id)
                    self._controller.batch_started(batch, ranks)
                case Expect(plan=plan):
                    self._expect(plan)
                case Post(transfers=transfers):
                    self._post(transfers)
                case PostTimed(flows=flows):
                    self._post_timed(flows)
                case Run(plan=plan):
                    longest_s = longest_silence_s(plan) * _crowd(self._job) * self._slowest
                    longest_s *= self._job.scale.time_dilation
                    self._patience_s = max(self._patience_s, _STALL_S + longest_s)
                    for rank in plan.ranks:
                        self._ranks.send(rank, Plan(plan=plan))
                case GoOn(plan=plan):
                    for rank in plan.ranks:
                        self._ranks.send(rank, Resume(batch=plan.id))
                case AtLayer(batches=batches, layer=layer):
                    # Ranks that run a batch report its layers to the controller themselves.
                    for name in self._without_ranks.intersection(batches):
                        self._controller.layer_advanced(name, layer)
                case _:
                    assert_never(action)

    def _expect(self, plan: BatchPlan | FetchPlan) -> None:
        """Send a batch plan to its decode workers before the first flow of a request can arrive."""
        if isinstance(plan, BatchPlan):
            if self._real:
                self._plans[plan.id] = plan
            decoding = {rank for request in plan.requests for rank in request.decode_ranks}
            for rank in sorted(decoding - set(plan.ranks)):
                self._ranks.send(rank, Plan(plan=plan))

    def _post(self, transfers: tuple[Transfer, ...]) -> None:
        """Let ranks send. With real layers, they need to know which tokens of which request."""
        for rank, own in by_sender(transfers).items():
            wanted = {transfer.request for transfer in own}
            plans = [self._plans[batch] for batch in {t.batch: None for t in own} if batch in self._plans]
            requests = tuple(one for plan in plans for one in plan.requests if one.request in wanted)
            self._ranks.send(rank, Transfers(transfers=own, requests=requests))

    def _post_timed(self, flows: tuple[MicroFlow, ...]) -> None:
        by_source: dict[int, list[TimedTransfer]] = {}
        for flow in flows:
            self._last_start_ns = max(self._last_start_ns, flow.start_ns)
            timed = TimedTransfer(transfer=flow.transfer, start_ns=flow.start_ns)
            by_source.setdefault(flow.transfer.src, []).append(timed)
        for rank, own in by_source.items():
            self._ranks.send(rank, Flows(flows=tuple(own)))

    # --- what the ranks report ------------------------------------------------------------------

    def _hear(self, report: FromRank) -> None:
        conductor, now_ns = self._conductor, self._now_ns()
        match report:
            case Arrived():
                self._do(conductor.arrived(report.flow))
            case LayerBegun():
                self._do(conductor.layer_begun(now_ns, report.batch, report.rank, report.layer))
            case Paused():
                self._do(conductor.paused(now_ns, report.batch, report.rank, report.layer))
            case BatchDone():
                done = conductor.rank_done(now_ns, report.batch, report.rank, report.start_ns, report.end_ns)
                self._do(done)
            case FirstToken():
                first = self._first_steps.taken(report)
                if first is not None:
                    self._do(conductor.first_token(first.time_ns, first.request, first.p2d_end_ns))

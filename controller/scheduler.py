"""The scheduling core: events in, level assignments out. It reads no clock and sends no bytes.

Its driver (a simulator's event loop, the controller of an emulated network, a cluster's daemon) reports
what happens, and enforces the assignments that come back. A flow may start once its first assignment is in
force. Later assignments move it to other levels.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import msgspec

from controller.flow import Assignment, Batch, Flow, GroupAssignment, Level, PortId, Stage
from controller.overload import Overload, RequestControl
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.ports import PortLoads, UnreadPortLoads
from controller.verdict_checks import SchedulerError, VerdictChecks
from controller.view import ActiveBatch, ActiveFlow, FlowGroup, View

_Standing = tuple[Level, float, int | None]
"""What is in force for a flow: level, order and rate in bits/s."""


_PRUNED: _Standing = (Level.SCAVENGER, 0.0, None)


class Scheduler:
    """Keeps track of active flows and batches, and asks `policy` about every event.

    `ports` are the capacities of all ports in model bits/s. Each call takes the model time in
    nanoseconds; a time before the last one counts as the last one. An assignment is returned only
    if it changes something. Memory is bounded by the active flows and batches.

    `exact` says that the fabric can serve the flows of a level in an exact order and pace them.
    Assignments then carry `order` and `rate_bps`. Without it a policy has levels only. `hybrid` says that
    only hosts can do this, and other ports know levels.

    `control` prunes requests, whatever the policy, when a batch arrives or departs. The flows of a pruned
    request are in SCAVENGER until a later review frees them. The policy continues to decide meanwhile
    and sees its own levels; a freed flow gets the last one. `pruned(request, True)` is called when a
    request is pruned, `pruned(request, False)` when it is freed.

    `view` is what the policy sees. Do not change it.

    Raises `controller.policy.PolicyError` for a policy whose weights of levels no fabric can carry out.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        ports: Mapping[PortId, int],
        exact: bool = False,
        hybrid: bool = False,
        control: RequestControl | None = None,
        pruned: Callable[[str, bool], None] = lambda request, pruned: None,
    ) -> None:
        self._policy = policy
        self._checks = VerdictChecks(policy)
        kept = PortLoads if policy.reads_ports else UnreadPortLoads
        self._loads = kept(ports, rho_window_ns=policy.rho_window_ns)
        self._overload = Overload(control, ports, pruned)
        self._held: set[str] = set()
        self._flows: dict[str, ActiveFlow] = {}
        self._batches: dict[str, ActiveBatch] = {}
        self._unpaced: dict[str, ActiveFlow] = {}
        self.view = View(
            flows=MappingProxyType(self._flows),
            batches=MappingProxyType(self._batches),
            unpaced=MappingProxyType(self._unpaced),
            ports=self._loads,
            exact=exact,
            levels=hybrid or not exact,
            left_on_ports=self._left_on_ports,
        )
        self._fabric_left: Callable[[str], Mapping[PortId, int]] | None = None
        self._now_ns = 0
        self._tick_ns: int | None = None
        self._counts_bytes = True

    @property
    def by_group(self) -> bool:
        """Whether a fabric can move the flows of a group together (`Policy.by_group`).

        Not under request control, which can overrule the policy for single flows.
        """
        return self._policy.by_group and not self._overload.controls

    def move_groups(self, left_on_ports: Callable[[str], Mapping[PortId, int]]) -> None:
        """From now on, answer with a `GroupAssignment` where the policy gives a verdict on a group.

        Only if `by_group`. `left_on_ports` says what the flows of a group have left now on each port. The
        caller need not report progress.
        """
        self._fabric_left = left_on_ports
        self.view = replace(self.view, left_is_current=True)

    # --- events ---------------------------------------------------------------------------------

    def batch_started(self, now_ns: int, batch: Batch) -> list[Assignment]:
        """A prefill batch has been formed. It is at layer 0."""
        self._advance(now_ns)
        if batch.id in self._batches:
            raise SchedulerError(f"batch {batch.id!r} has started already")
        if batch.layers < 1:
            raise SchedulerError(f"batch {batch.id!r} has {batch.layers} layers")
        self._check_ports(batch)
        active = self._batches[batch.id] = ActiveBatch(batch)
        self._overload.started(batch)
        return self._review("on_batch", self._policy.on_batch(self._now_ns, active, self.view))

    def standing(self, stage: Stage, batch_id: str | None) -> Verdict | None:
        """The verdict on every flow of `stage` of an active batch (or of no batch), if the policy gives one.

        The caller need not submit these flows, but has to count their bytes in `loads`. Without an exact
        order the verdict has none, and no rate. There is none under request control, which can overrule it.
        """
        if self._overload.controls:
            return None
        batch = None if batch_id is None else self._batches.get(batch_id)
        if batch is None and batch_id is not None and stage is not Stage.P2D:
            raise SchedulerError(f"flows of batch {batch_id!r}, which is not active")
        verdict = self._policy.standing(stage, batch, self.view)
        if verdict is None:
            return None
        if not isinstance(verdict, Verdict):
            raise self._checks.wrong_return("standing", verdict, "which is no Verdict")
        self._checks.check(f"{stage.value} flows", verdict)
        return verdict if self.view.exact else msgspec.structs.replace(verdict, order=0.0, rate_bps=None)

    @property
    def loads(self) -> PortLoads | None:
        """The loads of ports; None if the policy reads none."""
        return self._loads if self._policy.reads_ports else None

    def hand_over_bytes(self) -> bool:
        """Let the caller count the bytes of all flows in `loads` from now on, and report no progress.

        Returns False, and nothing changes, if the policy reads progress, or under request control, which
        does.
        """
        self._counts_bytes = self._policy.reads_progress or self._overload.controls
        return not self._counts_bytes

    def submit(self, now_ns: int, flow: Flow) -> list[Assignment]:
        """`flow` wants to start. Returns its first assignment, and no other.

        If an S1 or S2 flow names a batch, that batch must be active. An S3 flow may be submitted after its
        batch has departed, because ranks do not finish at the same time. Only its deadline matters then.
        """
        verdict = self.first_verdict(now_ns, flow)
        return self._told(self._flows[flow.id], before=None, reason=verdict.reason)

    def first_verdict(self, now_ns: int, flow: Flow) -> Verdict:
        """As `submit`, for a caller that needs no assignment: what is in force for `flow` from now on.

        Without an exact order, the order and the rate in it mean nothing.
        """
        self._advance(now_ns)
        self._check(flow)
        batch = None if flow.batch is None else self._batches.get(flow.batch)
        if batch is None and flow.batch is not None and flow.stage is not Stage.P2D:
            raise SchedulerError(f"flow {flow.id!r} is of batch {flow.batch!r}, which is not active")
        active = ActiveFlow(flow, self._now_ns, flow.size_bytes, batch)
        self._flows[flow.id] = active
        if batch is not None:
            batch.flows[flow.id] = active
        if batch is None or batch.compute_over:
            self._unpaced[flow.id] = active
        if self._counts_bytes and flow.stage is not Stage.BACKGROUND:
            self._loads.submitted(flow)
        verdict = self._policy.on_submit(self._now_ns, active, self.view)
        if not isinstance(verdict, Verdict):
            raise self._checks.wrong_return("on_submit", verdict, "which is no Verdict")
        self._schedule_tick()
        self._take(active, verdict)
        pruned = self._overload.reason(active) if self._overload.controls else None
        if pruned is None:
            return verdict
        self._hold(active)
        return Verdict(Level.SCAVENGER, pruned)

    def layer_advanced(self, now_ns: int, batch_id: str, layer: int) -> list[Assignment]:
        """The batch begins `layer`; `layer` is its number of layers when its compute is over.

        Only the furthest report counts: one of the current or an earlier layer changes nothing.
        """
        self._advance(now_ns)
        batch = self._batch(batch_id)
        if not 0 <= layer <= batch.batch.layers:
            raise SchedulerError(
                f"batch {batch_id!r} has {batch.batch.layers} layers and cannot begin layer {layer}"
            )
        if layer <= batch.layer:
            return []
        batch.layer = layer
        if batch.compute_over:
            self._unpaced.update(batch.flows)
        assignments = self._apply("on_layer", self._policy.on_layer(self._now_ns, batch, self.view))
        return assignments + self._depart(batch)

    def progress(self, now_ns: int, flow_id: str, bytes_left: int) -> list[Assignment]:
        """`bytes_left` of the flow are not at the receiver yet. A report that is not lower is ignored."""
        self._advance(now_ns)
        flow = self._flow(flow_id)
        if not 0 <= bytes_left <= flow.flow.size_bytes:
            raise SchedulerError(
                f"flow {flow_id!r} of {flow.flow.size_bytes} bytes cannot have {bytes_left} left"
            )
        if bytes_left >= flow.bytes_left:
            return []
        if flow.flow.stage is not Stage.BACKGROUND:
            self._loads.moved(self._now_ns, flow.flow, before_bytes=flow.bytes_left, after_bytes=bytes_left)
        self._overload.moved(flow.flow, before_bytes=flow.bytes_left, after_bytes=bytes_left)
        flow.bytes_left = bytes_left
        return self._apply("on_progress", self._policy.on_progress(self._now_ns, flow, self.view))

    def completion(self, now_ns: int, flow_id: str) -> list[Assignment]:
        """The last byte of the flow is at its receiver; the flow is forgotten."""
        self._advance(now_ns)
        flow = self._flow(flow_id)
        if self._counts_bytes and flow.flow.stage is not Stage.BACKGROUND:
            self._loads.finished(self._now_ns, flow.flow, before_bytes=flow.bytes_left)
        if self._overload.controls:
            self._overload.moved(flow.flow, before_bytes=flow.bytes_left, after_bytes=0)
            self._held.discard(flow_id)
        flow.bytes_left = 0
        del self._flows[flow_id]
        self._unpaced.pop(flow_id, None)
        batch = flow.batch
        if batch is not None:
            del batch.flows[flow_id]
        assignments = self._apply("on_completion", self._policy.on_completion(self._now_ns, flow, self.view))
        if batch is not None and not batch.flows:
            assignments += self._depart(batch)
        return assignments

    def next_tick_ns(self) -> int | None:
        """When to call `tick` next, in model time; None while the policy wants no ticks."""
        return self._tick_ns

    def tick(self, now_ns: int) -> list[Assignment]:
        """Let the policy look at its flows again. Before `next_tick_ns` this does nothing."""
        self._advance(now_ns)
        if self._tick_ns is None or self._now_ns < self._tick_ns:
            return []
        self._tick_ns = None
        return self._apply("on_tick", self._policy.on_tick(self._now_ns, self.view))

    # --- inside ---------------------------------------------------------------------------------

    def _advance(self, now_ns: int) -> None:
        if now_ns > self._now_ns:
            self._now_ns = now_ns

    def _check(self, flow: Flow) -> None:
        if flow.id in self._flows:
            raise SchedulerError(f"flow {flow.id!r} is active already")
        if flow.size_bytes < 0:
            raise SchedulerError(f"flow {flow.id!r} has a size of {flow.size_bytes} bytes")
        if self._loads.takes(flow.load):
            return
        for port, load_bytes in flow.load.items():
            if port not in self._loads:
                raise SchedulerError(f"flow {flow.id!r} crosses {port!r}, which is not a port here")
            if load_bytes < 0:
                raise SchedulerError(f"flow {flow.id!r} loads {port!r} with {load_bytes} bytes")

    def _check_ports(self, batch: Batch) -> None:
        for load in (batch.load, *(request.load for request in batch.requests)):
            unknown = next((port for port in load if port not in self._loads), None)
            if unknown is not None:
                raise SchedulerError(f"batch {batch.id!r} loads {unknown!r}, which is not a port here")

    def _flow(self, flow_id: str) -> ActiveFlow:
        try:
            return self._flows[flow_id]
        except KeyError:
            raise SchedulerError(f"flow {flow_id!r} is not active") from None

    def _batch(self, batch_id: str) -> ActiveBatch:
        try:
            return self._batches[batch_id]
        except KeyError:
            raise SchedulerError(f"batch {batch_id!r} is not active") from None

    def _depart(self, batch: ActiveBatch) -> list[Assignment]:
        if batch.flows or not batch.compute_over:
            return []
        del self._batches[batch.batch.id]
        self._overload.departed(batch.batch.id)
        return self._review("on_departure", self._policy.on_departure(self._now_ns, batch, self.view))

    def _review(self, hook: str, verdicts: Verdicts) -> list[Assignment]:
        """A batch has arrived or departed: decide anew which requests are pruned, then apply `verdicts`."""
        changed = self._overload.review(self._now_ns, self._batches.values())
        flows = [flow for batch in changed for flow in batch.flows.values()]
        assignments: list[Assignment] = []
        for flow in flows:
            pruned = self._overload.reason(flow)
            if pruned is not None and flow.flow.id not in self._held:
                before = self._in_force(flow)
                self._hold(flow)
                assignments += self._told(flow, before, pruned)
        assignments += self._apply(hook, verdicts)
        # Flows are freed last, so that each gets the level of the newest verdict, in a single assignment.
        for flow in flows:
            if flow.flow.id in self._held and self._overload.reason(flow) is None:
                self._held.remove(flow.flow.id)
                self._loads.take_back(flow.flow, flow.bytes_left)
                assignments += self._told(flow, _PRUNED, self._overload.freed)
        return assignments

    def _hold(self, flow: ActiveFlow) -> None:
        self._held.add(flow.flow.id)
        self._loads.put_aside(flow.flow, flow.bytes_left)

    def _left_on_ports(self, group: FlowGroup) -> Mapping[PortId, int]:
        return group.left_on_ports() if self._fabric_left is None else self._fabric_left(group.name)

    def _apply(self, hook: str, verdicts: Verdicts) -> list[Assignment]:
        """Carry out what `hook` of the policy returned."""
        assignments: list[Assignment] = []
        if verdicts is UNCHANGED:
            self._schedule_tick()
            return assignments
        self._checks.check_mapping(hook, verdicts)
        self._schedule_tick()
        for named, verdict in verdicts.items():
            if not isinstance(named, FlowGroup):
                flows: Iterable[ActiveFlow] = (self._flow(named),)
            elif self._fabric_left is None:
                flows = named.flows.values()
            else:
                assignments.append(self._for_group(named, verdict))  # type: ignore[arg-type]
                continue
            for flow in flows:
                if self._changes(flow, verdict):
                    before = self._in_force(flow)
                    self._take(flow, verdict)
                    assignments += self._told(flow, before, verdict.reason)
        return assignments

    def _for_group(self, group: FlowGroup, verdict: Verdict) -> GroupAssignment:
        self._checks.check(group.name, verdict)
        return GroupAssignment(
            group=group.name,
            level=verdict.level,
            reason=verdict.reason,
            order=verdict.order if self.view.exact else 0.0,
            rate_bps=verdict.rate_bps if self.view.exact else None,
        )

    def _changes(self, flow: ActiveFlow, verdict: Verdict) -> bool:
        if verdict.level != flow.level:
            return True
        return self.view.exact and (verdict.order, verdict.rate_bps) != (flow.order, flow.rate_bps)

    def _take(self, flow: ActiveFlow, verdict: Verdict) -> None:
        """Note the policy's verdict. It does not take effect while the flow's request is pruned."""
        if (
            verdict.level not in self._checks.given
            or verdict.rate_bps is not None
            or verdict.order != verdict.order
        ):
            self._checks.check(f"flow {flow.flow.id!r}", verdict)
        flow.level = verdict.level
        if self.view.exact:
            flow.order, flow.rate_bps = verdict.order, verdict.rate_bps

    def _in_force(self, flow: ActiveFlow) -> _Standing:
        if flow.flow.id in self._held:
            return _PRUNED
        return flow.level, flow.order, flow.rate_bps

    def _told(self, flow: ActiveFlow, before: _Standing | None, reason: str) -> list[Assignment]:
        """The assignment, if what is in force differs from `before` (None: the flow is new)."""
        after = self._in_force(flow)
        if after == before:
            return []
        level, order, rate_bps = after
        return [
            Assignment(
                time_ns=self._now_ns,
                flow=flow.flow.id,
                level=level,
                previous=None if before is None else before[0],
                reason=reason,
                order=order,
                rate_bps=rate_bps,
            )
        ]

    def _schedule_tick(self) -> None:
        recheck_ns = self._policy.recheck_ns
        if recheck_ns is None or not self._policy.wants_ticks(self.view):
            self._tick_ns = None
        elif self._tick_ns is None or self._now_ns + recheck_ns < self._tick_ns:
            self._tick_ns = self._now_ns + recheck_ns

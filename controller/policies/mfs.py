"""Multi-stage flow scheduling: defer S3 until its deadline presses, promote, never demote.

Rules, formulas and what we chose where the paper leaves a choice: docs/policies/mfs.md.
"""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, NamedTuple

from controller.flow import Level, PortId, Stage
from controller.policies.base import (
    UNCHANGED,
    ActiveBatch,
    ActiveFlow,
    Policy,
    Verdict,
    Verdicts,
    View,
)
from controller.policies.registry import register
from controller.ports import RHO_CAP, Due, PortLoads, left_on
from controller.rmlq import Rmlq
from controller.urgency import mlu, rli

NS_PER_MS = 1_000_000


class Rho(enum.Enum):
    MEASURED = "measured"
    OFF = "off"


class Demand(enum.Enum):
    """Whose bytes MLU counts: all S3 due at the port by the flow's deadline, or the flow's own."""

    PORT = "port"
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class MfsOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels of the queue, 2 to 6"] = 6
    mlu_top: Annotated[float, "U: from this MLU on, S3 goes to the reserved level P1"] = 0.5
    mlu_base: Annotated[float, "E: each MLU threshold is the one above it divided by this"] = 4.0
    recheck_ns: Annotated[int, "how often S3 is looked at once no layer boundary comes"] = 5_000_000
    rho: Annotated[float | Rho, "share of a port S1 and S2 take: measured, off, 0 to 0.95"] = Rho.MEASURED
    rho_window_ms: Annotated[float, "time constant of the measured rho, model ms"] = 500.0
    demand: Annotated[Demand, "bytes in MLU: port (all S3 due no later) or own"] = Demand.PORT
    rli: Annotated[bool, "off: all S1 on P3, whatever layer needs it"] = True
    mlu: Annotated[bool, "off: S3 stays on the lowest level"] = True
    red: Annotated[bool, "off: no tie-break between batches"] = True
    monotonic: Annotated[bool, "off: flows are demoted too when their urgency falls"] = True
    layer_boundary: Annotated[bool, "off: S3 is looked at on every recheck and report"] = True
    s3_skips_p2: Annotated[bool, "on: S3 never shares P2 with what blocks compute"] = False

    def __post_init__(self) -> None:
        self.rmlq()
        if not isinstance(self.rho, Rho) and not 0.0 <= self.rho <= RHO_CAP:
            raise ValueError(f"rho must be 0 to {RHO_CAP}, not {self.rho}")
        if self.recheck_ns <= 0:
            raise ValueError(f"recheck_ns must be above 0, not {self.recheck_ns}")
        if not 1e-3 <= self.rho_window_ms < math.inf:
            raise ValueError(f"rho_window_ms must be at least 0.001, not {self.rho_window_ms}")

    def rmlq(self) -> Rmlq:
        return Rmlq(
            levels=self.levels,
            mlu_top=self.mlu_top,
            mlu_base=self.mlu_base,
            monotonic=self.monotonic,
            s3_skips_p2=self.s3_skips_p2,
        )


@register
class Mfs(Policy):
    name = "mfs"
    summary = "RMLQ: S2, then S1 by layers ahead; S3 deferred and promoted by deadline pressure"
    Options = MfsOptions

    def __init__(self, options: MfsOptions) -> None:
        super().__init__(options)
        self._options = options
        self._queue = options.rmlq()
        self.recheck_ns = options.recheck_ns
        self.rho_window_ns = round(options.rho_window_ms * NS_PER_MS)

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        if flow.flow.stage is not Stage.P2D:
            return self._early(flow, view)
        gauge = _Gauge(now_ns, view.ports, self._options, self._queue)
        worst = gauge.worst(flow)
        return Verdict(self._s3_level(worst), self._s3_reason(flow, worst, gauge))

    def on_layer(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        return self._review(now_ns, batch.flows.values(), view)

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        if self._options.layer_boundary:
            return UNCHANGED
        return self._review(now_ns, (flow,), view)

    def wants_ticks(self, view: View) -> bool:
        return bool(view.unpaced if self._options.layer_boundary else view.flows)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        due = view.unpaced if self._options.layer_boundary else view.flows
        s3 = (flow for flow in due.values() if flow.flow.stage is Stage.P2D)
        return self._review(now_ns, s3, view)

    def _review(self, now_ns: int, flows: Iterable[ActiveFlow], view: View) -> Verdicts:
        gauge = _Gauge(now_ns, view.ports, self._options, self._queue)
        verdicts: dict[str, Verdict] = {}
        for flow in flows:
            p2d = flow.flow.stage is Stage.P2D
            verdict = self._review_s3(flow, gauge) if p2d else self._review_early(flow, view)
            if verdict is not None:
                verdicts[flow.flow.id] = verdict
        return verdicts

    # --- S1 and S2 ------------------------------------------------------------------------------

    def _early(self, flow: ActiveFlow, view: View) -> Verdict:
        if flow.flow.stage is Stage.COLLECTIVE:
            return Verdict(self._queue.for_rli(0), "S2 blocks compute")
        if not self._options.rli:
            return Verdict(self._queue.for_rli(1), "S1, RLI off")
        layers_ahead = _rli(flow)
        level = self._queue.for_rli(layers_ahead)
        reason = f"RLI {layers_ahead}"
        if self._options.red and level < self._queue.lowest:
            rival = _earlier_rival(flow, layers_ahead, view)
            if rival is not None:
                return Verdict(
                    self._queue.lower(level),
                    f"{reason}, one level lower: the RED of batch {rival} is smaller",
                )
        return Verdict(level, reason)

    def _review_early(self, flow: ActiveFlow, view: View) -> Verdict | None:
        # RED only lowers a level: where RLI alone promises no rise there is no need to look for ties.
        if self._queue.monotonic and self._queue.for_rli(_rli(flow)) >= flow.level:
            return None
        verdict = self._early(flow, view)
        return verdict if self._queue.moves(flow.level, verdict.level) else None

    # --- S3 -------------------------------------------------------------------------------------

    def _review_s3(self, flow: ActiveFlow, gauge: "_Gauge") -> Verdict | None:
        if self._queue.monotonic and flow.level == self._queue.reserved:
            return None
        worst = gauge.worst(flow)
        level = self._s3_level(worst)
        if not self._queue.moves(flow.level, level):
            return None
        return Verdict(level, self._s3_reason(flow, worst, gauge))

    def _s3_level(self, worst: "_Worst | None") -> Level:
        return self._queue.lowest if worst is None else worst.level

    def _s3_reason(self, flow: ActiveFlow, worst: "_Worst | None", gauge: "_Gauge") -> str:
        if not self._options.mlu:
            return "S3, MLU off"
        if flow.flow.deadline_ns is None:
            return "S3 without a deadline"
        if worst is None:
            return "S3 with no port to share"
        steps = self._queue.mlu_thresholds
        reached = next((q for q in steps if worst.mlu >= q), None)
        against = f"< {_figure(steps[-1])}" if reached is None else f">= {_figure(reached)}"
        if math.isinf(worst.mlu):
            against += ", the deadline has passed,"
        due = gauge.due(flow, worst.port, flow.flow.deadline_ns)
        flows = "1 flow" if due.flows == 1 else f"{due.flows} flows"
        rho = "" if self._options.rho is Rho.OFF else f", rho {gauge.rho(worst.port):.2f}"
        return (
            f"MLU {_figure(worst.mlu)} {against} on {worst.port} ({flows}, {due.bytes / 1e6:.3g} MB due{rho})"
        )


class _Worst(NamedTuple):
    """The port of a flow where its MLU is highest, and the level that this MLU is worth."""

    mlu: float
    port: PortId
    level: Level


class _Gauge:
    """MLU of flows at one moment. The flows of a request mostly share path and deadline, and with
    them MLU: it is reckoned once."""

    def __init__(self, now_ns: int, ports: PortLoads, options: MfsOptions, queue: Rmlq) -> None:
        self._now_ns = now_ns
        self._ports = ports
        self._options = options
        self._queue = queue
        self._rho: dict[PortId, float] = {}
        self._worst: dict[tuple[int, tuple[PortId, ...]], _Worst] = {}

    def worst(self, flow: ActiveFlow) -> _Worst | None:
        """None where MLU says nothing: switched off, no deadline, or no port on the way."""
        deadline_ns = flow.flow.deadline_ns
        if not self._options.mlu or deadline_ns is None or not flow.flow.load:
            return None
        if self._options.demand is Demand.OWN:
            return self._reckon(flow, deadline_ns)
        key = (deadline_ns, tuple(flow.flow.load))
        worst = self._worst.get(key)
        if worst is None:
            worst = self._worst[key] = self._reckon(flow, deadline_ns)
        return worst

    def due(self, flow: ActiveFlow, port: PortId, deadline_ns: int) -> Due:
        if self._options.demand is Demand.OWN:
            return Due(left_on(flow.flow, port, flow.bytes_left), 1)
        return self._ports.due(port, deadline_ns)

    def rho(self, port: PortId) -> float:
        if port not in self._rho:
            match self._options.rho:
                case Rho.MEASURED:
                    self._rho[port] = self._ports.rho(port, self._now_ns)
                case Rho.OFF:
                    self._rho[port] = 0.0
                case constant:
                    self._rho[port] = constant
        return self._rho[port]

    def _reckon(self, flow: ActiveFlow, deadline_ns: int) -> _Worst:
        left_ns = deadline_ns - self._now_ns
        mlus = [
            mlu(self.due(flow, port, deadline_ns).bytes, left_ns, self._ports.bps(port), self.rho(port))
            for port in flow.flow.load
        ]
        highest, port = max(zip(mlus, flow.flow.load, strict=True), key=itemgetter(0))
        return _Worst(highest, port, self._queue.for_mlu(highest))


def _rli(flow: ActiveFlow) -> int:
    """A flow that names no layer holds up compute now; one without a batch counts from layer 0."""
    if flow.flow.layer is None:
        return 0
    return rli(flow.flow.layer, 0 if flow.batch is None else flow.batch.layer)


def _earlier_rival(flow: ActiveFlow, layers_ahead: int, view: View) -> str | None:
    """A batch of smaller RED with an S1 or S2 flow of equal RLI on one of this flow's ports."""
    if flow.batch is None:
        return None
    for port in flow.flow.load:
        for batch_id, layers in view.ports.early_layers(port).items():
            rival = view.batches.get(batch_id)
            if rival is None or not _sooner(rival.red_ns, flow.batch.red_ns):
                continue
            if rival.layer + layers_ahead in layers:
                return batch_id
            # What the rival computes now is blocked by S2 and by S1 that is overdue.
            if layers_ahead == 0 and any(layer < rival.layer for layer in layers):
                return batch_id
    return None


def _sooner(red_ns: int | None, than_ns: int | None) -> bool:
    return red_ns is not None and (than_ns is None or red_ns < than_ns)


def _figure(number: float) -> str:
    return f"{number:.2f}" if number >= 0.2 else f"{number:.3g}"

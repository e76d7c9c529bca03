"""Multi-stage flow scheduling: defer S3 until its deadline is close, and promote flows, never demote them.

Rules, formulas, and our choices where the paper leaves one: docs/policies/mfs.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from controller.flow import Level, PortId, Stage
from controller.parts.background import BACKGROUND
from controller.parts.early import AFTER_EARLY, WaitingS1, early_order, layers_ahead
from controller.parts.pressure import (
    WINDOW_MS,
    Demand,
    Gauge,
    Late,
    Rho,
    SharedDeadline,
    SharedDeadlines,
    Worst,
    check_rho,
)
from controller.parts.recheck import RECHECK_NS, check_recheck
from controller.parts.rmlq import Rmlq, S3Levels
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.units import NS_PER_MS
from controller.urgency import rli
from controller.view import ActiveBatch, ActiveFlow, View

_MLU_TOP = Meta(gt=0, le=1e6)
_MLU_BASE = Meta(gt=1, le=1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class MfsOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels of the queue", Meta(ge=2, le=6)] = 6
    s3_levels: Annotated[
        int | S3Levels, "lowest levels for S3 alone, 0 to K-2; 0: S3 climbs among S1, S2"
    ] = S3Levels.AUTO
    mlu_top: Annotated[float, "U: from this MLU on, S3 goes to the reserved level P1", _MLU_TOP] = 0.5
    mlu_base: Annotated[float, "E: each MLU threshold is the one above it divided by this", _MLU_BASE] = 4.0
    recheck_ns: Annotated[int, "how often S3 without layer boundaries is reviewed, model ns", RECHECK_NS] = (
        5_000_000
    )
    rho: Annotated[float | Rho, "share of a port S1 and S2 take: measured, off, 0 to 0.95"] = Rho.MEASURED
    rho_window_ms: Annotated[float, "time constant of the measured rho, model ms", WINDOW_MS] = 500.0
    demand: Annotated[Demand, "bytes in MLU: port (all S3 due no later) or own"] = Demand.PORT
    late: Annotated[Late, "level of S3 whose deadline has passed: lowest or top"] = Late.LOWEST
    rli: Annotated[bool, "off: all S1 on P3, whatever layer needs it"] = True
    mlu: Annotated[bool, "off: S3 stays on the lowest level"] = True
    red: Annotated[bool, "off: no tie-break between batches"] = True
    monotonic: Annotated[bool, "off: flows are also demoted when their urgency falls"] = True
    layer_boundary: Annotated[bool, "off: S3 is reviewed at every recheck and progress report"] = True

    def __post_init__(self) -> None:
        self.rmlq()
        check_rho(self.rho, self.rho_window_ms)
        check_recheck(self.recheck_ns)
        if not max(self.mlu_top, self.mlu_base) <= 1e6:
            raise ValueError(f"mlu_top and mlu_base must be at most 1e6, not {self.mlu_top}, {self.mlu_base}")

    def rmlq(self) -> Rmlq:
        return Rmlq(
            levels=self.levels,
            mlu_top=self.mlu_top,
            mlu_base=self.mlu_base,
            monotonic=self.monotonic,
            s3_levels=self.s3_levels,
        )


@register
class Mfs(Policy):
    name = "mfs"
    summary = "RMLQ: S2, then S1 by layers ahead, then S3, which deadline pressure promotes to the top"
    Options = MfsOptions

    def __init__(self, options: MfsOptions) -> None:
        super().__init__(options)
        self._options = options
        self._queue = options.rmlq()
        self._gauge = Gauge(self._queue, rho=options.rho, demand=options.demand, late=options.late)
        self._s3 = SharedDeadlines(options.demand)
        self._s1 = WaitingS1()
        # Per batch, the batches with a smaller RED. An arrival changes it; a departure only frees memory.
        self._sooner: dict[str, dict[str, ActiveBatch]] = {}
        if type(self) is Mfs:  # a subclass may read more
            self.reads_progress = options.demand is Demand.OWN or not options.layer_boundary
        self.recheck_ns = options.recheck_ns
        self.rho_window_ns = round(options.rho_window_ms * NS_PER_MS)

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict | None:
        if stage is Stage.BACKGROUND:
            return BACKGROUND
        # Ticks are for the flows that no layer boundary reviews: S2 of a batch is never among them.
        paced = batch is not None and self._options.layer_boundary
        return self._s2(batch) if stage is Stage.COLLECTIVE and paced else None

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        stage = flow.flow.stage
        if stage is not Stage.P2D:
            if stage is Stage.BACKGROUND:
                return BACKGROUND
            if stage is Stage.KV_REUSE:
                self._s1.add(flow)
            return self._early(flow, view)
        if not self._options.mlu:
            verdict = Verdict(self._queue.lowest, "S3, MLU off", AFTER_EARLY)
        else:
            verdict = self._s3_verdict(now_ns, flow, self._gauge.worst(now_ns, flow, view.ports))
        self._s3.add(flow, verdict.level)
        return verdict

    def on_batch(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        self._sooner.clear()
        return UNCHANGED

    def on_layer(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        verdicts = self._review_s1(batch, view)
        verdicts.update(self._review_s3(now_ns, self._s3.of_batch(batch.batch.id), view))
        return verdicts

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        if self._options.layer_boundary or flow.flow.stage is not Stage.P2D:
            return UNCHANGED
        return self._review_s3(now_ns, (self._s3.with_flow(flow),), view)

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        stage = flow.flow.stage
        if stage is Stage.P2D:
            self._s3.remove(flow)
        elif stage is Stage.KV_REUSE:
            self._s1.remove(flow)
        return UNCHANGED

    def on_departure(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        self._sooner.clear()
        return UNCHANGED

    def wants_ticks(self, view: View) -> bool:
        return bool(view.unpaced if self._options.layer_boundary else view.flows)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        due = self._s3.unpaced() if self._options.layer_boundary else self._s3.all()
        return self._review_s3(now_ns, due, view)

    # --- S1 and S2 ------------------------------------------------------------------------------

    def _early(self, flow: ActiveFlow, view: View) -> Verdict:
        if flow.flow.stage is Stage.COLLECTIVE:
            return self._s2(flow.batch)
        if not self._options.rli:
            return Verdict(self._queue.for_rli(1), "S1, RLI off", self._arbitration(flow.batch, 1))
        ahead = layers_ahead(flow)
        level = self._queue.for_rli(ahead)
        reason = f"RLI {ahead}"
        order = self._arbitration(flow.batch, ahead)
        if view.levels and self._options.red and level < self._queue.lowest_early:
            rival = self._earlier_rival(flow, ahead, view)
            if rival is not None:
                return Verdict(
                    self._queue.below_early(level),
                    f"{reason}, one level lower: the RED of batch {rival} is smaller",
                    order,
                )
        return Verdict(level, reason, order)

    def _s2(self, batch: ActiveBatch | None) -> Verdict:
        return Verdict(self._queue.for_rli(0), "S2 blocks compute", self._arbitration(batch, 0))

    def _earlier_rival(self, flow: ActiveFlow, ahead: int, view: View) -> str | None:
        """A batch with a smaller RED that has an S1 or S2 flow of equal RLI on one of the flow's ports."""
        batch = flow.batch
        if batch is None:
            return None
        sooner = self._sooner.get(batch.batch.id)
        if sooner is None:
            rivals = view.batches.items()
            sooner = {name: rival for name, rival in rivals if _sooner(rival.red_ns, batch.red_ns)}
            self._sooner[batch.batch.id] = sooner
        return view.ports.first_early(flow.flow.load, sooner, ahead) if sooner else None

    def _arbitration(self, batch: ActiveBatch | None, ahead: int) -> float:
        """The exact order inside a level: by RLI, then by RED. S3 comes after all of these."""
        return early_order(batch, ahead, red=self._options.red)

    def _review_s1(self, batch: ActiveBatch, view: View) -> dict[str, Verdict]:
        """Verdicts on the batch's S1 flows. With `monotonic`, layers that cannot rise are skipped."""
        if view.exact:
            return self._reorder_s1(batch, view)
        verdicts: dict[str, Verdict] = {}
        for layer, flows in self._s1.of_batch(batch).items():
            by_rli = self._queue.for_rli(rli(layer, batch.layer))
            if self._queue.monotonic and by_rli == self._queue.lowest_early:
                continue
            by_path: dict[tuple[PortId, ...], Verdict] = {}
            for name, flow in flows.items():
                # RED only lowers a level: if RLI gives no promotion, there is no need to look for ties.
                if self._queue.monotonic and by_rli >= flow.level:
                    continue
                path = tuple(flow.flow.load)
                verdict = by_path.get(path) or by_path.setdefault(path, self._early(flow, view))
                if self._queue.moves(flow.level, verdict.level):
                    verdicts[name] = verdict
        return verdicts

    def _reorder_s1(self, batch: ActiveBatch, view: View) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        for flows in self._s1.of_batch(batch).values():
            for name, flow in flows.items():
                verdict = self._early(flow, view)
                level = verdict.level if self._queue.moves(flow.level, verdict.level) else flow.level
                verdicts[name] = msgspec.structs.replace(verdict, level=level)
        return verdicts

    # --- S3 -------------------------------------------------------------------------------------

    def _review_s3(self, now_ns: int, groups: Iterable[SharedDeadline], view: View) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        if not self._options.mlu:
            return verdicts
        for group in groups:
            if self._queue.monotonic and group.lowest == self._queue.reserved:
                continue
            worst = self._gauge.worst(now_ns, group.any_flow, view.ports)
            level = self._s3_level(worst)
            if self._queue.monotonic and level >= group.lowest:
                continue
            moving = [f for f in group.flows.values() if self._queue.moves(f.level, level)]
            if moving:
                verdict = self._s3_verdict(now_ns, moving[0], worst)
                verdicts.update((flow.flow.id, verdict) for flow in moving)
            group.lowest = level
        return verdicts

    def _s3_verdict(self, now_ns: int, flow: ActiveFlow, worst: Worst | None) -> Verdict:
        return Verdict(self._s3_level(worst), self._gauge.reason(now_ns, flow, worst), AFTER_EARLY)

    def _s3_level(self, worst: Worst | None) -> Level:
        return self._queue.lowest if worst is None else worst.level


def _sooner(red_ns: int | None, than_ns: int | None) -> bool:
    return red_ns is not None and (than_ns is None or red_ns < than_ns)

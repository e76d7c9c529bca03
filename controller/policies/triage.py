"""S2, then S1 by layers ahead, then the S3 that can still be in time; S3 that cannot goes last.

Rules, sources, and what each part gains: docs/policies/triage.md.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from controller.flow import RMLQ_LEVELS, Level, Stage
from controller.parts.background import BACKGROUND
from controller.parts.early import WaitingS1, early_order, layers_ahead
from controller.parts.pressure import WINDOW_MS, Rho, check_rho, constant_rho
from controller.parts.recheck import RECHECK_NS, check_recheck
from controller.parts.savable import Handoff, sort_out
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.units import NS_PER_MS
from controller.urgency import rli
from controller.view import ActiveBatch, ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels of the queue", Meta(ge=2, le=6)] = 6
    urgent: Annotated[float, "share of a port from which S3 goes before other S3", Meta(gt=0, le=1)] = 0.5
    aside: Annotated[
        float, "urgent S3 beside S2 if its slowest port is so far elsewhere", Meta(ge=0, le=1)
    ] = 0.6
    recheck_ns: Annotated[int, "how often S3 is sorted out anew, model ns", RECHECK_NS] = 5_000_000
    rho: Annotated[float | Rho, "share of a port S1 and S2 take: measured, off, 0 to 0.95"] = Rho.MEASURED
    rho_window_ms: Annotated[float, "time constant of the measured rho, model ms", WINDOW_MS] = 500.0
    give_up: Annotated[bool, "off: only S3 whose deadline has passed goes last"] = True

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= len(RMLQ_LEVELS):
            raise ValueError(f"levels must be 2 to {len(RMLQ_LEVELS)}, not {self.levels}")
        if not 0 < self.urgent <= 1:
            raise ValueError(f"urgent must be above 0 and at most 1, not {self.urgent}")
        if not 0 <= self.aside <= 1:
            raise ValueError(f"aside must be 0 to 1, not {self.aside}")
        check_rho(self.rho, self.rho_window_ms)
        check_recheck(self.recheck_ns)


@register
class Triage(Policy):
    name = "triage"
    summary = "S2, then S1 by layers ahead, then S3 that can be in time; S3 that cannot goes last"
    Options = TriageOptions
    reads_progress = False

    def __init__(self, options: TriageOptions) -> None:
        super().__init__(options)
        self._options = options
        self._urgent = options.urgent
        self._aside = options.aside
        self._give_up = options.give_up
        self._rho = constant_rho(options.rho)
        self.recheck_ns = options.recheck_ns
        self.rho_window_ns = round(options.rho_window_ms * NS_PER_MS)
        self._levels = _Levels.of(options.levels)
        self._s1 = WaitingS1()
        self._handoffs: dict[tuple[int, str | None], Handoff] = {}
        self._sorted_ns: int | None = None  # when the handoffs were last sorted out
        self._told = True  # whether all flows know what came of it

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict | None:
        if stage is Stage.BACKGROUND:
            return BACKGROUND
        return self._s2(batch) if stage is Stage.COLLECTIVE else None

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        match flow.flow.stage:
            case Stage.BACKGROUND:
                return BACKGROUND
            case Stage.COLLECTIVE:
                return self._s2(flow.batch)
            case Stage.KV_REUSE:
                self._s1.add(flow)
                return self._s1_verdict(flow)
        key = _key(flow)
        if key is None:
            return Verdict(self._levels.calm, "S3 without a deadline", _LAST)
        handoff = self._handoffs.get(key)
        if handoff is None:
            handoff = self._handoffs[key] = Handoff(key[0])
            handoff.add(flow)
            self._sort_out(now_ns, view)
        else:
            handoff.add(flow)
        return self._s3_verdict(handoff)

    def on_layer(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        verdicts = self._review_s1(batch, exact=view.exact)
        verdicts.update(self._review_s3(now_ns, view))
        return verdicts

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        if flow.flow.stage is Stage.KV_REUSE:
            self._s1.remove(flow)
        elif flow.flow.stage is Stage.P2D:
            key = _key(flow)
            if key is not None:
                self._handoffs[key].remove(flow)
                self._forget(key)
        return UNCHANGED

    def on_departure(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        for key in [key for key, handoff in self._handoffs.items() if handoff.batch is batch]:
            self._forget(key)
        return UNCHANGED

    def wants_ticks(self, view: View) -> bool:
        return bool(self._handoffs)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        return self._review_s3(now_ns, view)

    # --- S1 and S2 ------------------------------------------------------------------------------

    def _s2(self, batch: ActiveBatch | None) -> Verdict:
        return Verdict(self._levels.for_rli(0), "S2 blocks compute", early_order(batch, 0))

    def _s1_verdict(self, flow: ActiveFlow) -> Verdict:
        ahead = layers_ahead(flow)
        return Verdict(self._levels.for_rli(ahead), f"RLI {ahead}", early_order(flow.batch, ahead))

    def _review_s1(self, batch: ActiveBatch, *, exact: bool) -> dict[str, Verdict]:
        """Verdicts on the S1 flows of a batch that is at another layer: they come closer, and only climb."""
        verdicts: dict[str, Verdict] = {}
        for layer, flows in self._s1.of_batch(batch).items():
            level = self._levels.for_rli(rli(layer, batch.layer))
            if level is self._levels.last_early and not exact:
                continue
            for name, flow in flows.items():
                if exact or level < flow.level:
                    verdicts[name] = self._s1_verdict(flow)
        return verdicts

    # --- S3 -------------------------------------------------------------------------------------

    def _sort_out(self, now_ns: int, view: View) -> None:
        self._sorted_ns = now_ns
        self._told = False
        sort_out(now_ns, self._handoffs.values(), view.ports, rho=self._rho, give_up=self._give_up)

    def _forget(self, key: tuple[int, str | None]) -> None:
        """Forget a handoff without flows, unless its batch may post more: not each layer is a new one."""
        handoff = self._handoffs[key]
        batch = handoff.batch
        if not handoff.flows and (batch is None or batch.compute_over):
            del self._handoffs[key]

    def _review_s3(self, now_ns: int, view: View) -> dict[str, Verdict]:
        """Sort S3 out anew if that is due, and say which flows move."""
        if self._sorted_ns is None or now_ns - self._sorted_ns >= self._options.recheck_ns:
            self._sort_out(now_ns, view)
        verdicts: dict[str, Verdict] = {}
        if self._told:
            return verdicts
        self._told = True
        for handoff in self._handoffs.values():
            level = self._s3_level(handoff)
            moving = [name for name, flow in handoff.flows.items() if flow.level is not level]
            if moving:
                verdicts.update(dict.fromkeys(moving, self._s3_verdict(handoff)))
        return verdicts

    def _s3_verdict(self, handoff: Handoff) -> Verdict:
        level = self._s3_level(handoff)
        words = f"{'cannot' if handoff.lost else 'can'} be in time: {handoff.words}"
        if level is Level.P1:
            return Verdict(
                level, f"{words}; {handoff.aside:.2g} of that on ports of S1 and S2", _BEFORE_EARLY
            )
        return Verdict(level, words, float(handoff.deadline_ns))

    def _s3_level(self, handoff: Handoff) -> Level:
        if handoff.lost:
            return self._levels.lost
        if handoff.pressure < self._urgent:
            return self._levels.calm
        return Level.P1 if handoff.aside <= self._aside else self._levels.urgent


@dataclass(frozen=True, slots=True)
class _Levels:
    """The lowest three levels are for S3 and the others for S1 and S2, as long as there are enough."""

    last_early: Level
    urgent: Level
    calm: Level
    lost: Level

    @classmethod
    def of(cls, count: int) -> "_Levels":
        """With three levels, S3 that can be in time has one; with two, all S3 shares the lower one."""
        levels = RMLQ_LEVELS[:count]
        early = max(1, count - 3)
        urgent, *others = levels[early:]
        lost = levels[-1]
        return cls(levels[early - 1], urgent, others[0] if len(others) == 2 else urgent, lost)

    def for_rli(self, ahead: int) -> Level:
        return min(RMLQ_LEVELS[min(ahead, len(RMLQ_LEVELS) - 1)], self.last_early)


_BEFORE_EARLY = -1.0
"""The order of S3 that passes S1 and S2 on P1."""
_LAST = 2.0**63
"""The order of S3 without a deadline: behind all that has one."""


def _key(flow: ActiveFlow) -> tuple[int, str | None] | None:
    """What a handoff is known by: its deadline and its request; None for S3 without a deadline."""
    facts = flow.flow
    return None if facts.deadline_ns is None else (facts.deadline_ns, facts.request or facts.batch)

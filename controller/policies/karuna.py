"""Karuna: flows with a deadline get just the rate that they need, the others the rest, smallest first.

The rule, and what replaces pacing on a fabric with levels only: docs/policies/karuna.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from controller.flow import RMLQ_LEVELS, Level
from controller.parts.bands import Bands
from controller.parts.laxity import alone_ns
from controller.parts.ordered import AgeingOptions
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.units import NS_PER_MS, NS_PER_S
from controller.urgency import latest_finish_ns
from controller.view import ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class KarunaOptions(AgeingOptions):
    """Raises `ValueError` for values out of range."""

    downstream: Annotated[bool, "off: flows are due at the deadline, whatever must follow them"] = True


@register
class Karuna(Policy):
    name = "karuna"
    summary = "flows with a deadline get just the rate that meets it, the others the rest, smallest first"
    Options = KarunaOptions

    def __init__(self, options: KarunaOptions) -> None:
        super().__init__(options)
        self._downstream = options.downstream
        self._recheck_ns = self.recheck_ns = options.recheck_ns
        levels = RMLQ_LEVELS[: options.levels]
        self._lowest = levels[-1]
        self._by_size = Bands(levels[1:-1] or levels[1:])
        self._timed: dict[str, ActiveFlow] = {}

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        if flow.flow.deadline_ns is None:
            return self._sized(flow, view)
        self._timed[flow.flow.id] = flow
        return self._verdict(self._schedule(now_ns, flow, flow.flow.deadline_ns, view), view)

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        return UNCHANGED if flow.flow.deadline_ns is None else self._review(now_ns, (flow,), view)

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        self._timed.pop(flow.flow.id, None)
        self._by_size.leave(flow.flow.id)
        return UNCHANGED

    def wants_ticks(self, view: View) -> bool:
        return bool(self._timed)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        return self._review(now_ns, self._timed.values(), view)

    # --- flows without a deadline ---------------------------------------------------------------

    def _sized(self, flow: ActiveFlow, view: View) -> Verdict:
        size_bytes = flow.flow.size_bytes
        words = f"no deadline, {_mb(size_bytes)}"
        if not view.levels:
            return Verdict(Level.P2, words, order=size_bytes)
        share = self._by_size.share_before(size_bytes)
        level = self._by_size.enter(flow.flow.id, size_bytes)
        self._by_size.observe(size_bytes, size_bytes)
        rank = "the first seen" if share is None else f"{share:.0%} of recent traffic was smaller"
        return Verdict(level, f"{words}, {rank}", order=size_bytes)

    # --- flows with a deadline ------------------------------------------------------------------

    def _review(self, now_ns: int, flows: Iterable[ActiveFlow], view: View) -> Verdicts:
        verdicts: dict[str, Verdict] = {}
        for flow in flows:
            if flow.flow.deadline_ns is None:
                continue
            schedule = self._schedule(now_ns, flow, flow.flow.deadline_ns, view)
            # Most looks change no level, and the reason costs more than the look.
            if view.exact or self._level(schedule) is not flow.level:
                verdicts[flow.flow.id] = self._verdict(schedule, view)
        return verdicts

    def _schedule(self, now_ns: int, flow: ActiveFlow, deadline_ns: int, view: View) -> "_Schedule":
        downstream_ns = flow.flow.downstream_ns if self._downstream else 0
        return _Schedule(
            size_bytes=flow.flow.size_bytes,
            sent_bytes=flow.flow.size_bytes - flow.bytes_left,
            gone_ns=now_ns - flow.submitted_ns,
            left_ns=latest_finish_ns(deadline_ns, downstream_ns) - now_ns,
            alone_ns=alone_ns(flow, view.ports, flow.bytes_left),
        )

    def _level(self, schedule: "_Schedule") -> Level:
        """The level on a fabric with levels only: P1 if the flow is pressed or behind, else the lowest."""
        pressed = schedule.late or schedule.alone_ns + self._recheck_ns > schedule.left_ns
        return Level.P1 if pressed or schedule.behind else self._lowest

    def _verdict(self, schedule: "_Schedule", view: View) -> Verdict:
        need = f"{_mb(schedule.left_bytes)} due in {_ms(schedule.left_ns)}"
        if schedule.late:
            # Pacing cannot save this flow, so it must not take rate from flows that pacing can save.
            return Verdict(Level.P1, f"late: {need}, {_ms(schedule.alone_ns)} needed", order=1.0)
        if view.exact:
            rate_bps = schedule.rate_bps
            # A flow that has nothing left may not be complete yet. At a rate of 0 it would never end.
            return Verdict(Level.P1, f"{need}: {rate_bps / 1e9:.3g} Gb/s", rate_bps=rate_bps or None)
        line = f"sent {_mb(schedule.sent_bytes)}, {_mb(schedule.due_bytes)} due by now"
        if schedule.behind:
            return Verdict(Level.P1, f"behind: {line}")
        level = self._level(schedule)
        if level is Level.P1:
            return Verdict(level, f"cannot wait for the next look: {need}, {_ms(schedule.alone_ns)} needed")
        return Verdict(level, f"not behind: {line}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Schedule:
    """How a flow is sent evenly, from its submission `gone_ns` ago until `left_ns` from now.

    `alone_ns` is the time that the bytes left need on idle links.
    """

    size_bytes: int
    sent_bytes: int
    gone_ns: int
    left_ns: int
    alone_ns: int

    @property
    def left_bytes(self) -> int:
        return self.size_bytes - self.sent_bytes

    @property
    def late(self) -> bool:
        return self.left_ns <= 0 or self.alone_ns > self.left_ns

    @property
    def behind(self) -> bool:
        # In integers: rounding must not put a flow behind that is exactly on schedule.
        return self.sent_bytes * (self.gone_ns + self.left_ns) < self.size_bytes * self.gone_ns

    @property
    def due_bytes(self) -> float:
        return self.size_bytes * self.gone_ns / (self.gone_ns + self.left_ns)

    @property
    def rate_bps(self) -> int:
        """The lowest rate that meets the deadline, rounded up."""
        return -(-self.left_bytes * 8 * NS_PER_S // self.left_ns)


def _ms(time_ns: int) -> str:
    return f"{time_ns / NS_PER_MS:.1f} ms"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3g} MB"

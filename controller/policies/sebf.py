"""Smallest effective bottleneck first (Varys): the coflow that could finish soonest goes first.

The rule, and what differs from the original: docs/policies/sebf.md.
"""

from dataclasses import dataclass

from controller.flow import RMLQ_LEVELS, Level
from controller.parts.bands import Bands
from controller.parts.coflows import Bottleneck, Coflow, Coflows
from controller.parts.ordered import OrderedOptions
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, View


@dataclass(slots=True)
class _Placed:
    """The level of a coflow, the gamma that gave it, and the largest gamma that the coflow ever had."""

    level: Level
    gamma_ns: int
    largest_ns: int


@register
class Sebf(Policy):
    name = "sebf"
    summary = "coflows by smallest effective bottleneck (Varys, without its rate allocation)"
    Options = OrderedOptions

    # The verdict on a submission is about the new flow alone. The rest of its coflow follows at a
    # tick that is due at once, so flows submitted at the same instant move the others only once.
    recheck_ns = 0

    def __init__(self, options: OrderedOptions) -> None:
        super().__init__(options)
        self._coflows = Coflows()
        self._placed: dict[str, _Placed] = {}
        self._raised: dict[str, Coflow] = {}
        self._bands = Bands(RMLQ_LEVELS[: options.levels])

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        coflow = self._coflows.join(now_ns, flow)
        verdict, moved = self._place(coflow, view)
        if moved and len(coflow.flows) > 1:
            self._raised[coflow.name] = coflow
        return verdict

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        self._coflows.of(flow).count(flow)
        return UNCHANGED

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        coflow = self._coflows.leave(flow)
        if not coflow.flows:
            self._forget(coflow)
            return UNCHANGED
        verdict, moved = self._place(coflow, view)
        if not moved:
            return UNCHANGED
        self._raised.pop(coflow.name, None)
        return dict.fromkeys(coflow.flows, verdict)

    def wants_ticks(self, view: View) -> bool:
        return bool(self._raised)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        verdicts: dict[str, Verdict] = {}
        for coflow in self._raised.values():
            verdicts |= dict.fromkeys(coflow.flows, self._place(coflow, view)[0])
        self._raised.clear()
        return verdicts

    def _place(self, coflow: Coflow, view: View) -> tuple[Verdict, bool]:
        """The verdict on all flows of `coflow`, and whether its gamma has changed since the last one."""
        bottleneck = coflow.bottleneck(view.ports)
        gamma_ns = bottleneck.gamma_ns
        before = self._placed.get(coflow.name)
        if before is not None and before.gamma_ns == gamma_ns:
            return self._verdict(coflow, bottleneck, before.level), False
        level = Level.P3 if view.exact else self._band(coflow.name, gamma_ns)
        largest_ns = gamma_ns if before is None else max(gamma_ns, before.largest_ns)
        self._placed[coflow.name] = _Placed(level, gamma_ns, largest_ns)
        return self._verdict(coflow, bottleneck, level), before is not None

    def _band(self, name: str, gamma_ns: int) -> Level:
        self._bands.leave(name)
        return self._bands.enter(name, gamma_ns)

    def _verdict(self, coflow: Coflow, bottleneck: Bottleneck, level: Level) -> Verdict:
        where = "" if bottleneck.port is None else f" on {bottleneck.port}"
        flows = "1 flow" if len(coflow.flows) == 1 else f"{len(coflow.flows)} flows"
        words = f"{coflow.name} ({flows}): Gamma {bottleneck.gamma_ns / NS_PER_MS:.3f} ms{where}"
        return Verdict(level, words, order=bottleneck.gamma_ns)

    def _forget(self, coflow: Coflow) -> None:
        self._bands.leave(coflow.name)
        self._raised.pop(coflow.name, None)
        # Its flows came one by one, so it is known only now how large the coflow was.
        self._bands.observe(self._placed.pop(coflow.name).largest_ns, coflow.sent_bytes)

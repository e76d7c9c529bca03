"""Smallest effective bottleneck first (Varys): the coflow that could finish soonest goes first.

The rule, and what differs from the original: docs/policies/sebf.md.
"""

from dataclasses import dataclass, field

from controller.flow import RMLQ_LEVELS, Level, PortId
from controller.parts.bands import Bands
from controller.parts.coflows import Bottleneck, Coflow, Coflows
from controller.parts.ordered import OrderedOptions
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, FlowGroup, View


@dataclass(slots=True)
class _Placed:
    """The level of a coflow, the bottleneck that gave it, and the largest gamma that the coflow ever had.

    `left_bytes` is what the coflow had left on each port at `looked_ns`.
    """

    level: Level
    bottleneck: Bottleneck
    largest_ns: int
    looked_ns: int = -1
    left_bytes: dict[PortId, int] = field(default_factory=dict)


@register
class Sebf(Policy):
    name = "sebf"
    summary = "coflows by smallest effective bottleneck (Varys, without its rate allocation)"
    Options = OrderedOptions
    reads_ports = False
    by_group = True

    # The verdict on a submission is about the new flow alone. Everything else follows at a tick that is due
    # at once, so flows that are submitted or complete at the same instant move the others only once.
    recheck_ns = 0

    def __init__(self, options: OrderedOptions) -> None:
        super().__init__(options)
        self._coflows = Coflows()
        self._placed: dict[str, _Placed] = {}
        self._changed: dict[str, Coflow] = {}
        self._all_changed = False
        self._bands = Bands(RMLQ_LEVELS[: options.levels])

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        coflow = self._coflows.join(now_ns, flow)
        placed = self._placed.get(coflow.name)
        self._all_changed |= placed is None and view.left_is_current
        if placed is None or placed.looked_ns != now_ns:
            verdict, moved = self._place(now_ns, coflow, view)
        else:
            # Since the last look, nothing was sent, and only the ports of the new flow have more to send.
            for port, load_bytes in flow.flow.load.items():
                placed.left_bytes[port] = placed.left_bytes.get(port, 0) + load_bytes
            bottleneck = placed.bottleneck.or_worse(placed.left_bytes, flow.flow.load, view.ports)
            verdict, moved = self._placed_at(coflow, placed, bottleneck, view)
        if moved and len(coflow.flows) > 1:
            self._changed[coflow.name] = coflow
        return verdict

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        coflow = self._coflows.leave(flow)
        if coflow.flows:
            self._placed[coflow.name].looked_ns = -1
            self._changed[coflow.name] = coflow
        else:
            self._all_changed |= view.left_is_current
            self._forget(coflow)
        return UNCHANGED

    def wants_ticks(self, view: View) -> bool:
        return self._all_changed or bool(self._changed)

    def on_tick(self, now_ns: int, view: View) -> Verdicts:
        verdicts: dict[FlowGroup, Verdict] = {}
        for coflow in self._coflows if self._all_changed else self._changed.values():
            verdict, moved = self._place(now_ns, coflow, view)
            if moved or coflow.name in self._changed:
                verdicts[coflow] = verdict
        self._changed.clear()
        self._all_changed = False
        return verdicts

    def _place(self, now_ns: int, coflow: Coflow, view: View) -> tuple[Verdict, bool]:
        """The verdict on all flows of `coflow`, and whether its gamma has changed since the last one."""
        placed = self._placed.get(coflow.name)
        if placed is None:
            placed = self._placed[coflow.name] = _Placed(Level.P3, Bottleneck(-1, None), 0)
        if placed.looked_ns != now_ns:
            placed.looked_ns = now_ns
            placed.left_bytes = dict(view.left_on_ports(coflow))
        bottleneck = Bottleneck(0, None).or_worse(placed.left_bytes, placed.left_bytes, view.ports)
        return self._placed_at(coflow, placed, bottleneck, view)

    def _placed_at(
        self, coflow: Coflow, placed: _Placed, bottleneck: Bottleneck, view: View
    ) -> tuple[Verdict, bool]:
        before_ns, gamma_ns = placed.bottleneck.gamma_ns, bottleneck.gamma_ns
        placed.bottleneck = bottleneck
        if gamma_ns == before_ns:
            return self._verdict(coflow, bottleneck, placed.level), False
        if view.levels:
            placed.level = self._band(coflow.name, gamma_ns)
        placed.largest_ns = max(gamma_ns, placed.largest_ns)
        return self._verdict(coflow, bottleneck, placed.level), before_ns >= 0

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
        self._changed.pop(coflow.name, None)
        # Its flows came one by one, so it is known only now how large the coflow was.
        self._bands.observe(self._placed.pop(coflow.name).largest_ns, coflow.sent_bytes)

"""Aalo: coflows start high, and their flows sink together as they send bytes (D-CLAS).

The rule, and what differs from the original: docs/policies/aalo.md.
"""

from dataclasses import dataclass
from typing import Annotated

from controller.parts.coflows import Coflow, Coflows
from controller.parts.mlfq import Mlfq
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.view import ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class AaloOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels of the queue, 2 to 6"] = 6
    first_bytes: Annotated[int, "a coflow leaves P1 once it has sent this, model bytes"] = 10_000_000
    factor: Annotated[float, "each threshold is this times the one before"] = 10.0

    def __post_init__(self) -> None:
        self.mlfq()

    def mlfq(self) -> Mlfq:
        return Mlfq(levels=self.levels, first_bytes=self.first_bytes, factor=self.factor)


@register
class Aalo(Policy):
    name = "aalo"
    summary = "coflows start high and sink as their flows send bytes (D-CLAS)"
    Options = AaloOptions

    def __init__(self, options: AaloOptions) -> None:
        super().__init__(options)
        self._queue = options.mlfq()
        self._coflows = Coflows()

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return self._verdict(self._coflows.join(now_ns, flow))

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        coflow = self._coflows.of(flow)
        before_bytes = coflow.sent_bytes
        coflow.count(flow)
        return self._sunk(coflow, before_bytes)

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        before_bytes = self._coflows.of(flow).sent_bytes
        return self._sunk(self._coflows.leave(flow), before_bytes)

    def _sunk(self, coflow: Coflow, before_bytes: int) -> Verdicts:
        if self._queue.level(before_bytes) is self._queue.level(coflow.sent_bytes):
            return UNCHANGED
        return dict.fromkeys(coflow.flows, self._verdict(coflow))

    def _verdict(self, coflow: Coflow) -> Verdict:
        sent_bytes = coflow.sent_bytes
        return Verdict(
            self._queue.level(sent_bytes),
            f"{coflow.name} has {self._queue.words(sent_bytes)}",
            order=coflow.arrived_ns,
        )

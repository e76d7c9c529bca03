"""PIAS: a flow starts high and sinks one level at each threshold of bytes sent.

The rule, and why these thresholds: docs/policies/pias.md.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from controller.parts.mlfq import Mlfq
from controller.policies.registry import register
from controller.policy import UNCHANGED, Policy, Verdict, Verdicts
from controller.view import ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class PiasOptions:
    """Raises `ValueError` for values out of range."""

    levels: Annotated[int, "K: levels of the queue", Meta(ge=2, le=6)] = 6
    first_bytes: Annotated[int, "a flow leaves P1 once it has sent this, model bytes", Meta(ge=1)] = 200_000
    factor: Annotated[float, "each threshold is this times the one before", Meta(gt=1)] = 4.0

    def __post_init__(self) -> None:
        self.mlfq()

    def mlfq(self) -> Mlfq:
        return Mlfq(levels=self.levels, first_bytes=self.first_bytes, factor=self.factor)


@register
class Pias(Policy):
    name = "pias"
    summary = "flows start high and sink as they send bytes (MLFQ)"
    Options = PiasOptions

    def __init__(self, options: PiasOptions) -> None:
        super().__init__(options)
        self._queue = options.mlfq()

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return self._verdict(flow)

    def on_progress(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        if self._queue.level(_sent(flow)) is flow.level:
            return UNCHANGED
        return {flow.flow.id: self._verdict(flow)}

    def _verdict(self, flow: ActiveFlow) -> Verdict:
        sent_bytes = _sent(flow)
        return Verdict(self._queue.level(sent_bytes), self._queue.words(sent_bytes))


def _sent(flow: ActiveFlow) -> int:
    return flow.flow.size_bytes - flow.bytes_left

"""Earliest deadline first as MFS v1 defines it: only S3 has an explicit deadline."""

import math
from collections.abc import Sequence

from controller.flow import Level
from controller.parts.ordered import Ageing
from controller.policies.registry import register
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, View


@register
class EarliestDeadlineFirst(Ageing):
    name = "edf"
    summary = "flows with a deadline of their own (S3) by deadline; the others share fairly after them"
    ahead = "was due sooner"
    reads_progress = False

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        deadline_ns = flow.flow.deadline_ns
        return math.inf if deadline_ns is None else deadline_ns

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        if math.isinf(key):
            return f"{flow.flow.stage.value} has no deadline of its own"
        return f"due in {(key - now_ns) / NS_PER_MS:.1f} ms"

    def _banded(self, levels: Sequence[Level]) -> Sequence[Level]:
        return levels[:-1]  # the last level is for flows without a deadline only

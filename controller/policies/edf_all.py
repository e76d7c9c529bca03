"""Earliest deadline first for every flow: S1 and S2 inherit the deadline of their requests."""

import math

from controller.parts.laxity import waiting_requests
from controller.parts.ordered import Ageing
from controller.policies.registry import register
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, View


@register
class EarliestRequestDeadlineFirst(Ageing):
    name = "edf-all"
    summary = "every flow by the deadline of its request, collectives by the earliest of their batch"
    ahead = "was due sooner"
    reads_progress = False

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        if flow.flow.deadline_ns is not None:
            return flow.flow.deadline_ns
        return min((request.deadline_ns for request in waiting_requests(flow)), default=math.inf)

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        if math.isinf(key):
            return "no deadline known"
        return f"request due in {(key - now_ns) / NS_PER_MS:.1f} ms"

"""Largest laxity first: wrong on purpose. A measurement in which this wins is broken."""

import math

from controller.policies.base import ActiveFlow, View
from controller.policies.laxity import alone_ns, latest_finishes_ns
from controller.policies.ordered import NS_PER_MS, Ordered
from controller.policies.registry import register


@register
class Reverse(Ordered):
    name = "reverse"
    summary = "negative control: the flow with most laxity first"
    ahead = "had more"

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        finishes_ns = latest_finishes_ns(flow)
        if not finishes_ns:
            return -math.inf
        return alone_ns(flow, view.ports, flow.flow.size_bytes) - finishes_ns[0]

    def value(self, now_ns: int, key: float) -> float:
        return key + now_ns

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        if math.isinf(key):
            return "no deadline known"
        return f"laxity {(-key - now_ns) / NS_PER_MS:.1f} ms"

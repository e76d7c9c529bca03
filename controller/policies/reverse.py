"""Largest laxity first: deliberately wrong. A measurement in which it wins is broken."""

import math
from dataclasses import dataclass
from typing import Annotated

from controller.parts.laxity import latest_start_ns
from controller.parts.ordered import Ordered, OrderedOptions
from controller.policies.registry import register
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseOptions(OrderedOptions):
    stall: Annotated[bool, "off: S1 and S2 are due by their deadlines only"] = True


@register
class Reverse(Ordered):
    name = "reverse"
    summary = "negative control: the flow with the most laxity first"
    Options = ReverseOptions
    ahead = "had more"
    reads_progress = False

    def __init__(self, options: ReverseOptions) -> None:
        super().__init__(options)
        self._stall = options.stall

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        start_ns = latest_start_ns(flow, view.ports, stall=self._stall)
        return -math.inf if start_ns is None else -start_ns

    def value(self, now_ns: int, key: float) -> float:
        return key + now_ns

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        if math.isinf(key):
            return "no deadline known"
        return f"laxity {(-key - now_ns) / NS_PER_MS:.1f} ms"

"""Least laxity first, the oracle: it knows what comes after each flow, and how long that takes.

Its rules and limits: docs/policies/llf.md.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from controller.parts.laxity import latest_start_ns
from controller.parts.ordered import Ageing, AgeingOptions
from controller.policies.registry import register
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, View


@dataclass(frozen=True, slots=True, kw_only=True)
class LlfOptions(AgeingOptions):
    stall: Annotated[bool, "on: S1 and S2 are also due when compute would wait for them"] = False


@register
class LeastLaxityFirst(Ageing):
    name = "llf"
    summary = "oracle: least laxity first; it knows the work after each flow, on idle links"
    Options = LlfOptions
    ahead = "had less"
    reads_progress = False

    def __init__(self, options: LlfOptions) -> None:
        super().__init__(options)
        self._stall = options.stall

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        start_ns = latest_start_ns(flow, view.ports, stall=self._stall)
        return math.inf if start_ns is None else start_ns

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        if math.isinf(key):
            return "no deadline known"
        return f"laxity {(key - now_ns) / NS_PER_MS:.1f} ms"

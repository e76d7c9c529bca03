"""Shortest job first: a smaller flow goes strictly before a larger one."""

from controller.parts.ordered import Ordered
from controller.policies.registry import register
from controller.view import ActiveFlow, View


@register
class ShortestJobFirst(Ordered):
    name = "sjf"
    summary = "the smaller flow first"
    ahead = "was smaller"
    reads_progress = False

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        return flow.flow.size_bytes

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        return f"{key / 1e6:.3g} MB"

"""First in, first out among flows: the one that was submitted earlier goes first."""

from controller.parts.ordered import Ageing
from controller.policies.registry import register
from controller.policy import Verdicts
from controller.units import NS_PER_MS
from controller.view import ActiveFlow, View


@register
class Fifo(Ageing):
    name = "fifo"
    summary = "the flow submitted earlier first"
    ahead = "took longer"
    reads_progress = False

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        return flow.submitted_ns

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        return f"submitted at {key / NS_PER_MS:.1f} ms, {(now_ns - key) / NS_PER_MS:.1f} ms ago"

    def on_completion(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdicts:
        # The value of a key is minus the flow's age. How old flows get is known only when they end.
        self._bands.observe(self.value(now_ns, flow.submitted_ns), flow.flow.size_bytes)
        return super().on_completion(now_ns, flow, view)

    def _observe_first(self, value: float, size_bytes: int) -> None:
        """Nothing to learn: every flow has the age 0 when it is submitted."""

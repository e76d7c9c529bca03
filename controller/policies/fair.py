"""Max-min fair sharing: what a fabric does without a scheduler."""

from controller.flow import Level, Stage
from controller.policies.registry import register
from controller.policy import Policy, Verdict
from controller.view import ActiveBatch, ActiveFlow, View


@register
class Fair(Policy):
    name = "fair"
    summary = "every flow on one level; the fabric shares each link fairly"
    reads_ports = False
    reads_progress = False

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict:
        return Verdict(Level.P3, "one level for all")

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return self.standing(flow.flow.stage, flow.batch, view)

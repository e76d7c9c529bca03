"""Max-min fair sharing: what a fabric does without a scheduler."""

from controller.flow import Level
from controller.policies.registry import register
from controller.policy import Policy, Verdict
from controller.view import ActiveFlow, View


@register
class Fair(Policy):
    name = "fair"
    summary = "every flow on one level; the fabric shares each link fairly"
    reads_ports = False

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return Verdict(Level.P3, "one level for all")

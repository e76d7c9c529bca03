"""Max-min fair sharing: what a fabric does when nobody schedules it."""

from controller.flow import Level
from controller.policies.base import ActiveFlow, Policy, Verdict, View
from controller.policies.registry import register


@register
class Fair(Policy):
    name = "fair"
    summary = "every flow on one level; the fabric shares each link fairly"
    reads_ports = False

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return Verdict(Level.P3, "one level for all")

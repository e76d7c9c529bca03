"""Static priority by stage: what blocks compute sooner goes first."""

from controller.flow import Level, Stage
from controller.policies.registry import register
from controller.policy import Policy, Verdict
from controller.view import ActiveBatch, ActiveFlow, View

# P1 stays free, as mfs reserves it for urgent S3. A level then means the same in plots of both policies.
_VERDICTS = {
    Stage.COLLECTIVE: Verdict(Level.P2, "S2 blocks compute at once"),
    Stage.KV_REUSE: Verdict(Level.P3, "S1 blocks compute of its layer"),
    Stage.P2D: Verdict(Level.P4, "S3 blocks no compute"),
}


@register
class StageOrder(Policy):
    name = "stage"
    summary = "static: S2 over S1 over S3, without deadlines"
    reads_ports = False
    reads_progress = False

    def standing(self, stage: Stage, batch: ActiveBatch | None, view: View) -> Verdict:
        return _VERDICTS[stage]

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return _VERDICTS[flow.flow.stage]

"""Static priority by stage: what blocks compute sooner goes first. The usual order of `static`."""

from controller.flow import Level, Stage
from controller.policies.registry import register
from controller.policies.static import Static, StaticOptions
from controller.policy import NoOptions, Verdict


@register
class StageOrder(Static):
    name = "stage"
    summary = "static: S2 over S1 over S3 over background, without deadlines"
    Options = NoOptions

    def __init__(self, options: NoOptions) -> None:
        # P1 stays free, as mfs reserves it for urgent S3. A level then means the same in plots of both.
        super().__init__(StaticOptions(s2=2, s1=3, s3=4))
        self.options = options
        self._verdicts = {
            Stage.COLLECTIVE: Verdict(Level.P2, "S2 blocks compute at once"),
            Stage.KV_REUSE: Verdict(Level.P3, "S1 blocks compute of its layer"),
            Stage.P2D: Verdict(Level.P4, "S3 blocks no compute"),
            Stage.BACKGROUND: Verdict(Level.SCAVENGER, "nothing waits for background transfers"),
        }

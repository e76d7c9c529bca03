"""What `mfs clairvoyant` is asked."""

from dataclasses import dataclass

from experiments.errors import UserError
from experiments.resolve.same_batches import KEY
from experiments.results.paired import REPLICATES
from experiments.scenario.reading import override
from experiments.sweep.plan import Over, Plan, make_plan
from testbed.fabric import FabricName


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which schedule of the flows of a scenario is best, on the batches that `batches_of` forms?

    `replicates` are seeds or windows, None for the scenario's own. A search simulates `evaluations` schedules
    on each. A schedule gives a key to each stage of a request or a batch in each of `parts` parts of the
    layers.
    """

    scenario: str
    settings: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    replicates: Over | None = None
    batches_of: str = "fair"
    evaluations: int = 1000
    parts: int = 2

    def check(self) -> None:
        """Raise `UserError` for what cannot be asked."""
        if self.replicates is not None and self.replicates.key not in REPLICATES:
            raise UserError(
                f"--over {self.replicates.key}=...: only replicates, {' or '.join(REPLICATES)}; other keys"
                " are set with --set"
            )
        for text in self.settings:
            if override(text).key == KEY:
                raise UserError(f"--set {text}: use --batches-of")

    def plan(self) -> Plan:
        """Return a plan of which each point is a replicate. Raises `UserError` as `make_plan`."""
        plan = make_plan(
            self.scenario,
            over=[self.replicates] if self.replicates else [],
            settings=[*self.settings, f"{KEY}={self.batches_of}"],
            policies=self.policies,
            fabric=FabricName.SIM,
        )
        scenario = plan.cells[0].scenario
        if scenario.workload.is_micro:
            raise UserError(
                f"scenario {scenario.name}: kind {scenario.workload.kind} has no requests, and so no SLOs"
            )
        if scenario.workload.background.gbps is not None:
            raise UserError(
                f"scenario {scenario.name}: workload.background.gbps: a schedule has no key for background"
                " transfers; null leaves them out"
            )
        return plan

"""What `mfs capacity` is asked, and the cells of a sweep that answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.errors import UserError
from experiments.resolve.capacity import Capacity, estimated_capacity
from experiments.resolve.jobs import resolve
from experiments.results.paired import REPLICATES
from experiments.scenario.reading import load_scenario, override
from experiments.sweep.plan import Cell, Over, Plan, make_plan
from testbed.fabric import FabricName

RATE = "workload.rate"
_ARRIVALS = ("workload.rate", "workload.load", "workload.time_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """At which rate do the policies of a scenario keep the SLO attainment `attain` (a share)?

    `replicates` are the seeds or windows, None for the scenario's own. The search goes from `low` to `high`
    times the estimated capacity, and ends at a bracket whose upper end is at most a share `within` above its
    lower end.
    """

    scenario: str
    settings: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    replicates: Over | None = None
    attain: float = 0.9
    low: float = 0.2
    high: float = 1.6
    within: float = 0.05

    def check(self) -> None:
        """Raise `UserError` for what cannot be asked."""
        if not 0 < self.attain <= 1:
            raise UserError(f"--attain {self.attain:g}: give a share of the requests, above 0 and up to 1")
        if not 0.001 <= self.within < 1:
            raise UserError(f"--within {self.within:g}: give a share from 0.001 to 1")
        if self.replicates is not None and self.replicates.key not in REPLICATES:
            raise UserError(
                f"--over {self.replicates.key}=...: only replicates, {' or '.join(REPLICATES)}; other keys"
                " are set with --set"
            )
        for text in self.settings:
            if override(text).key in _ARRIVALS:
                raise UserError(f"--set {text}: the search sets the rate itself; --load has its ends")
        scenario = load_scenario(self.scenario, [override(text) for text in self.settings])
        if scenario.workload.is_micro:
            raise UserError(
                f"scenario {scenario.name}: kind {scenario.workload.kind} has no requests, and so no SLO"
                " attainment to keep"
            )

    def plan(self, rates: Sequence[float]) -> Plan:
        """Return the plan of a sweep over `rates`. Raises `UserError` as `make_plan`."""
        over = [Over(RATE, tuple(rates)), *([self.replicates] if self.replicates else [])]
        return make_plan(
            self.scenario,
            over=over,
            settings=self.settings,
            policies=self.policies,
            fabric=FabricName.SIM,
        )

    def estimate(self) -> Capacity:
        """Return the capacity that loads are shares of: that for the requests of the first replicate."""
        job = resolve(self.plan([1.0]).cells[0].scenario).jobs[0]
        return estimated_capacity(job, job.requests)


def replicate_of(cell: Cell) -> Any:
    """Return the seed or the window of `cell`."""
    return next((cell.values[key] for key in REPLICATES if key in cell.values), cell.scenario.seed)

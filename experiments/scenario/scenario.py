"""The scenario: every key with its default, its meaning and its limits.

The larger sections have files of their own. The models are frozen and refuse unknown keys.
`experiments.scenario.reading` reads them from YAML, and `experiments.scenario.text` writes them back with
each description as a comment.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from experiments.scenario.cluster import TopologySection
from experiments.scenario.faults import FaultSpec, problem_with_faults
from experiments.scenario.known_names import known_fabric, known_gpu, known_model, known_policy
from experiments.scenario.machine import ScaleSection, WorkersSection
from experiments.scenario.micro_flows import problem_with
from experiments.scenario.section import Section, refusal
from experiments.scenario.serving import ServingSection
from experiments.scenario.simulation import SimulationSection
from experiments.scenario.units import UnitsSection
from experiments.scenario.workload import SloSection, WorkloadSection
from testbed.serving.slo import DEFAULT_CLASS


class SchedulerSection(Section):
    levels: int = Field(default=6, ge=2, le=6, description="levels that a policy uses (K)")
    mlu_top: float = Field(
        default=0.5, gt=0, le=1, description="MLU from which an S3 flow is at the top level, P1 (U)"
    )
    mlu_base: float = Field(
        default=4.0, gt=1, le=1000, description="ratio of the MLU thresholds of neighbouring levels (E)"
    )
    recheck_ms: float = Field(
        default=5.0,
        ge=1e-3,
        le=1e6,
        description="how often levels are decided again (mfs: of S3, once compute is over), model ms",
    )


class Scenario(Section):
    """An experiment: the cluster, the work, and the policies to compare."""

    name: str = Field(
        default="unnamed", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run directory"
    )
    description: str = Field(default="", description="one line for `mfs scenarios`")
    topology: TopologySection = Field(default=TopologySection(), description="the network")
    model: Annotated[str, AfterValidator(known_model)] = Field(
        default="mixtral-8x7b",
        description="the model that is served: a name, or a Hugging Face config.json or the directory it is "
        "in, relative to this file (from --set: to the working directory)",
    )
    gpu: Annotated[str, AfterValidator(known_gpu)] = Field(
        default="a100",
        description="the GPU of a rank: a name, or a profile (YAML) as `mfs calibrate gpu` writes it, "
        "relative to this file (from --set: to the working directory)",
    )
    units: UnitsSection = Field(default=UnitsSection(), description="prefill units and decode workers")
    serving: ServingSection = Field(default=ServingSection(), description="the serving system")
    workload: WorkloadSection = Field(default=WorkloadSection(), description="the requests, or the flows")
    slo: SloSection = Field(default=SloSection(), description="the TTFT that requests are promised")
    scale: ScaleSection = Field(
        default=ScaleSection(),
        description="how the model is mapped to the machine: a link of R bit/s runs at "
        "R * bytes_scale / time_dilation",
    )
    faults: tuple[FaultSpec, ...] = Field(
        default=(),
        description="what goes wrong, and when: a list of {kind: ...}, with kind link-down, link-rate, "
        "straggler, pause, unit-lost, decode-lost, switch-restart or controller-restart",
    )
    policies: tuple[Annotated[str, AfterValidator(known_policy)], ...] = Field(
        default=("fair", "mfs"),
        min_length=1,
        description="policies to run, one after the other; `mfs policies` lists them and "
        'the options they take, as in "mfs(rho=0)" and "mfs(rho=0) + requests"',
    )
    scheduler: SchedulerSection = Field(
        default=SchedulerSection(), description="defaults for the policy options of the same names"
    )
    workers: WorkersSection = Field(default=WorkersSection(), description="the worker processes")
    simulation: SimulationSection = Field(
        default=SimulationSection(), description="options of the simulated fabric"
    )
    fabric: Annotated[str, AfterValidator(known_fabric)] = Field(
        default="auto",
        description="the fabric to run on; auto: the emulated one (mininet) if this machine has what it "
        "needs, else the simulated one (sim)",
    )
    seed: int = Field(default=1, ge=0, le=2**32 - 1, description="seed of everything drawn at random")

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        written = ["".join(policy.split()) for policy in self.policies]
        twice = [p for i, p in enumerate(self.policies) if written[i] in written[:i]]
        if twice:
            raise refusal("policies", f"{twice[0]!r} is listed twice")
        known = [DEFAULT_CLASS, *self.slo.classes]
        if self.workload.slo_class not in known:
            raise refusal(
                "workload.class",
                f"{self.workload.slo_class!r} is not in slo.classes (known: {', '.join(known)})",
            )
        if self.serving.preempt_layers is not None and self.units.most_stages > 1:
            raise refusal(
                "serving.preempt_layers",
                "a unit with pipeline stages (units.pp) runs several batches and cannot be preempted",
            )
        problem = problem_with(self.workload.flows, self.topology.server_count)
        problem = problem or problem_with_faults(self.faults)
        if problem is not None:
            raise refusal(*problem)
        return self

"""What a scenario is: every key, its default, what it means and what it may be.

The sections with the most keys are in files of their own (`experiments.scenario_*`). The models are
frozen and refuse keys they do not know. `experiments.scenario.reading` reads them from YAML,
`experiments.scenario.text` writes them back with each description as a comment.
"""

import enum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from experiments.scenario.cluster import TopologySection, UnitsSection
from experiments.scenario.known_names import (
    known_batching,
    known_decode_choice,
    known_fabric,
    known_gpu,
    known_model,
    known_policy,
    known_router,
)
from experiments.scenario.micro_flows import problem_with
from experiments.scenario.section import Section, refusal
from experiments.scenario.simulation import SimulationSection
from experiments.scenario.workload import SloSection, WorkloadSection


class Device(enum.StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ComputeMode(enum.StrEnum):
    TIMED = "timed"
    MATMUL = "matmul"


class AllReduce(enum.Enum):
    RING = "ring"
    TREE = "tree"


class FetchStart(enum.StrEnum):
    BATCH = "batch"
    QUEUE = "queue"


class ServingSection(Section):
    router: Annotated[str, AfterValidator(known_router)] = Field(
        default="least-queued-tokens", description="which prefill unit a request is sent to"
    )
    max_batch_tokens: int = Field(
        default=8192, ge=1, le=16_777_216, description="most tokens to compute in one prefill batch"
    )
    decode: Annotated[str, AfterValidator(known_decode_choice)] = Field(
        default="round-robin", description="which decode worker a request is given"
    )
    batching: Annotated[str, AfterValidator(known_batching)] | None = Field(
        default=None,
        description="how a unit forms batches: fcfs, deadline, red, length-aware; null: as the policy's "
        "request control says, else fcfs",
    )
    chunk_tokens: int | None = Field(
        default=None,
        ge=1,
        le=16_777_216,
        description="a prompt that does not fit into a batch of this many new tokens is split; null: none is",
    )
    preempt_layers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="after so many layers a batch pauses, and one that would be too late after it may go "
        "first; null: a batch runs through",
    )
    decode_batch: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="requests that a decode worker has in one step at most; null: nothing after the first "
        "token is modelled, and no TPOT reported",
    )
    decode_background: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="requests that each decode worker decodes all the while: their collectives are traffic "
        "beside that of prefill",
    )
    all_reduce: AllReduce = Field(
        default=AllReduce.RING, description="how tensor-parallel ranks add up their vectors"
    )
    cache_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="KV that a replica keeps, in tokens; the least recently used goes first; null: all",
    )
    cache_gib: float | None = Field(
        default=None, gt=0, le=1e9, description="the same in GiB on all ranks of a replica together"
    )
    fetch: FetchStart = Field(
        default=FetchStart.BATCH,
        description="when reused KV of another replica is sent for: as the batch starts, or when its request "
        "is queued",
    )
    fetch_ahead: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="how many layers ahead of the batch reused KV is sent for; null: all layers at once",
    )

    @model_validator(mode="after")
    def _one_cache_size(self) -> "ServingSection":
        if self.cache_tokens is not None and self.cache_gib is not None:
            raise refusal("serving.cache_gib", "is the size of the cache like serving.cache_tokens: give one")
        return self


class ScaleSection(Section):
    time_dilation: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e6,
        description="wall seconds that a model second takes; null: so that the work takes about wall_s",
    )
    bytes_scale: float | None = Field(
        default=None,
        ge=1e-9,
        le=1000,
        description="bytes on the wire for a byte of the model; null: so that a NIC runs at link_mbps",
    )
    wall_s: float = Field(
        default=60.0,
        ge=0.1,
        le=86400,
        description="wall seconds the work of one policy should take, where time_dilation is null",
    )
    link_mbps: float = Field(
        default=15.0,
        ge=0.1,
        le=10000,
        description="rate of a NIC on the machine in Mb/s, where bytes_scale is null",
    )


class SchedulerSection(Section):
    levels: int = Field(default=6, ge=2, le=6, description="levels of the queue that are used (K)")
    mlu_top: float = Field(
        default=0.5, gt=0, le=1, description="MLU from which an S3 flow is at the top level (U)"
    )
    mlu_base: float = Field(
        default=4.0, gt=1, le=1000, description="ratio between the MLU thresholds of two levels (E)"
    )
    recheck_ms: float = Field(
        default=5.0, gt=0, le=1e6, description="how often S3 is judged again once compute is over, model ms"
    )


class WorkersSection(Section):
    device: Device = Field(
        default=Device.AUTO, description="where tensors live; auto: CUDA where there is one"
    )
    compute: ComputeMode = Field(
        default=ComputeMode.TIMED, description="wait for the modelled time, or multiply real matrices"
    )
    lanes_s1: int = Field(default=2, ge=1, le=64, description="S1 lanes between two ranks")
    lanes_s3: int = Field(default=4, ge=1, le=64, description="S3 lanes between two ranks")
    chunk_kib: int = Field(
        default=256, ge=1, le=1_048_576, description="a transfer is sent in pieces of this many KiB"
    )
    verify_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the transfers whose payload is checked on arrival (of flows: all)",
    )


class Scenario(Section):
    """A whole experiment: the cluster, the work, the policies to compare."""

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
    units: UnitsSection = Field(default=UnitsSection(), description="who computes, and where")
    serving: ServingSection = Field(default=ServingSection(), description="the serving system")
    workload: WorkloadSection = Field(default=WorkloadSection(), description="the requests, or the flows")
    slo: SloSection = Field(default=SloSection(), description="when a first token is in time")
    scale: ScaleSection = Field(
        default=ScaleSection(),
        description="how the model is mapped to the machine: a link of R bit/s runs at "
        "R * bytes_scale / time_dilation",
    )
    policies: tuple[Annotated[str, AfterValidator(known_policy)], ...] = Field(
        default=("fair", "mfs"),
        min_length=1,
        description="policies to run, one after the other; `mfs policies` lists them and "
        'the options they take, as in "mfs(rho=0)" and "mfs(rho=0) + requests"',
    )
    scheduler: SchedulerSection = Field(default=SchedulerSection(), description="the knobs of MFS")
    workers: WorkersSection = Field(default=WorkersSection(), description="the worker processes")
    simulation: SimulationSection = Field(
        default=SimulationSection(), description="what only the simulated fabric has"
    )
    fabric: Annotated[str, AfterValidator(known_fabric)] = Field(
        default="auto",
        description="the fabric to run on; auto: the emulated one (mininet) where this machine has what it "
        "needs, else the simulated one (sim)",
    )
    seed: int = Field(default=1, ge=0, le=2**32 - 1, description="of everything that is drawn at random")

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        written = ["".join(policy.split()) for policy in self.policies]
        twice = [p for i, p in enumerate(self.policies) if written[i] in written[:i]]
        if twice:
            raise refusal("policies", f"{twice[0]!r} is there twice")
        known = ["default", *self.slo.classes]
        if self.workload.slo_class not in known:
            raise refusal(
                "workload.class",
                f"{self.workload.slo_class!r} is not in slo.classes (known: {', '.join(known)})",
            )
        if self.serving.preempt_layers is not None and self.units.pp > 1:
            raise refusal(
                "serving.preempt_layers",
                "a unit with pipeline stages (units.pp) has several batches in it and cannot be preempted",
            )
        problem = problem_with(self.workload.flows, self.topology.server_count)
        if problem is not None:
            raise refusal(*problem)
        return self

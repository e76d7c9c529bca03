"""What a scenario is: every key, its default, what it means and what it may be.

The models are frozen and refuse keys they do not know. `experiments.scenario_file` reads them from
YAML, `experiments.scenario_text` writes them back with each description as a comment.
"""

import enum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from experiments.known_names import (
    known_decode_choice,
    known_fabric,
    known_gpu,
    known_model,
    known_policy,
    known_router,
)
from experiments.micro_spec import FlowSpec, problem_with
from testbed.serving.placement import Layout


class Section(BaseModel):
    """What all parts of a scenario have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TopologyKind(enum.StrEnum):
    STAR = "star"
    LEAF_SPINE = "leaf-spine"


class WorkloadKind(enum.StrEnum):
    CONVERSATION = "conversation"
    AGENT = "agent"
    MOONCAKE = "mooncake"
    AZURE = "azure"
    FLOWS = "flows"


SYNTHETIC = (WorkloadKind.CONVERSATION, WorkloadKind.AGENT)
TRACES = (WorkloadKind.MOONCAKE, WorkloadKind.AZURE)


class Arrivals(enum.StrEnum):
    TRACE = "trace"
    POISSON = "poisson"


class Device(enum.StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ComputeMode(enum.StrEnum):
    TIMED = "timed"
    MATMUL = "matmul"


class TopologySection(Section):
    kind: TopologyKind = Field(default=TopologyKind.STAR, description="shape of the network")
    servers: int = Field(default=10, ge=2, le=4096, description="number of servers, named h1..hN")
    nic_gbps: float = Field(default=50.0, ge=0.001, le=10_000, description="rate of a server's NIC, Gb/s")
    leaves: int = Field(default=2, ge=1, le=1024, description="leaf switches (leaf-spine only)")
    spines: int = Field(default=2, ge=1, le=1024, description="spine switches (leaf-spine only)")
    hosts_per_leaf: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="servers below a leaf (leaf-spine only); null: servers / leaves, rounded up",
    )
    oversubscription: float = Field(
        default=1.0,
        ge=0.01,
        le=64,
        description="what a leaf's servers can send over what its uplinks carry (leaf-spine only)",
    )

    @property
    def below_each_leaf(self) -> int:
        """`hosts_per_leaf`, decided."""
        return self.hosts_per_leaf or -(-self.servers // self.leaves)

    @property
    def server_count(self) -> int:
        """How many servers the topology has; a leaf-spine fills every leaf."""
        if self.kind is TopologyKind.STAR:
            return self.servers
        return self.leaves * self.below_each_leaf


class UnitsSection(Section):
    prefill_units: int = Field(default=2, ge=1, le=1024, description="prefill units")
    ranks_per_unit: int = Field(default=4, ge=1, le=1024, description="ranks (GPUs) of one prefill unit")
    decode_ranks: int = Field(default=2, ge=1, le=4096, description="decode workers, one rank each")
    ranks_per_server: int | None = Field(
        default=None, ge=1, le=64, description="most ranks on one server; null: as few as fit them all"
    )
    tp: int | None = Field(
        default=None, ge=1, le=64, description="tensor-parallel ranks of a replica; null: by the model"
    )
    ep: int | None = Field(
        default=None, ge=1, le=1024, description="expert-parallel ranks of a unit; null: by the model"
    )
    layout: Layout = Field(
        default=Layout.SPREAD, description="a unit's ranks on as many servers as there are, or on few"
    )


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


class WorkloadSection(Section):
    kind: WorkloadKind = Field(
        default=WorkloadKind.CONVERSATION,
        description="conversation and agent are generated from the seed; mooncake and azure are "
        "read from path; flows is the micro workload below",
    )
    path: str | None = Field(
        default=None,
        description="trace file, relative to this file (from --set: to the working directory); "
        "with a generated kind, the kind is taken from the file's content",
    )
    requests: int = Field(default=48, ge=1, le=10_000_000, description="requests of the run")
    rate: float | None = Field(
        default=None, ge=1e-6, le=1e6, description="arrivals, requests/s (only one of rate, load, time_scale)"
    )
    load: float | None = Field(
        default=0.7,
        ge=1e-3,
        le=100,
        description="arrivals, as a share of the cluster's estimated capacity "
        "(only one of rate, load, time_scale)",
    )
    time_scale: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="seconds that a second of the trace takes (only one of rate, load, time_scale)",
    )
    arrivals: Arrivals = Field(
        default=Arrivals.TRACE,
        description="trace: in the trace's rhythm, stretched to rate, load or by time_scale; "
        "poisson: random, at rate or load; a generated workload is always poisson",
    )
    spread_ticks: bool = Field(
        default=True, description="spread arrivals inside the tick of a trace with a coarse clock"
    )
    slo_class: str = Field(
        default="default",
        min_length=1,
        alias="class",
        description="SLO class of the requests, a key of slo.classes",
    )
    skip: int = Field(default=0, ge=0, description="rows of the trace to leave out at its start")
    flows: tuple[FlowSpec, ...] = Field(
        default=(),
        description="kind flows: transfers between servers, each {id, src, dst, bytes, start_s, "
        "stage: S1|S2|S3, deadline_s, layer, batch}; times in model seconds from the start",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "WorkloadSection":
        given = [k for k in ("rate", "load", "time_scale") if getattr(self, k) is not None]
        if len(given) > 1:
            raise _refusal(f"workload.{given[1]}", f"only one of {' and '.join(given)} may be given")
        if self.kind is WorkloadKind.FLOWS:
            if not self.flows:
                raise _refusal("workload.kind", "flows needs at least one flow in workload.flows")
            if self.path is not None:
                raise _refusal("workload.path", "kind flows reads no trace")
            return self
        if self.flows:
            raise _refusal("workload.flows", f"has a meaning with kind flows only, not {self.kind}")
        if self.kind in TRACES and self.path is None:
            raise _refusal("workload.kind", f"{self.kind} needs workload.path, a trace file")
        if self.arrives_at_random and self.rate is None and self.load is None:
            raise _refusal("workload.load", "random arrivals need a load or a rate")
        return self

    @property
    def arrives_at_random(self) -> bool:
        """Arrivals are a Poisson process: there is no trace to follow, or it is not wanted."""
        return self.path is None or self.arrivals is Arrivals.POISSON


class SloClass(Section):
    multiple: float | None = Field(default=None, gt=0, le=1e6)
    absolute_s: float | None = Field(default=None, gt=0, le=1e6)

    @model_validator(mode="after")
    def _exactly_one(self) -> "SloClass":
        if (self.multiple is None) == (self.absolute_s is None):
            raise PydanticCustomError("slo", "needs exactly one of multiple and absolute_s")
        return self


class SloSection(Section):
    multiple: float | None = Field(
        default=3.0,
        gt=0,
        le=1e6,
        description="TTFT allowed, as a multiple of the TTFT on an idle cluster "
        "(only one of multiple, absolute_s)",
    )
    absolute_s: float | None = Field(
        default=None, gt=0, le=1e6, description="TTFT allowed, seconds (only one of multiple, absolute_s)"
    )
    classes: dict[Annotated[str, StringConstraints(min_length=1)], SloClass] = Field(
        default={}, description="other SLOs by class, e.g. {interactive: {absolute_s: 1.5}}"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "SloSection":
        if (self.multiple is None) == (self.absolute_s is None):
            raise _refusal("slo.absolute_s", "exactly one of multiple and absolute_s must be given")
        if "default" in self.classes:
            raise _refusal(
                "slo.classes.default", "the default class is slo.multiple or slo.absolute_s itself"
            )
        return self


class SimulatedOrder(enum.Enum):
    LEVELS = "levels"
    EXACT = "exact"


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


class SimulationSection(Section):
    order: SimulatedOrder = Field(
        default=SimulatedOrder.LEVELS,
        description="levels: six queues, as in a switch; exact: the order a policy would like",
    )
    lanes: bool | None = Field(
        default=None,
        description="whether flows wait for the lanes of workers; null: in levels yes, in exact order no",
    )
    progress_ms: float = Field(
        default=1.0, gt=0, le=1e6, description="how often the scheduler hears how far flows are, model ms"
    )


class Scenario(Section):
    """A whole experiment: the cluster, the work, the policies to compare."""

    name: str = Field(
        default="unnamed", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run directory"
    )
    description: str = Field(default="", description="one line for `mfs scenarios`")
    topology: TopologySection = Field(default=TopologySection(), description="the network")
    model: Annotated[str, AfterValidator(known_model)] = Field(
        default="mixtral-8x7b", description="the model that is served"
    )
    gpu: Annotated[str, AfterValidator(known_gpu)] = Field(default="a100", description="the GPU of a rank")
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
        default="mininet", description="the fabric to run on"
    )
    seed: int = Field(default=1, ge=0, le=2**32 - 1, description="of everything that is drawn at random")

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        written = ["".join(policy.split()) for policy in self.policies]
        twice = [p for i, p in enumerate(self.policies) if written[i] in written[:i]]
        if twice:
            raise _refusal("policies", f"{twice[0]!r} is there twice")
        known = ["default", *self.slo.classes]
        if self.workload.slo_class not in known:
            raise _refusal(
                "workload.class",
                f"{self.workload.slo_class!r} is not in slo.classes (known: {', '.join(known)})",
            )
        problem = problem_with(self.workload.flows, self.topology.server_count)
        if problem is not None:
            raise _refusal(*problem)
        return self


def _refusal(key: str, reason: str) -> PydanticCustomError:
    """An error of several keys together, blamed on one of them by its full name."""
    context: dict[str, Any] = {"key": key, "reason": reason}
    return PydanticCustomError("refused", "{reason}", context)

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
    known_path_choice,
    known_policy,
    known_router,
)
from experiments.micro_spec import FlowSpec, problem_with
from testbed.serving.placement import Layout
from testbed.topology.kinds import fat_tree_servers


class Section(BaseModel):
    """What all parts of a scenario have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TopologyKind(enum.StrEnum):
    STAR = "star"
    LEAF_SPINE = "leaf-spine"
    FAT_TREE = "fat-tree"
    RAIL_OPTIMISED = "rail-optimised"


class WorkloadKind(enum.StrEnum):
    CONVERSATION = "conversation"
    AGENT = "agent"
    MOONCAKE = "mooncake"
    AZURE = "azure"
    FLOWS = "flows"
    COFLOWS = "coflows"


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
    gpus_per_server: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="GPUs of a server; null: as many as there are ranks on it",
    )
    nics_per_server: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="NICs of a server, shared by its GPUs; null: 1, with rail-optimised one per GPU",
    )
    nvlink_gbps: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        description="what a GPU and its server's NVSwitch carry each way, Gb/s; null: traffic inside a "
        "server is free",
    )
    pcie_gbps: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        description="what a GPU and its NIC carry each way, Gb/s; null: more than the NIC, no limit",
    )
    leaves: int = Field(default=2, ge=1, le=1024, description="leaf switches (leaf-spine only)")
    spines: int = Field(
        default=2, ge=1, le=1024, description="spine switches (leaf-spine and rail-optimised only)"
    )
    hosts_per_leaf: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="servers below a leaf (leaf-spine only; null: servers / leaves, rounded up) or of a "
        "group with rails of its own (rail-optimised only; null: all)",
    )
    k: int = Field(default=4, ge=2, le=64, description="ports of a switch (fat-tree only), an even number")
    oversubscription: float = Field(
        default=1.0,
        ge=0.01,
        le=64,
        description="what the servers below a leaf, edge or rail switch can send over what its uplinks carry",
    )

    @property
    def below_each_leaf(self) -> int:
        """`hosts_per_leaf`, decided."""
        if self.kind is TopologyKind.RAIL_OPTIMISED:
            return self.hosts_per_leaf or self.servers
        return self.hosts_per_leaf or -(-self.servers // self.leaves)

    @property
    def server_count(self) -> int:
        """How many servers the topology has; a leaf-spine fills every leaf."""
        if self.kind is TopologyKind.LEAF_SPINE:
            return self.leaves * self.below_each_leaf
        return self.servers

    @property
    def nic_count(self) -> int:
        """`nics_per_server`, decided."""
        if self.kind is TopologyKind.RAIL_OPTIMISED:
            return self.gpus_per_server or 1
        return self.nics_per_server or 1

    @model_validator(mode="after")
    def _consistent(self) -> "TopologySection":
        if self.kind is TopologyKind.FAT_TREE:
            if self.k % 2:
                raise _refusal("topology.k", f"the switches of a fat-tree have an even number, not {self.k}")
            if self.servers > fat_tree_servers(self.k):
                raise _refusal(
                    "topology.servers",
                    f"{self.servers} servers are too many for a fat-tree of k={self.k} "
                    f"(at most {fat_tree_servers(self.k)}); raise topology.k",
                )
        rails = self.kind is TopologyKind.RAIL_OPTIMISED
        if self.gpus_per_server is None:
            if rails:
                raise _refusal("topology.gpus_per_server", "rail-optimised needs it: a rail per GPU")
            several = self.nic_count > 1
            for key, asked in (
                ("nics_per_server", several),
                ("nvlink_gbps", self.nvlink_gbps is not None),
                ("pcie_gbps", self.pcie_gbps is not None),
            ):
                if asked:
                    raise _refusal("topology.gpus_per_server", f"must be given with topology.{key}")
        elif rails and self.nics_per_server not in (None, self.gpus_per_server):
            raise _refusal(
                "topology.nics_per_server",
                f"with rail-optimised every GPU has a NIC of its own: null or {self.gpus_per_server}",
            )
        elif self.nic_count > self.gpus_per_server:
            raise _refusal(
                "topology.nics_per_server",
                f"{self.nic_count} NICs are more than the {self.gpus_per_server} GPUs that use them",
            )
        return self


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


class AllReduce(enum.Enum):
    RING = "ring"
    TREE = "tree"


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
    all_reduce: AllReduce = Field(
        default=AllReduce.RING, description="how tensor-parallel ranks add up their vectors"
    )


class WorkloadSection(Section):
    kind: WorkloadKind = Field(
        default=WorkloadKind.CONVERSATION,
        description="conversation and agent are generated from the seed; mooncake and azure are "
        "read from path; flows is the micro workload below; coflows are shuffles read from path",
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
    coflows: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="kind coflows: how many coflows of the trace to take; null: all",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "WorkloadSection":
        given = [k for k in ("rate", "load", "time_scale") if getattr(self, k) is not None]
        if len(given) > 1:
            raise _refusal(f"workload.{given[1]}", f"only one of {' and '.join(given)} may be given")
        if self.coflows is not None and self.kind is not WorkloadKind.COFLOWS:
            raise _refusal("workload.coflows", f"has a meaning with kind coflows only, not {self.kind}")
        if self.kind is WorkloadKind.FLOWS:
            if not self.flows:
                raise _refusal("workload.kind", "flows needs at least one flow in workload.flows")
            if self.path is not None:
                raise _refusal("workload.path", "kind flows reads no trace")
            return self
        if self.flows:
            raise _refusal("workload.flows", f"has a meaning with kind flows only, not {self.kind}")
        if self.kind in (*TRACES, WorkloadKind.COFLOWS) and self.path is None:
            raise _refusal("workload.kind", f"{self.kind} needs workload.path, a trace file")
        if self.kind is WorkloadKind.COFLOWS:
            if self.rate is not None:
                raise _refusal("workload.rate", "is for requests; coflows arrive by workload.time_scale")
            return self
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


class SimulatedCollectives(enum.Enum):
    EXACT = "exact"
    GROUPED = "grouped"


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


_NONE = "null: as in simulation.calibration, else none"


class OverheadsSection(Section):
    goodput: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of a link's rate that payload gets; null: as in simulation.calibration, else 1",
    )
    burst_bytes: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"wire bytes that a port that was idle lets pass at once; {_NONE}",
    )
    permit_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"from submit to start where a level has to change, wall µs; {_NONE}",
    )
    permit_kept_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"from submit to start where the lane is on the level already, wall µs; {_NONE}",
    )
    transfer_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"what an S1 or S3 transfer takes besides its bytes, wall µs; {_NONE}",
    )
    collective_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"what a collective takes besides its bytes, wall µs; {_NONE}",
    )
    round_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"what each further round of a collective takes besides its bytes, wall µs; {_NONE}",
    )
    all_to_all_goodput: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of its even part of a port that a connection of an all-to-all can use; "
        "null: as in simulation.calibration, else 1",
    )
    compute_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"how much longer a step of compute takes than planned, wall µs; {_NONE}",
    )
    batch_us: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description=f"from when a batch is formed to when its ranks begin, wall µs; {_NONE}",
    )
    level_share: float | None = Field(
        default=None,
        ge=0,
        le=0.125,
        description=f"share of a port's rate that every level is guaranteed; {_NONE}",
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
        default=1.0, ge=1e-3, le=1e6, description="how often the scheduler hears how far flows are, model ms"
    )
    paths: Annotated[str, AfterValidator(known_path_choice)] = Field(
        default="hash", description="which of several equal-cost paths a flow takes"
    )
    collectives: SimulatedCollectives = Field(
        default=SimulatedCollectives.EXACT,
        description="exact: every message of every round; grouped: symmetric collectives as one stream",
    )
    invariants: bool = Field(
        default=True, description="check the laws a run must keep while it runs (docs/invariants.md)"
    )
    calibration: str | None = Field(
        default=None,
        description="file that `mfs calibrate` wrote, relative to this file (from --set: to the working "
        "directory): simulate with what that machine adds; null: with ideal links",
    )
    overheads: OverheadsSection = Field(
        default=OverheadsSection(),
        description="what a machine adds, one by one, in wall time and bytes on the wire, at the scale "
        "the emulated fabric would have",
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

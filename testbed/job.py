"""A job: one policy of a scenario, with everything resolved that a fabric needs to run it.

A job has no defaults left to decide. It is plain data, so it can be sent to another process. Times are
model nanoseconds, sizes model bytes, rates model bits/s.
"""

import enum

import msgspec

from controller.flow import Transfer
from controller.overload import RequestControl
from testbed.faults import Fault
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.topology import Topology
from workers.options import ComputeMode, Device
from workers.plan import BatchPlan, CollectiveKind


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How model time and model bytes map to the machine.

    A model second takes `time_dilation` wall seconds, and a model byte is `bytes_scale` bytes on the wire.
    A link of R model bits/s therefore runs at `R * bytes_scale / time_dilation` on the machine.
    """

    time_dilation: float
    bytes_scale: float

    def wire_bps(self, model_bps: float) -> float:
        return model_bps * self.bytes_scale / self.time_dilation


MODEL_SCALE = Scale(time_dilation=1.0, bytes_scale=1.0)
"""The scale of a fabric that does not depend on a machine's clock and links."""


class Role(enum.Enum):
    PREFILL = "prefill"
    DECODE = "decode"
    ENDPOINT = "endpoint"  # a server of the micro workload: sends and receives, computes nothing


class RankSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One rank. `unit` is its prefill unit, if any; `index` numbers the ranks of its unit or role from 0.

    `node` is the node of its GPU in the topology, which is the server itself if servers are single nodes.
    """

    rank: int
    server: str
    node: str
    role: Role
    unit: str | None = None
    index: int = 0


class UnitShape(msgspec.Struct, frozen=True, kw_only=True):
    """How a prefill unit divides its work among its ranks.

    It has `pp` pipeline stages, `sp` parts of a sequence and `tp` shares of the heads. The ranks that are
    left form replicas, which divide the requests. `ep` ranks of a stage divide the experts.
    """

    tp: int = 1
    sp: int = 1
    pp: int = 1
    ep: int = 1


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which server each rank is on, and which units, replicas and process groups the ranks form.

    - `units[name]` lists the ranks of a prefill unit: by pipeline stage, then by replica.
    - `shapes[name]` says how the unit divides its work.
    - `replicas[name]` lists the replicas of that unit. Each has `pp * sp * tp` ranks: by pipeline stage,
      then by part of the sequence (`sp`), then the `tp` ranks that share the heads of that part.
    - `groups` are the process groups of the collectives, by name.
    - `decode` lists the ranks of the decode workers, worker by worker: `decode_tp` tensor-parallel ranks
      each.
    """

    ranks: tuple[RankSpec, ...]
    units: dict[str, tuple[int, ...]]
    replicas: dict[str, tuple[tuple[int, ...], ...]]
    groups: dict[str, tuple[int, ...]]
    decode: tuple[int, ...]
    shapes: dict[str, UnitShape]
    decode_tp: int = 1

    @property
    def decode_workers(self) -> tuple[tuple[int, ...], ...]:
        """The ranks of each decode worker."""
        each = self.decode_tp
        return tuple(self.decode[i : i + each] for i in range(0, len(self.decode), each))

    @property
    def most_stages(self) -> int:
        """The pipeline stages of the unit that has most of them."""
        return max((shape.pp for shape in self.shapes.values()), default=1)

    def server_of(self, rank: int) -> str:
        return self.ranks[rank].server

    def node_of(self, rank: int) -> str:
        return self.ranks[rank].node


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to answer. `blocks` are the chained ids of its full blocks.

    Two prompts that share their first n block ids share their first `n * block_tokens` tokens. `slo_ns` is
    the TTFT that the request is promised. `unloaded_ns` is its TTFT alone on an idle cluster; a relative
    SLO is a multiple of it. A `warmup` request is served like any other, but not measured.

    A request with `after` is a later turn of a conversation: it arrives `pause_ns` after the answer to the
    request of that id (`testbed.serving.answers`), and not before `arrival_ns`.
    """

    id: int
    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    block_tokens: int
    slo_class: str = "default"
    slo_ns: int = 0
    unloaded_ns: int = 0
    warmup: bool = False
    after: int | None = None
    pause_ns: int = 0

    @property
    def deadline_ns(self) -> int:
        return self.arrival_ns + self.slo_ns


class MicroFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow of the micro workload. Its source rank posts it at `start_ns`."""

    transfer: Transfer
    start_ns: int


class ReuseRule(enum.StrEnum):
    """What is done with a cached prefix that only other replicas have: fetch it, compute it, or decide."""

    FETCH = "fetch"
    RECOMPUTE = "recompute"
    CHEAPER = "cheaper"


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """Background transfers (docs/concepts/workloads.md#background-transfers).

    Rank `src` sends `size_bytes` to rank `dst` for each of `pairs`, and begins again after `period_ns` or
    when they have arrived, whichever is later.
    """

    pairs: tuple[tuple[int, int], ...]
    size_bytes: int
    period_ns: int

    @property
    def asked_bps(self) -> float:
        """What all pairs together send if nothing delays them."""
        return len(self.pairs) * self.size_bytes * 8e9 / self.period_ns


class ServingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the serving system.

    - `all_reduce`: `ALL_REDUCE` (a ring) or `TREE_ALL_REDUCE`.
    - `sequence`: how the parts of a sequence attend to each other: `RING_ATTENTION`, or `ALL_TO_ALL`
      (Ulysses).
    - `batching`: the rule by which a unit forms batches (`testbed.serving.batching.rules`). None: the order
      of the policy's request control, or first come, first served without one.
    - `chunk_tokens`: the most new tokens of a batch; a prompt that does not fit is split. None: no limit.
    - `preempt_layers`: number of layers between pauses of a batch, in which a more urgent one may go first.
    - `cache_tokens`: the KV that a replica keeps, in tokens; None: all of it.
    - `reuse`: whether a cached prefix that only other replicas have is fetched or computed again.
    - `fetch_early`: the fetch of reused KV starts when its request is queued, not only with its batch.
    - `fetch_ahead`: how many layers ahead of the batch S1 is fetched; None: all layers at once.
    - `expert_skew`: exponent of the Zipf distribution of expert popularity; 0: all experts alike.
    - `decode_batch`: the most requests in a step of a decode worker; None: only first tokens are modelled.
    - `decode_background`: requests of each decode worker in background decoding; 0: none.
    """

    router: str
    max_batch_tokens: int
    decode_choice: str
    all_reduce: CollectiveKind = CollectiveKind.ALL_REDUCE
    sequence: CollectiveKind = CollectiveKind.RING_ATTENTION
    batching: str | None = None
    chunk_tokens: int | None = None
    preempt_layers: int | None = None
    cache_tokens: int | None = None
    reuse: ReuseRule = ReuseRule.FETCH
    fetch_early: bool = False
    fetch_ahead: int | None = None
    expert_skew: float = 0.0
    decode_batch: int | None = None
    decode_background: int = 0


class SchedulerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of MFS, shared by every policy that has options of the same names."""

    levels: int = 6  # K
    mlu_top: float = 0.5  # U
    mlu_base: float = 4.0  # E
    recheck_ns: int = 5_000_000  # how often S3 is judged again once compute is over

    def defaults(self) -> dict[str, int | float | str | bool]:
        """The options by name, as `controller.spec.read_spec` takes them."""
        return msgspec.structs.asdict(self)


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    device: Device
    compute: ComputeMode
    lanes_s1: int
    lanes_s3: int
    chunk_bytes: int
    verify_share: float


class Overheads(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine adds to ideal links and plans (docs/concepts/validation.md). The defaults add nothing.

    - `goodput`: the share of a port's rate that payload gets.
    - `burst_bytes`: what a port passes at once after it has been idle for long enough.
    - `permit_ns`: from the submit of a flow to its start.
    - `permit_kept_ns`: the same if the lane, or the side of a process group, is already on its level.
    - `transfer_ns`: time of a transfer besides its bytes.
    - `collective_ns`, `round_ns`: the same for the first round of a collective, and each further one.
    - `all_to_all_goodput`: cap on a connection of an all-to-all whose sender has several receivers and
      whose receiver has several senders, as a share of an even part of its narrowest port.
    - `compute_ns`: extra time of each compute step.
    - `batch_ns`: from when a batch is formed to when its ranks begin it.
    - `level_share`: the share of a port's rate that each level with something to send is guaranteed.
    """

    goodput: float = 1.0
    burst_bytes: int = 0
    permit_ns: int = 0
    permit_kept_ns: int = 0
    transfer_ns: int = 0
    collective_ns: int = 0
    round_ns: int = 0
    all_to_all_goodput: float = 1.0
    compute_ns: int = 0
    batch_ns: int = 0
    level_share: float = 0.0


class SimulationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the simulated fabric.

    - `exact`: policies get their exact order; with `hybrid`, only on the ports of servers.
    - `lanes`: flows wait for lanes.
    - `progress_ns`: how often the scheduler learns how far flows are.
    - `paths`: how one of several equal-cost paths is chosen (`simulation/paths.py`).
    - `grouped`: symmetric collectives go as one stream (`simulation/collectives.py`).
    - `separate`: each stage has all links to itself.
    - `invariants`: check the invariants that cost time, too (`simulation/invariants.py`).
    - `overheads`: what a machine would add.
    """

    exact: bool = False
    hybrid: bool = False
    lanes: bool = True
    progress_ns: int = 1_000_000
    paths: str = "hash"
    grouped: bool = False
    separate: bool = False
    invariants: bool = True
    overheads: Overheads = Overheads()


class Collect(enum.StrEnum):
    """Which rows a run records: all, or only those that a summary is made from.

    A summary is made from all but the decisions and the progress of flows. A fabric may record more.
    """

    ALL = "all"
    SUMMARY = "summary"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, a cluster and the work for it. Serving jobs have `requests`, micro jobs have `flows`.

    `policy` is the spec as the user wrote it; `control` is its request control, if any. If there are
    `plans`, the units form no batches: each runs its own plans, in this order (`testbed.serving.replay`).
    `background` are transfers beside those of requests, and `faults` happen during the run.
    `collect` says which rows the record has; it changes nothing else in it. With `probe_faster`, an emulated
    run first probes its links at so many times their rates, too, and says in its facts what arrived.
    """

    scenario: str
    policy: str
    seed: int
    topology: Topology
    placement: Placement
    scale: Scale
    model: ModelShape
    gpu: GpuSpeed
    serving: ServingOptions
    scheduler: SchedulerOptions
    workers: WorkerOptions
    simulation: SimulationOptions = SimulationOptions()
    control: RequestControl | None = None
    requests: tuple[Request, ...] = ()
    flows: tuple[MicroFlow, ...] = ()
    plans: tuple[BatchPlan, ...] = ()
    faults: tuple[Fault, ...] = ()
    background: Background | None = None
    collect: Collect = Collect.ALL
    probe_faster: float | None = None

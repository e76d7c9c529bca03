"""One run of one policy, fully resolved: what a fabric is handed.

Everything that a scenario left to a default has been decided here; a job is plain data and can
cross a process boundary. Times are model nanoseconds, sizes model bytes, rates model bits/s.
"""

import enum

import msgspec

from controller.flow import Transfer
from controller.overload import RequestControl
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.topology import Topology
from workers.options import ComputeMode, Device
from workers.plan import BatchPlan, CollectiveKind


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How the model is mapped to the machine.

    A model second takes `time_dilation` wall seconds and a model byte is `bytes_scale` bytes on the
    wire, so a link of R bits/s runs at `R * bytes_scale / time_dilation` on the machine.
    """

    time_dilation: float
    bytes_scale: float

    def wire_bps(self, model_bps: float) -> float:
        return model_bps * self.bytes_scale / self.time_dilation


MODEL_SCALE = Scale(time_dilation=1.0, bytes_scale=1.0)
"""Of a fabric that is not bound to a machine's clock and links."""


class Role(enum.Enum):
    PREFILL = "prefill"
    DECODE = "decode"
    ENDPOINT = "endpoint"  # a server of the micro workload: sends and receives, computes nothing


class RankSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process. `unit` is its prefill unit, `index` its place inside it (or among decoders).

    `node` is where its GPU is in the topology; the server itself, where servers are single nodes.
    """

    rank: int
    server: str
    node: str
    role: Role
    unit: str | None = None
    index: int = 0


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which rank is where, and which process groups they form.

    `units[name]` are the ranks of a prefill unit: pipeline stage by stage, inside a stage replica by
    replica. `replicas[name]` are its attention replicas, which keep the KV of the requests they compute:
    `pp * sp * tp` ranks each, stage by stage, inside a stage the `sp` parts of the sequence, of each part
    the `tp` ranks that share its heads. `groups` are the process groups collectives run in, by name.
    """

    ranks: tuple[RankSpec, ...]
    units: dict[str, tuple[int, ...]]
    replicas: dict[str, tuple[tuple[int, ...], ...]]
    groups: dict[str, tuple[int, ...]]
    decode: tuple[int, ...]
    tp: int = 1
    sp: int = 1
    pp: int = 1

    def server_of(self, rank: int) -> str:
        return self.ranks[rank].server

    def node_of(self, rank: int) -> str:
        return self.ranks[rank].node


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to be answered. `blocks` are prefix-chained ids of its full KV blocks.

    Two prompts that share their first n block ids share their first `n * block_tokens` tokens.
    `slo_ns` is the time-to-first-token budget: the deadline is `arrival_ns + slo_ns`; `unloaded_ns`
    is the TTFT the request would have alone on an idle cluster, which a relative SLO multiplies.
    A request of the `warmup` runs as any other and is left out of measures.
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

    @property
    def deadline_ns(self) -> int:
        return self.arrival_ns + self.slo_ns


class MicroFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow of the micro workload: posted by its source's rank at `start_ns`."""

    transfer: Transfer
    start_ns: int


class ServingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of the serving system. `all_reduce` is `ALL_REDUCE`, a ring, or `TREE_ALL_REDUCE`. `sequence` is how
    the parts of a sequence attend to each other: `RING_ATTENTION`, or `ALL_TO_ALL` (Ulysses).

    `batching` is how a unit forms batches (`testbed.serving.batching.rules`), None: as the policy's request
    control says, else first come, first served. With `chunk_tokens` no batch computes more new tokens than
    that, and a prompt that does not fit is split. With `preempt_layers` a batch is looked at again every so
    many layers: a more urgent one may go first. `cache_tokens` is the KV a replica keeps, in tokens, None
    for all. With `fetch_early` reused KV is sent for when a request is queued, not when its batch starts;
    `fetch_ahead` is how many layers ahead of the batch it may be, None for all at once. `expert_skew` is
    the exponent of Zipf's law that the popularity of experts follows, 0 for balance. `decode_batch` is how
    many requests a decode worker has in a step at most, None where nothing after the first token is
    modelled; `decode_background` how many each of them has all the while, for the traffic of their steps.
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
    fetch_early: bool = False
    fetch_ahead: int | None = None
    expert_skew: float = 0.0
    decode_batch: int | None = None
    decode_background: int = 0


class SchedulerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of MFS that v1 leaves open (shared by every policy that uses them)."""

    levels: int = 6
    mlu_top: float = 0.5  # U
    mlu_base: float = 4.0  # E
    recheck_ns: int = 5_000_000


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    device: Device
    compute: ComputeMode
    lanes_s1: int
    lanes_s3: int
    chunk_bytes: int
    verify_share: float


class Overheads(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine adds to ideal links and plans; the defaults add nothing (docs/concepts/validation.md).

    Payload gets `goodput` of a port's rate, and a port that was idle for long enough lets `burst_bytes` pass
    at once. From submit to start a flow waits `permit_ns`, or `permit_kept_ns` where its lane or its side of
    a process group is on its level already. A transfer takes `transfer_ns` besides its bytes, a collective
    `collective_ns` in its first round and `round_ns` in each further one. A connection of an all-to-all whose
    sender has several receivers and whose receiver has several senders gets at most `all_to_all_goodput` of
    an even part of its narrowest port. A step of compute takes `compute_ns` longer, a batch `batch_ns` from
    when it is formed to when its ranks begin. Each level of a port that has something to send is
    guaranteed `level_share` of the rate.
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
    """Of the simulated fabric: whether policies get their exact order, whether flows wait for lanes, how
    often progress is told, which of its equal-cost paths a flow takes (`simulation/paths.py`), whether
    symmetric collectives go as one stream (`simulation/collectives.py`), whether each stage has all links to
    itself, whether what costs time of the
    invariants is checked (`simulation/invariants.py`), and what a machine would add."""

    exact: bool = False
    lanes: bool = True
    progress_ns: int = 1_000_000
    paths: str = "hash"
    grouped: bool = False
    separate: bool = False
    invariants: bool = True
    overheads: Overheads = Overheads()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, a cluster and the work for it. Serving jobs have `requests`, micro jobs have `flows`.

    `policy` is the spec as it was written; `control` is its part on requests, None without one. With `plans`
    the units run these batches, each its own in this order, instead of forming any
    (`testbed.serving.replay`).
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

"""One run of one policy, fully resolved: what a fabric is handed.

Everything that a scenario left to a default has been decided here; a job is plain data and can
cross a process boundary. Times are model nanoseconds, sizes model bytes, rates model bits/s.
"""

import enum

import msgspec

from controller.overload import RequestControl
from testbed.topology import Topology
from workers.plan import Transfer


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
    """One worker process. `unit` is its prefill unit, `index` its place inside it (or among decoders)."""

    rank: int
    server: str
    role: Role
    unit: str | None = None
    index: int = 0


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which rank is where, and which process groups they form.

    `units[name]` are the ranks of a prefill unit in order. `replicas[name]` are its attention
    replicas (tensor-parallel groups). `groups` are the process groups collectives run in, by name.
    """

    ranks: tuple[RankSpec, ...]
    units: dict[str, tuple[int, ...]]
    replicas: dict[str, tuple[tuple[int, ...], ...]]
    groups: dict[str, tuple[int, ...]]
    decode: tuple[int, ...]

    def server_of(self, rank: int) -> str:
        return self.ranks[rank].server


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder model that byte and FLOP counts follow from. `experts == 0`: dense."""

    name: str
    layers: int
    hidden: int
    q_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    experts: int
    top_k: int
    bytes_per_element: int


class GpuSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Dense 16-bit peak and memory bandwidth of a GPU, and the share of the peak prefill reaches."""

    name: str
    peak_flops: float
    memory_bytes_per_s: float
    efficiency: float


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt to be answered. `blocks` are prefix-chained ids of its full KV blocks.

    Two prompts that share their first n block ids share their first `n * block_tokens` tokens.
    `slo_ns` is the time-to-first-token budget: the deadline is `arrival_ns + slo_ns`; `unloaded_ns`
    is the TTFT the request would have alone on an idle cluster, which a relative SLO multiplies.
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

    @property
    def deadline_ns(self) -> int:
        return self.arrival_ns + self.slo_ns


class MicroFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow of the micro workload: posted by its source's rank at `start_ns`."""

    transfer: Transfer
    start_ns: int


class ServingOptions(msgspec.Struct, frozen=True, kw_only=True):
    router: str
    max_batch_tokens: int
    decode_choice: str


class SchedulerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of MFS that v1 leaves open (shared by every policy that uses them)."""

    levels: int = 6
    mlu_top: float = 0.5  # U
    mlu_base: float = 4.0  # E
    recheck_ns: int = 5_000_000


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    device: str
    compute: str
    lanes_s1: int
    lanes_s3: int
    chunk_bytes: int
    verify_share: float


class SimulationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of the simulated fabric: whether policies get their exact order, whether flows wait for lanes, how
    often progress is told."""

    exact: bool = False
    lanes: bool = True
    progress_ns: int = 1_000_000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, a cluster and the work for it. Serving jobs have `requests`, micro jobs have `flows`.

    `policy` is the spec as it was written; `control` is its part on requests, None without one.
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

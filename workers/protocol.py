"""Messages between the coordinator of a run and its ranks, and the configuration of a rank.

They are sent over ZeroMQ as msgpack frames. `*_wall_ns` is CLOCK_MONOTONIC; other `*_ns` are model time.
"""

import msgspec

from controller.curve import ClientKeys
from controller.flow import Stage, Transfer
from controller.pulse import Pause
from workers.layer_sizes import LayerSizes
from workers.model.setup import RealModel
from workers.options import ComputeMode, Device
from workers.plan import BatchPlan, RequestPlan, Resume
from workers.slowdown import Slowdown
from workers.spans import SpanKind


class LaneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A lane to open: one TCP connection for flows of `stage` from rank `src` to rank `dst`."""

    id: str
    stage: Stage
    src: int
    dst: int


class ProbeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that only measures a path before the clock starts.

    The controller gives its connections the level of `fair` and schedules nothing on it.
    """

    id: str
    src: int
    dst: int


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank needs besides if it runs on a server of its own, and not on the coordinator's machine.

    `clock_offset_ns` is by how much the server's CLOCK_MONOTONIC is ahead of the coordinator's. The rank
    uses GPU `gpu` of its server, if there is any, and gloo for collectives. It marks the packets of its
    connections with `control_dscp`, and then as it is told (`controller.protocol.Mark`); None: it marks
    nothing. Its agent adds the `keys`, which the coordinator does not have.
    """

    keys: ClientKeys | None = None
    clock_offset_ns: int
    gpu: int
    control_dscp: int | None


class RankConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a rank needs before its first plan.

    `servers` are the servers of all ranks, by rank; `addresses` are IP addresses by server. The rank moves
    into the network namespace of the process `namespace_pid`, None to stay. `chunk_bytes` are wire bytes.
    `verify_share` is the share of transfers whose bytes are compared, 0 to 1. `store_rank` is the rank that
    keeps the store by which ranks find each other. `model` is what the ranks
    compute with `ComputeMode.MODEL`, otherwise None. `page_bytes` are the model bytes of a page of KV in one
    layer, and `layer` are the sizes for `ComputeMode.KERNELS`, otherwise None.
    """

    rank: int
    servers: tuple[str, ...]
    addresses: dict[str, str]
    interface: str
    namespace_pid: int | None
    store_host: str
    store_port: int
    lanes: tuple[LaneSpec, ...]
    probes: tuple[ProbeSpec, ...]
    groups: dict[str, tuple[int, ...]]
    time_dilation: float
    bytes_scale: float
    chunk_bytes: int
    verify_share: float
    seed: int
    device: Device
    compute: ComputeMode
    to_controller: str
    from_controller: str
    to_coordinator: str
    from_coordinator: str
    remote: Remote | None = None
    model: RealModel | None = None
    page_bytes: int
    layer: LayerSizes | None = None
    slowdowns: tuple[Slowdown, ...] = ()
    store_rank: int = 0


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    zero_wall_ns: int


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """A batch to run; for a decode worker, requests to expect."""

    plan: BatchPlan


class Transfers(msgspec.Struct, frozen=True, kw_only=True, tag="transfers"):
    """Post these transfers now: reused KV that is fetched, or traffic between decode workers.

    With real layers, `requests` are those that the transfers are for.
    """

    transfers: tuple[Transfer, ...]
    requests: tuple[RequestPlan, ...] = ()


class TimedTransfer(msgspec.Struct, frozen=True, kw_only=True):
    transfer: Transfer
    start_ns: int


class Flows(msgspec.Struct, frozen=True, kw_only=True, tag="flows"):
    """The flows of a micro workload that this rank sends, with their start times."""

    flows: tuple[TimedTransfer, ...]


class RunProbe(msgspec.Struct, frozen=True, kw_only=True, tag="run_probe"):
    """Send `wire_bytes` on the probe lane `probe` at `at_wall_ns`, or receive them."""

    probe: str
    wire_bytes: int
    at_wall_ns: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True, tag="evidence"):
    """What rank `src` leaves to decode rank `to`, which checks the first token of `request` after the run.

    These are bytes: the logits that the prefill unit has computed, or the KV that another rank of the decode
    worker has got.
    """

    request: int
    src: int
    to: int
    logits: bool
    content: bytes


class Finish(msgspec.Struct, frozen=True, kw_only=True, tag="finish"):
    """The run is over: send your `Records`. A connection that closes after this is not a failure.

    `evidence` is what was left to this rank.
    """

    evidence: tuple[Evidence, ...] = ()


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag="leave"):
    """All ranks have sent their `Records`: end the process."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """All lanes and groups of the rank are connected.

    `device` is where its tensors live, `backend` is the backend of its collectives.
    """

    rank: int
    device: str
    backend: str


class Probed(msgspec.Struct, frozen=True, kw_only=True, tag="probed"):
    """A measurement from the receiving end of a probe lane, in wall seconds.

    `seconds` passed between the arrival of the first chunk and of the last. `wire_bytes` do not include
    the first chunk.
    """

    probe: str
    wire_bytes: int
    seconds: float


class BatchDone(msgspec.Struct, frozen=True, kw_only=True, tag="batch_done"):
    """This rank has finished the compute and collectives of the batch's last layer."""

    batch: str
    rank: int
    start_ns: int
    end_ns: int


class LayerBegun(msgspec.Struct, frozen=True, kw_only=True, tag="layer_begun"):
    """This rank begins a layer of a batch with `BatchPlan.fetch_ahead`. S1 of later layers waits for it."""

    batch: str
    rank: int
    layer: int


class Paused(msgspec.Struct, frozen=True, kw_only=True, tag="paused"):
    """This rank has stopped before `layer` of the batch (`BatchPlan.pause_every`).

    It waits for `Resume`, and runs the plans that it gets in the meantime.
    """

    batch: str
    rank: int
    layer: int


class FirstToken(msgspec.Struct, frozen=True, kw_only=True, tag="first_token"):
    """This rank had all its KV of the request at `p2d_end_ns` and ended its first decode step at `time_ns`.

    It is one of the `ranks` ranks of the decode worker. The last one makes the first token.
    """

    request: int
    ranks: int
    p2d_end_ns: int
    time_ns: int


class Arrived(msgspec.Struct, frozen=True, kw_only=True, tag="arrived"):
    """A flow that belongs to no request has arrived: a micro flow, or one between decode workers."""

    flow: str


class SentFlow(msgspec.Struct, frozen=True, kw_only=True):
    """The sender's half of a flow's record. `permit_latency_wall_ns` excludes the wait for a lane."""

    transfer: Transfer
    submit_ns: int
    permit_ns: int
    lane_wait_ns: int
    permit_latency_wall_ns: int


class ReceivedFlow(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver's half of a flow's record. Both halves of a share come from the same rank.

    `verified` is None if the bytes were not compared.
    """

    id: str
    finish_ns: int
    verified: bool | None


class Span(msgspec.Struct, frozen=True, kw_only=True):
    kind: SpanKind
    label: str
    batch: str | None
    layer: int | None
    start_ns: int
    end_ns: int


class ProgressMark(msgspec.Struct, frozen=True, kw_only=True):
    flow: str
    time_ns: int
    received_bytes: int


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """The rank runs. `steps` is how much it has recorded so far: it grows while the rank gets on."""

    rank: int
    steps: int


class TokenCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The first token of a request, computed from KV that has arrived, against that of the whole model.

    `gap` is how far the logit of `token` is below that of `expected_token` in the whole model. `logit_error`
    and `kv_error` are the largest differences to the whole model: of a logit, from the decode worker or from
    the prefill unit, and of an element of the `kv_bytes` of KV. They are infinite if anything is missing.
    """

    request: int
    token: int
    expected_token: int
    gap: float
    logit_error: float
    kv_error: float
    kv_bytes: int


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank has recorded. `late_wakeups_ms` is how late its timed waits ended, in wall ms."""

    rank: int
    sent: tuple[SentFlow, ...]
    received: tuple[ReceivedFlow, ...]
    spans: tuple[Span, ...]
    progress: tuple[ProgressMark, ...]
    late_wakeups_ms: tuple[float, ...]


class Rows(Recorded, frozen=True, kw_only=True, tag="rows"):
    """What a rank has recorded since the last `Rows`, so that it need not keep it."""


class Records(Recorded, frozen=True, kw_only=True, tag="records"):
    """All that a rank has recorded and not sent as `Rows`.

    `longest_pause` is the longest one of the rank's process since the clock started, and `pauses` are further
    long ones. `tokens` are the first tokens that the rank has really computed.
    """

    longest_pause: Pause
    pauses: tuple[Pause, ...] = ()
    tokens: tuple[TokenCheck, ...] = ()


class RankTrouble(msgspec.Struct, frozen=True, kw_only=True, tag="rank_trouble"):
    """A failure that ends the run: a wrong payload, a broken connection, an exception."""

    rank: int
    message: str


ToRank = Start | Plan | Resume | Transfers | Flows | RunProbe | Finish | Leave
FromRank = (
    Ready
    | Probed
    | Beat
    | LayerBegun
    | Paused
    | BatchDone
    | FirstToken
    | Arrived
    | Evidence
    | Rows
    | Records
    | RankTrouble
)

encode = msgspec.msgpack.Encoder().encode
decode_to_rank = msgspec.msgpack.Decoder(ToRank).decode
decode_from_rank = msgspec.msgpack.Decoder(FromRank).decode

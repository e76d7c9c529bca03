"""Messages between the coordinator of a run and its ranks, and what a rank is started with.

Sent over ZeroMQ as msgpack frames. `*_wall_ns` is CLOCK_MONOTONIC; `*_ns` is model time.
"""

import msgspec

from controller.flow import Stage, Transfer
from workers.options import ComputeMode, Device
from workers.plan import BatchPlan, Resume
from workers.spans import SpanKind


class LaneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A lane to be opened: one TCP connection for flows of `stage` from rank `src` to rank `dst`."""

    id: str
    stage: Stage
    src: int
    dst: int


class ProbeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that only measures a path before the clock starts.

    The controller gives its connections rules at the level of `fair` and schedules nothing on it.
    """

    id: str
    src: int
    dst: int


class RankConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a rank needs before its first plan. Indexed tuples are by rank number."""

    rank: int
    servers: tuple[str, ...]
    addresses: dict[str, str]
    interface: str
    namespace_pid: int
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


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    zero_wall_ns: int


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """A batch to run, or, for a decode worker, requests to expect."""

    plan: BatchPlan


class Transfers(msgspec.Struct, frozen=True, kw_only=True, tag="transfers"):
    """Post these transfers now: reused KV that is sent for, or what decode workers send each other."""

    transfers: tuple[Transfer, ...]


class TimedTransfer(msgspec.Struct, frozen=True, kw_only=True):
    transfer: Transfer
    start_ns: int


class Flows(msgspec.Struct, frozen=True, kw_only=True, tag="flows"):
    """The micro workload's flows that this rank sends."""

    flows: tuple[TimedTransfer, ...]


class RunProbe(msgspec.Struct, frozen=True, kw_only=True, tag="run_probe"):
    """Send, or receive, `wire_bytes` on the lane `probe` at `at_wall_ns`."""

    probe: str
    wire_bytes: int
    at_wall_ns: int


class Finish(msgspec.Struct, frozen=True, kw_only=True, tag="finish"):
    """The run is over: send your `Records`. A connection that closes from now on is no failure."""


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag="leave"):
    """All ranks have sent their `Records`: end."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """All lanes and groups of the rank are connected. `device` and `backend` are what it chose."""

    rank: int
    lanes: int
    groups: int
    device: str
    backend: str


class Probed(msgspec.Struct, frozen=True, kw_only=True, tag="probed"):
    """The receiving end of a probe lane: how long `wire_bytes` took from first to last byte."""

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
    """This rank begins a layer of a batch whose S1 is sent for layer by layer (`BatchPlan.fetch_ahead`)."""

    batch: str
    rank: int
    layer: int


class Paused(msgspec.Struct, frozen=True, kw_only=True, tag="paused"):
    """This rank has stopped before `layer` of the batch (`BatchPlan.pause_every`) and waits for a plan to
    run meanwhile, or for `Resume`."""

    batch: str
    rank: int
    layer: int


class FirstToken(msgspec.Struct, frozen=True, kw_only=True, tag="first_token"):
    """The decode worker has the whole KV of the request (`p2d_end_ns`) and has done its first step."""

    request: int
    p2d_end_ns: int
    time_ns: int


class Arrived(msgspec.Struct, frozen=True, kw_only=True, tag="arrived"):
    """A flow of no request has arrived completely: a micro flow, or one between decode workers."""

    flow: str


class SentFlow(msgspec.Struct, frozen=True, kw_only=True):
    """The sender's half of a flow's record; `permit_latency_wall_ns` excludes the wait for a lane."""

    transfer: Transfer
    submit_ns: int
    permit_ns: int
    lane_wait_ns: int
    permit_latency_wall_ns: int


class ReceivedFlow(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver's half. For a share of a collective both halves come from the same rank."""

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


class Records(msgspec.Struct, frozen=True, kw_only=True, tag="records"):
    """All a rank has seen. `late_wakeups_ms`: how much later than asked its timed waits ended."""

    rank: int
    sent: tuple[SentFlow, ...]
    received: tuple[ReceivedFlow, ...]
    spans: tuple[Span, ...]
    progress: tuple[ProgressMark, ...]
    late_wakeups_ms: tuple[float, ...]


class RankTrouble(msgspec.Struct, frozen=True, kw_only=True, tag="rank_trouble"):
    """Something the run cannot survive: a wrong payload, a broken connection, an exception."""

    rank: int
    message: str


ToRank = Start | Plan | Resume | Transfers | Flows | RunProbe | Finish | Leave
FromRank = Ready | Probed | LayerBegun | Paused | BatchDone | FirstToken | Arrived | Records | RankTrouble

encode = msgspec.msgpack.Encoder().encode
decode_to_rank = msgspec.msgpack.Decoder(ToRank).decode
decode_from_rank = msgspec.msgpack.Decoder(FromRank).decode

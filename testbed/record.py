"""The record of a job: rows of plain data in model units, the same from every fabric.

Times are model nanoseconds since the clock of the run started. `None` in a time field means that the
event did not happen. A run may have millions of rows, so they are encoded as arrays, without field names,
and the garbage collector does not track them: they cannot be part of a cycle.
"""

import enum
from collections.abc import Callable, Sequence

import msgspec

from controller.flow import ALL_PEERS, Decision, Level, PortId, Stage, Transfer
from controller.lanes import LevelTrail
from testbed.faults import Fault
from workers.spans import SpanKind


class RequestStatus(enum.StrEnum):
    """How a request ended: with a first token, or without one."""

    COMPLETED = "completed"
    FAILED = "failed"


class FlowOrder(enum.StrEnum):
    """The order in which flows were sent: by the levels of the policy, or in its exact order.

    In a hybrid, the ports of servers keep the exact order, and those of switches know levels.
    """

    LEVELS = "levels"
    EXACT = "exact"
    HYBRID = "hybrid"


class RequestRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One request. `ttft_ns` is the time from its arrival to its first token.

    If the prompt was split, `earlier_batches` computed its first parts and `batch` the last one; `start_ns`
    is then the start of the first batch, and `prefill_end_ns` the end of the last. `last_token_ns` is the
    time of the last of `output_tokens`, None if decoding is not modelled. `times_pruned` is how often
    request control pruned the request; `ended_pruned` says that it was not freed after the last time.
    `warmup` requests are not measured.

    A request that failed because a unit or a decode worker was lost has that loss in `lost_to`, in words. In
    `moved_by` are the losses of units that it left for another one while it was queued.

    `recomputed_tokens` of `new_tokens` were cached on other replicas, but not fetched. `fetch_estimate_ns`
    and `recompute_estimate_ns` are what decided between the two: the estimated time from the forming of the
    batch to the end of its compute. None if nothing was to be decided.

    With real layers, `token` is the first token that the decode worker computed, and `expected_token` that of
    the whole model, where the logit of `token` is `token_gap` lower. `logit_error` and `kv_error` are the
    largest differences to the whole model, of a logit and of an element of the `kv_bytes` of KV that arrived.
    """

    request: int
    slo_class: str
    status: RequestStatus
    unit: str | None
    batch: str | None
    decode_rank: int | None
    prompt_tokens: int
    new_tokens: int
    local_tokens: int
    remote_tokens: int
    arrival_ns: int
    start_ns: int | None
    prefill_end_ns: int | None
    p2d_end_ns: int | None
    first_token_ns: int | None
    ttft_ns: int | None
    slo_ns: int
    unloaded_ttft_ns: int
    warmup: bool = False
    earlier_batches: tuple[str, ...] = ()
    output_tokens: int = 0
    last_token_ns: int | None = None
    times_pruned: int = 0
    ended_pruned: bool = False
    recomputed_tokens: int = 0
    fetch_estimate_ns: int | None = None
    recompute_estimate_ns: int | None = None
    lost_to: str | None = None
    moved_by: tuple[str, ...] = ()
    token: int | None = None
    expected_token: int | None = None
    token_gap: float | None = None
    logit_error: float | None = None
    kv_error: float | None = None
    kv_bytes: int | None = None

    @property
    def tpot_ns(self) -> float | None:
        """Time per output token after the first (TPOT); None for fewer than two output tokens."""
        if self.last_token_ns is None or self.first_token_ns is None or self.output_tokens < 2:
            return None
        return (self.last_token_ns - self.first_token_ns) / (self.output_tokens - 1)


class FlowRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One flow, from its submit to its last byte at the receiver.

    `src` and `dst` are ranks. A collective has one row per member, its share, with `dst` -1 and no
    `dst_server`. `permit_ns - submit_ns` includes `lane_wait_ns`, the wait for a free lane. `verified` says
    whether the payload arrived as it was sent; None if it was not checked.
    """

    id: str
    stage: Stage
    src: int
    dst: int
    src_server: str
    dst_server: str | None
    size_bytes: int
    batch: str | None
    request: int | None
    layer: int | None
    coflow: str | None
    deadline_ns: int | None
    submit_ns: int
    permit_ns: int
    lane_wait_ns: int
    finish_ns: int
    level_first: Level
    level_last: Level
    promotions: int
    path: tuple[str, ...]
    verified: bool | None

    @classmethod
    def of(
        cls,
        transfer: Transfer,
        server_of: Callable[[int], str],
        *,
        submit_ns: int,
        permit_ns: int,
        lane_wait_ns: int,
        finish_ns: int,
        trail: LevelTrail,
        path: tuple[PortId, ...],
        verified: bool | None,
    ) -> "FlowRow":
        """Make the row of `transfer`. `server_of` names the server of a rank; `trail` holds its levels."""
        assert trail.level_first is not None
        assert trail.level_last is not None
        return cls(
            id=transfer.id,
            stage=transfer.stage,
            src=transfer.src,
            dst=transfer.dst,
            src_server=server_of(transfer.src),
            dst_server=None if transfer.dst == ALL_PEERS else server_of(transfer.dst),
            size_bytes=transfer.size_bytes,
            batch=transfer.batch,
            request=transfer.request,
            layer=transfer.layer,
            coflow=transfer.belongs_to,
            deadline_ns=transfer.deadline_ns,
            submit_ns=submit_ns,
            permit_ns=permit_ns,
            lane_wait_ns=lane_wait_ns,
            finish_ns=finish_ns,
            level_first=trail.level_first,
            level_last=trail.level_last,
            promotions=trail.promotions,
            path=path,
            verified=verified,
        )


class SpanRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a rank did from `start_ns` to `end_ns`."""

    rank: int
    kind: SpanKind
    label: str
    batch: str | None
    layer: int | None
    start_ns: int
    end_ns: int


class LinkSample(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Counters of one port at one moment, per level: wire bytes sent so far, backlog now, drops so far.

    A port may lack samples that others have. Between two of its own, its counters are on a straight line.
    """

    time_ns: int
    port: str
    sent_bytes: tuple[int, ...]
    backlog_bytes: tuple[int, ...]
    drops: tuple[int, ...]


class ProgressRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Model bytes of a flow that have arrived at its receiver by `time_ns`."""

    time_ns: int
    flow: str
    received_bytes: int


class CacheRow(msgspec.Struct, frozen=True, kw_only=True):
    """How much KV the requests of a unit reused, in blocks and tokens.

    Of the blocks that a request could have reused, the `local` ones were on its own replica, the `remote`
    ones were fetched from another replica (S1), the `recomputed` ones were computed although another replica
    had them, and the `missed` ones had to be computed.
    `evicted_blocks` counts the copies that the unit's replicas evicted.
    """

    unit: str
    requests: int = 0
    prompt_tokens: int = 0
    local_blocks: int = 0
    remote_blocks: int = 0
    recomputed_blocks: int = 0
    missed_blocks: int = 0
    local_tokens: int = 0
    remote_tokens: int = 0
    recomputed_tokens: int = 0
    missed_tokens: int = 0
    evicted_blocks: int = 0

    def counts(self) -> dict[str, int]:
        """Return all fields but `unit`, by name."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "unit"}

    def __add__(self, other: "CacheRow") -> "CacheRow":
        """Add the counts; the sum keeps the unit of this row."""
        more = other.counts()
        return CacheRow(unit=self.unit, **{name: count + more[name] for name, count in self.counts().items()})


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One fidelity measure with its bound. `advice` says what to change when it is not met.

    `reason` says what the value was made from, and why the bound is where it is. If the bound is not met,
    `dilation` is by how much the time dilation would have to grow for the same delays to be within it, and
    `slower` by how much the links would have to be slower; None where that does not help.
    """

    name: str
    value: float | None
    bound: str
    unit: str
    ok: bool
    advice: str
    reason: str = ""
    dilation: float | None = None
    slower: float | None = None


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    faithful: bool
    checks: tuple[Check, ...]


FASTER_THAN_LINE = "faster_than_line"
"""The fact that says which share of the S1 and S3 flows of an emulated run was faster than the line rate."""


FORWARDED = "forwarded_when_faster"
"""The fact that says which share of its rate the slowest path delivered, with faster links
(`Job.probe_faster`)."""

CPU_WAIT_MS = "cpu_wait_ms"
"""The fact that says how long a process waited for each of its turns on a CPU: the mean in wall milliseconds,
of the process for which it is longest."""

LATE_P99_MS = "late_wakeups_p99_ms"
"""The fact that says how late timed waits ended, in wall milliseconds."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a job leaves behind. `permit_latency_ms` holds wall milliseconds.

    The sequences of rows may not fit into memory: iterate over them, or read them in columns
    (`testbed.columns.batches_of`), and do not copy them.

    Readers may rely on this order. The decisions of one flow are in order of time. The shares of a batch's
    collectives all come before those of the unit's next batch, and so do the spans in which a rank waits
    for S1; sorting by start or by end has this effect. If a unit works on several batches at once (pipeline
    stages, at most `batches_at_once`), they come before those of every batch that starts after this one has
    ended. A batch that is preempted has no collective open meanwhile.

    `order` says which order of flows the fabric kept. `caches` has a row per unit, none if the run replayed
    given batches. `faults` are those that the job asked for, also if the run ended before their time.
    """

    policy: str
    fabric: str
    requests: Sequence[RequestRow]
    flows: Sequence[FlowRow]
    decisions: Sequence[Decision]
    spans: Sequence[SpanRow]
    links: Sequence[LinkSample]
    progress: Sequence[ProgressRow]
    permit_latency_ms: Sequence[float]
    fidelity: Fidelity
    facts: dict[str, str | int | float]
    queues: dict[str, list[dict[str, str | int | float]]]
    duration_ns: int
    wall_s: float
    order: FlowOrder = FlowOrder.LEVELS
    batches_at_once: int = 1
    caches: tuple[CacheRow, ...] = ()
    faults: tuple[Fault, ...] = ()

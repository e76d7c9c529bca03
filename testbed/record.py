"""What every fabric brings back from a run: rows of plain data in model units.

Times are model nanoseconds since the clock of the run started; `None` means "did not happen". Rows are
encoded as arrays, without the names of their fields, and left alone by the garbage collector, as they can
be in no cycle: there are millions of them.
"""

import enum
from collections.abc import Callable, Sequence

import msgspec

from controller.flow import ALL_PEERS, Level, PortId, Stage, Transfer
from controller.lanes import LevelTrail
from workers.spans import SpanKind


class RequestStatus(enum.StrEnum):
    """How a request ended: with a first token, or without one."""

    COMPLETED = "completed"
    FAILED = "failed"


class RequestRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One request. `ttft_ns` is arrival to first token.

    Request control pruned it `times_pruned` times; it `ended_pruned` if it was never freed after the last.

    `last_token_ns` is when the last of `output_tokens` was out, None where decoding is not modelled.

    One of the `warmup` is in no measure. `earlier_batches` computed parts of its prompt, `batch` the last
    one; its prefill is from the start of the first to the end of the last.
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

    @property
    def tpot_ns(self) -> float | None:
        """Time per output token after the first, None for less than two of them."""
        if self.last_token_ns is None or self.first_token_ns is None or self.output_tokens < 2:
            return None
        return (self.last_token_ns - self.first_token_ns) / (self.output_tokens - 1)


class FlowRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One flow, from submission to the last byte at the receiver.

    `permit_ns - submit_ns` includes `lane_wait_ns`, the time it waited for a free lane.
    For S2, one row per member of a collective; `src` and `dst` are rank numbers, `dst` is -1.
    `verified` is None where the payload was not in the checked sample.
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
        """The row of `transfer`. `server_of` names the server of a rank; `trail` holds its levels."""
        assert trail.first is not None
        assert trail.last is not None
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
            level_first=trail.first,
            level_last=trail.last,
            promotions=trail.promotions,
            path=path,
            verified=verified,
        )


class DecisionRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One level change, with its reason in words. `level_from` is None for the first assignment."""

    time_ns: int
    flow: str
    level_from: Level | None
    level_to: Level
    reason: str


class SpanRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a rank did."""

    rank: int
    kind: SpanKind
    label: str
    batch: str | None
    layer: int | None
    start_ns: int
    end_ns: int


class LinkSample(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Counters of one port at one moment: per level, wire bytes sent so far, backlog and drops so far."""

    time_ns: int
    port: str
    sent_bytes: tuple[int, ...]
    backlog_bytes: tuple[int, ...]
    drops: tuple[int, ...]


class ProgressRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Bytes of a flow that have arrived at its receiver by `time_ns` (model bytes)."""

    time_ns: int
    flow: str
    received_bytes: int


class CacheRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the prefix cache of a unit was good for: blocks and tokens of the requests that it ran.

    Of the blocks that a request may reuse, `local` were on its replica, `remote` on another one, from
    where they were fetched (S1), and `missed` nowhere. `evicted_blocks` are copies that the unit's
    replicas had no room for any more.
    """

    unit: str
    requests: int = 0
    prompt_tokens: int = 0
    local_blocks: int = 0
    remote_blocks: int = 0
    missed_blocks: int = 0
    local_tokens: int = 0
    remote_tokens: int = 0
    missed_tokens: int = 0
    evicted_blocks: int = 0

    def counts(self) -> dict[str, int]:
        """All but the unit, by name."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "unit"}

    def __add__(self, other: "CacheRow") -> "CacheRow":
        """Both together, as of this unit."""
        more = other.counts()
        return CacheRow(unit=self.unit, **{name: count + more[name] for name, count in self.counts().items()})


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One fidelity measure with its bound. `advice` says what to change when it is not met."""

    name: str
    value: float | None
    bound: str
    unit: str
    ok: bool
    advice: str


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    faithful: bool
    checks: tuple[Check, ...]


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one policy's run left behind. `permit_latency_ms` are wall milliseconds.

    The sequences of rows may be longer than memory (`testbed.spool`): go over them, do not copy them.
    Flows and spans are in an order in which, of the flows of collectives and of the spans in which a rank
    waits for S1, those of one batch are all before those of the next batch of the same unit, as by their
    ends or by their starts; where a unit works on several batches at once (pipeline stages), before those
    that start when it has ended. A batch that was preempted has no collective open meanwhile. The decisions
    of one flow are in order of time.

    `batches_at_once` is how many batches a unit works on at once at most.

    `exact_order` says that the fabric kept a policy's exact order of flows; otherwise the policy had
    its levels only. `caches` are those of the units, none where a run followed given batches.
    """

    policy: str
    fabric: str
    requests: Sequence[RequestRow]
    flows: Sequence[FlowRow]
    decisions: Sequence[DecisionRow]
    spans: Sequence[SpanRow]
    links: Sequence[LinkSample]
    progress: Sequence[ProgressRow]
    permit_latency_ms: Sequence[float]
    fidelity: Fidelity
    facts: dict[str, str | int | float]
    queues: dict[str, list[dict[str, str | int | float]]]
    duration_ns: int
    wall_s: float
    exact_order: bool = False
    batches_at_once: int = 1
    caches: tuple[CacheRow, ...] = ()

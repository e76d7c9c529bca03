"""What limits a run: how busy its GPUs and its links were, and what the TTFT of its requests was spent on.

All of it is about the time from the first request that counts to the end of the last prefill. A run whose
GPUs and links are mostly idle cannot tell two policies apart, whatever these do.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controller.flow import PortId
from controller.units import NS_PER_S
from experiments.results.link_rates import Counters, counters
from experiments.results.requests import batches_of, counted
from testbed import columns
from testbed.columns import codes, numbers
from testbed.job import Job, Role
from testbed.record import RequestRow, RunRecord
from workers.spans import SpanKind

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

BUSY: Final = 0.7
"""From this share of its time on, a resource counts as a limit. Queues grow fast from there: with random
arrivals and constant service, the mean wait exceeds a service time above 2/3 (Pollaczek and Khinchine)."""

_SPENT: Final = (SpanKind.S1_WAIT, SpanKind.COMPUTE, SpanKind.COLLECTIVE)
_NOBODY: Final = np.empty(0, dtype=np.int64)
_RANKS: Final = 2**32
"""More than any run has."""
_STEPS: Final = 10
"""A busiest second begins at a tenth of a second after the start."""


class Limit(enum.StrEnum):
    """What the run ran into first.

    - `COMPUTE`: the prefill GPUs are occupied, and more of that time computes than waits for transfers.
    - `NETWORK`: they are occupied, and wait for transfers at least as long; or a link is busy.
    - `NONE`: neither GPUs nor links are busy.
    """

    COMPUTE = "compute"
    NETWORK = "network"
    NONE = "none"


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has: its prefill GPUs, and the rate of each port in model bits/s. A model byte is
    `bytes_scale` bytes in the counters of ports."""

    prefill_gpus: int
    link_bps: Mapping[PortId, int]
    bytes_scale: float

    @classmethod
    def of(cls, job: Job) -> "Resources":
        return cls(
            prefill_gpus=sum(rank.role is Role.PREFILL for rank in job.placement.ranks),
            link_bps={link.id: link.bps for link in job.topology.links},
            bytes_scale=job.scale.bytes_scale,
        )


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """The share of time that something is in use: on average, and in the busiest second of model time.

    In a run of less than a second, both are the same.
    """

    mean: float
    busiest: float


class TtftParts(msgspec.Struct, frozen=True, kw_only=True):
    """The mean parts of the TTFT of the requests that count and have a first token, in model seconds.

    They add up to the mean TTFT. `experiments.results.ttft_parts.TimeSpent` explains the parts.
    """

    queue_s: float
    s1_wait_s: float
    compute_s: float
    collective_s: float
    other_s: float
    p2d_tail_s: float
    decode_s: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What limits a run.

    `computing` is about the prefill GPUs; `occupied` adds the time in which they wait for S1 or are in a
    collective. `port` is the port that was busy for most of the time, and `port_busy` says how much; both
    are None without samples of links.
    """

    limit: Limit
    computing: Busy
    occupied: Busy
    port: PortId | None
    port_busy: Busy | None
    ttft: TtftParts | None


def limits(record: RunRecord, resources: Resources) -> Limits | None:
    """Say what limits `record`. None if no request was prefilled."""
    rows = counted(record.requests)
    ends = [row.prefill_end_ns for row in rows if row.prefill_end_ns is not None]
    if not ends:
        return None
    edges = _edges(min(row.arrival_ns for row in rows), max(ends))
    spans = _Spans(edges)
    for batch in columns.batches_of(record.spans, ["rank", "kind", "batch", "start_ns", "end_ns"]):
        spans.take(batch)
    computing = _share(spans.busy_ns[_SPENT.index(SpanKind.COMPUTE)], edges, resources.prefill_gpus)
    occupied = _share(spans.busy_ns.sum(axis=0), edges, resources.prefill_gpus)
    port, port_busy = _busiest_port(counters(record.links), edges, resources)
    return Limits(
        limit=_limit(computing, occupied, port_busy),
        computing=computing,
        occupied=occupied,
        port=port,
        port_busy=port_busy,
        ttft=_ttft_parts(rows, spans),
    )


def _edges(begin_ns: int, end_ns: int) -> IntArray:
    """Moments from `begin_ns` on at even steps, of which `_STEPS` are a second, and the end."""
    steps = np.arange(begin_ns, end_ns, NS_PER_S // _STEPS, dtype=np.int64)
    return np.append(steps, max(end_ns, begin_ns + 1))


def _share(busy_ns: FloatArray, edges: IntArray, count: int) -> Busy:
    """The shares for `count` of something that were busy for `busy_ns` together by each edge."""
    mean = float((busy_ns[-1] - busy_ns[0]) / (edges[-1] - edges[0]) / count)
    even = busy_ns[:-1]
    seconds = (even[_STEPS:] - even[:-_STEPS]) / NS_PER_S / count
    return Busy(mean=mean, busiest=max(mean, float(seconds.max(initial=0.0))))


class _Spans:
    """What ranks did, added up: by kind until each edge, and by batch and kind, in the order of `_SPENT`."""

    def __init__(self, edges: IntArray) -> None:
        self.busy_ns: FloatArray = np.zeros((len(_SPENT), len(edges)))
        self._edges = edges
        self._numbers: dict[str, int] = {}  # of batches
        self._spent_ns = np.zeros((0, len(_SPENT)))
        self._ranks: list[IntArray] = [np.empty(0, dtype=np.int64)]  # batch * _RANKS + rank

    def take(self, spans: pa.RecordBatch) -> None:
        kind, kinds = codes(spans, "kind")
        spent_on = np.array([_SPENT.index(name) if name in _SPENT else -1 for name in kinds])[kind]
        counts = spent_on >= 0
        kind = spent_on[counts]
        start, end = numbers(spans, "start_ns")[counts], numbers(spans, "end_ns")[counts]
        self.busy_ns += self._begun(kind, start) - self._begun(kind, end)
        batch, batches = codes(spans, "batch")
        number = np.array([*(self._numbers.setdefault(name, len(self._numbers)) for name in batches), -1])
        batch = number[batch[counts]]
        known = batch >= 0
        more = len(self._numbers) - len(self._spent_ns)
        self._spent_ns = np.pad(self._spent_ns, ((0, more), (0, 0)))
        of, batch = batch[known] * len(_SPENT) + kind[known], batch[known]
        spent = np.bincount(of, weights=(end - start)[known], minlength=self._spent_ns.size)
        self._spent_ns += spent.reshape(self._spent_ns.shape)
        pairs = pa.array(batch * _RANKS + numbers(spans, "rank")[counts][known])
        self._ranks.append(pc.unique(pairs).to_numpy())

    def ranks(self) -> Mapping[str, IntArray]:
        """Return the ranks that worked on each batch."""
        batch, rank = np.divmod(np.unique(np.concatenate(self._ranks)), _RANKS)
        ends = np.searchsorted(batch, np.arange(len(self._numbers) + 1))
        return {name: rank[ends[i] : ends[i + 1]] for name, i in self._numbers.items()}

    def spent_ns(self) -> Mapping[str, FloatArray]:
        """Return what the ranks that worked on each batch have spent together, by kind."""
        return {name: self._spent_ns[i] for name, i in self._numbers.items()}

    def _begun(self, kind: IntArray, moments: IntArray) -> FloatArray:
        """How long ago `moments` were at each edge, added up by kind over those that are past.

        That of starts less that of ends is how long the spans between them have lasted by each edge.
        """
        first = np.searchsorted(self._edges, moments, side="right")  # the first edge at which it is past
        shape = len(_SPENT), len(self._edges) + 1
        at = kind * shape[1] + first
        since = moments - self._edges[0]
        count = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape)[:, :-1]
        total = np.bincount(at, weights=since, minlength=shape[0] * shape[1]).reshape(shape)[:, :-1]
        elapsed = (self._edges - self._edges[0]).astype(np.float64)
        ago: FloatArray = np.cumsum(count, axis=1) * elapsed - np.cumsum(total, axis=1)
        return ago


def _busiest_port(
    links: Counters, edges: IntArray, resources: Resources
) -> tuple[PortId | None, Busy | None]:
    order = np.lexsort((links.time_ns, links.ports))
    ends = np.searchsorted(links.ports[order], np.arange(len(links.names) + 1))
    sent = links.sent_bytes.sum(axis=1)
    found: tuple[PortId | None, Busy | None] = (None, None)
    for number, port in enumerate(links.names):
        bps = resources.link_bps.get(port)
        mine = order[ends[number] : ends[number + 1]]
        if bps is None or not len(mine):
            continue
        wire_bits = 8 * np.interp(edges, links.time_ns[mine], sent[mine])
        busy = _share(wire_bits / resources.bytes_scale / bps * NS_PER_S, edges, 1)
        if found[1] is None or busy.mean > found[1].mean:
            found = port, busy
    return found


def _ttft_parts(rows: Sequence[RequestRow], spans: _Spans) -> TtftParts | None:
    totals = np.zeros(7)
    count = 0
    ranks, spent_ns = spans.ranks(), spans.spent_ns()
    for row in rows:
        if row.start_ns is None or row.prefill_end_ns is None or row.first_token_ns is None:
            continue
        count += 1
        worked = [batch for batch in batches_of(row) if batch in ranks]
        width = max(1, len(np.unique(np.concatenate([_NOBODY, *(ranks[batch] for batch in worked)]))))
        inside = sum((spent_ns[batch] for batch in worked), start=np.zeros(len(_SPENT))) / width
        arrived = max(row.prefill_end_ns, row.p2d_end_ns or row.prefill_end_ns)
        totals += (
            row.start_ns - row.arrival_ns,
            *inside,
            row.prefill_end_ns - row.start_ns - inside.sum(),
            arrived - row.prefill_end_ns,
            row.first_token_ns - arrived,
        )
    if not count:
        return None
    seconds = dict(zip(TtftParts.__struct_fields__, (totals / count / NS_PER_S).tolist(), strict=True))
    return TtftParts(**seconds)


def _limit(computing: Busy, occupied: Busy, port: Busy | None) -> Limit:
    if occupied.mean >= BUSY:
        return Limit.COMPUTE if 2 * computing.mean > occupied.mean else Limit.NETWORK
    if port is not None and port.mean >= BUSY:
        return Limit.NETWORK
    return Limit.NONE


# --- whether policies differ ----------------------------------------------------------------------------

ALIKE: Final = 0.01
"""Policies count as alike if the TTFT of a request differs by less than this share of the mean TTFT, on
average over the requests."""


class Alike(msgspec.Struct, frozen=True, kw_only=True):
    """Policies under which requests had about the same TTFT: by which share of the mean it differs from that
    under the first policy, on average over the requests, and for the request that differs most."""

    policies: tuple[str, ...]
    mean: float
    most: float


def alike(records: Iterable[RunRecord]) -> tuple[Alike, ...]:
    """Return the groups of two or more policies that made no difference, in the order of the first of each.

    A policy belongs to the first group whose first policy it is like. Those that completed different
    requests differ.
    """
    groups: list[tuple[Alike, dict[int, int]]] = []
    for record in records:
        ttft = {row.request: row.ttft_ns for row in counted(record.requests) if row.ttft_ns is not None}
        if not ttft:
            continue
        for i, (group, first) in enumerate(groups):
            if first.keys() != ttft.keys():
                continue
            off = np.array([abs(ttft[request] - ns) for request, ns in first.items()])
            off = off / max(1.0, float(np.mean(list(first.values()))))
            if off.mean() < ALIKE:
                wider = Alike(
                    policies=(*group.policies, record.policy),
                    mean=max(group.mean, float(off.mean())),
                    most=max(group.most, float(off.max())),
                )
                groups[i] = wider, first
                break
        else:
            groups.append((Alike(policies=(record.policy,), mean=0.0, most=0.0), ttft))
    return tuple(group for group, _ in groups if len(group.policies) > 1)

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
    computing = _share(spans.busy_ns[SpanKind.COMPUTE], edges, resources.prefill_gpus)
    occupied_ns = np.sum(list(spans.busy_ns.values()), axis=0)
    occupied = _share(occupied_ns, edges, resources.prefill_gpus)
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
    """What ranks did, added up: by kind until each edge, and by batch and kind."""

    def __init__(self, edges: IntArray) -> None:
        self.busy_ns: dict[str, FloatArray] = {kind: np.zeros(len(edges)) for kind in _SPENT}
        self.batch_ns: dict[str, dict[str, int]] = {}
        self.ranks: dict[str, set[int]] = {}
        self._edges = edges

    def take(self, spans: pa.RecordBatch) -> None:
        kind, kinds = codes(spans, "kind")
        batch, batches = codes(spans, "batch")
        rank = numbers(spans, "rank")
        start, end = numbers(spans, "start_ns"), numbers(spans, "end_ns")
        for code, name in enumerate(kinds):
            if name not in self.busy_ns:
                continue
            mine = kind == code
            self.busy_ns[name] += _begun(start[mine], self._edges) - _begun(end[mine], self._edges)
            among = mine & (batch >= 0)
            spent = np.bincount(batch[among], weights=(end - start)[among], minlength=len(batches))
            for i in np.flatnonzero(spent).tolist():
                of_batch = self.batch_ns.setdefault(batches[i], dict.fromkeys(_SPENT, 0))
                of_batch[name] += int(spent[i])
        prefill = (batch >= 0) & np.isin(kind, [i for i, name in enumerate(kinds) if name in self.busy_ns])
        width = int(rank.max(initial=0)) + 1
        for pair in pc.unique(pa.array(batch[prefill] * width + rank[prefill])).to_pylist():
            self.ranks.setdefault(batches[pair // width], set()).add(pair % width)


def _begun(moments: IntArray, edges: IntArray) -> FloatArray:
    """How long ago `moments` were at each edge, added up over those that are past.

    That of starts less that of ends is how long the spans between them have lasted by each edge.
    """
    first = np.searchsorted(edges, moments, side="right")  # the first edge at which a moment is past
    since = moments - edges[0]
    past = np.cumsum(np.bincount(first, minlength=len(edges) + 1)[: len(edges)])
    total = np.cumsum(np.bincount(first, weights=since, minlength=len(edges) + 1)[: len(edges)])
    ago: FloatArray = past * (edges - edges[0]).astype(np.float64) - total
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
    for row in rows:
        if row.start_ns is None or row.prefill_end_ns is None or row.first_token_ns is None:
            continue
        count += 1
        batches = batches_of(row)
        ranks = max(1, len(set[int]().union(*(spans.ranks.get(batch, ()) for batch in batches))))
        inside = [
            sum(spans.batch_ns[batch][kind] for batch in batches if batch in spans.batch_ns) / ranks
            for kind in _SPENT
        ]
        arrived = max(row.prefill_end_ns, row.p2d_end_ns or row.prefill_end_ns)
        totals += (
            row.start_ns - row.arrival_ns,
            *inside,
            row.prefill_end_ns - row.start_ns - sum(inside),
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

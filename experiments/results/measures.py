"""The measures of a run, from one pass over its flows and one over its spans.

A run may have more rows than fit into memory. So they are read once, in columns, and only numbers are kept:
at most two of eight bytes for a flow of a batch, one for a collective that has ended, and four for a rank
that waited for S1 in a layer. Durations are model nanoseconds. A measure without values is an empty array.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controller.flow import Stage
from experiments.results.limits import Limits, Resources, limits
from experiments.results.open_collectives import OpenCollectives
from experiments.results.requests import batches_of, counted_from_ns
from testbed import columns
from testbed.columns import by_word, codes, numbers, present
from testbed.record import FlowRow, RequestRow, RunRecord, SpanRow
from testbed.serving.decoding import BACKGROUND_PREFIX
from workers.spans import SpanKind

IntArray = npt.NDArray[np.int64]

_FLOW_COLUMNS: Final = (
    "id",
    "stage",
    "batch",
    "request",
    "coflow",
    "size_bytes",
    "deadline_ns",
    "submit_ns",
    "finish_ns",
    "promotions",
    "verified",
)
_BACKGROUND: Final = Stage.BACKGROUND.value
_SPAN_COLUMNS: Final = ("rank", "kind", "batch", "layer", "start_ns", "end_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundMeasures:
    """Background transfers: how many there were, and their bytes. `took_ns` is from submit to finish of each.

    They were on their way, one or more of them, from `first_ns` to `last_ns`.
    """

    transfers: int
    size_bytes: int
    took_ns: IntArray
    first_ns: int
    last_ns: int

    @property
    def bps(self) -> float:
        """What they carried from the first submit to the last finish, in bits/s."""
        return self.size_bytes * 8e9 / max(1, self.last_ns - self.first_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMeasures:
    """Measures of flows. Each array has an entry per flow or collective that it measures, in any order.

    - `stage_ns`: submit to finish of each flow, by stage, including waits for a lane and a permit.
    - `collective_ns`: completion time of each collective, from the *last* member's submit, when all are
      ready, to the last member's finish. So waiting for a slow member is not charged to the network.
    - `coflow_ns`: completion time of each coflow that is not part of a batch, by name, from its first
      submit to its last finish, as Varys and Aalo measure it (docs/concepts/coflows.md). The coflows of a
      batch are the stages of its layers, which have measures of their own.
    - `p2d_slack_ns`: deadline minus finish of each S3 flow with a deadline. It is negative for a late flow.
    - `promotions`: level changes upward, over all flows.
    - `background`: background transfers, None if there are none. They count in no other measure.
    - `checked`, `failed`: flows whose payload was compared with what was sent, and those that differed.

    With a warm-up, the flows of its requests and all flows submitted before the first other request arrived
    count only in `checked` and `failed`. A collective does not count if its last member was ready before
    that arrival.
    """

    background: BackgroundMeasures | None
    stage_ns: Mapping[Stage, IntArray]
    collective_ns: IntArray
    coflow_ns: Mapping[str, int]
    p2d_slack_ns: IntArray
    promotions: int
    checked: int
    failed: int

    @property
    def earliness_ns(self) -> IntArray:
        """How long before its deadline each S3 flow finished: `max(0, deadline - finish)`.

        MFS v1 (section 2) wants no S3 flow to finish needlessly early, because bandwidth for a flow that
        can wait is taken from flows that cannot.
        """
        return np.maximum(self.p2d_slack_ns, 0)

    @property
    def lateness_ns(self) -> IntArray:
        """How long after its deadline each S3 flow finished: `max(0, finish - deadline)`."""
        return np.maximum(-self.p2d_slack_ns, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedS1:
    """S1 time that compute did not hide. Both arrays have an entry per batch and layer that waits for S1.

    `wait_ns` is the longest wait of any rank, because the collective after the compute makes all ranks wait
    for the last one.
    """

    wait_ns: IntArray
    layer: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """`limits` is None without requests, or if the resources of the run are not known."""

    flows: FlowMeasures
    exposed_s1: ExposedS1
    limits: Limits | None = None


def measure(record: RunRecord, resources: Resources | None = None) -> Measures:
    """Return the measures of `record`. Its flows are read once, its spans at most twice."""
    units = units_of_batches(record.requests)
    warmup = WarmUp.of(record.requests)
    return Measures(
        flows=flow_measures(
            record.flows, units, warmup, serving=bool(record.requests), at_once=record.batches_at_once
        ),
        exposed_s1=exposed_s1(record.spans, warmup),
        limits=None if resources is None else limits(record, resources),
    )


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The part of a run that does not count: what began before `until_ns`, and the flows of `requests`."""

    until_ns: int = 0
    requests: frozenset[int] = frozenset()

    @classmethod
    def of(cls, requests: Sequence[RequestRow]) -> "WarmUp":
        until_ns = counted_from_ns(requests)
        if until_ns is None:
            return cls()
        return cls(until_ns, frozenset(row.request for row in requests if row.warmup))


NO_WARM_UP = WarmUp()


def units_of_batches(requests: Iterable[RequestRow]) -> dict[str, str]:
    """Return the unit of each batch."""
    return {batch: row.unit for row in requests if row.unit is not None for batch in batches_of(row)}


def flow_measures(
    flows: Iterable[FlowRow],
    units: Mapping[str, str],
    warmup: WarmUp = NO_WARM_UP,
    *,
    serving: bool = True,
    at_once: int = 1,
) -> FlowMeasures:
    """Measure `flows`; in a `serving` run, without those of background decoding, and background apart.

    `units` has the unit of each batch. A unit works on at most `at_once` batches at a time. `RunRecord`
    says which order the flows must have.
    """
    stages: dict[Stage, list[IntArray]] = {stage: [] for stage in Stage}
    apart: list[tuple[IntArray, IntArray, IntArray]] = []
    collectives = OpenCollectives(units, at_once, warmup.until_ns)
    slack: list[IntArray] = []
    coflows: dict[str, tuple[int, int]] = {}
    promotions = checked = failed = 0
    left_out = np.array(sorted(warmup.requests), dtype=np.int64)
    for batch in columns.batches_of(flows, _FLOW_COLUMNS):
        verified = present(batch, "verified")
        checked += int(np.count_nonzero(verified))
        failed += int(np.count_nonzero(verified & (numbers(batch, "verified", absent=0) == 0)))
        if serving:
            decoding = by_word(batch, "id", partial(pc.starts_with, pattern=BACKGROUND_PREFIX))
            if decoding.any():
                batch = batch.filter(pa.array(~decoding))
            stage_of, names = codes(batch, "stage")
            beside = stage_of == (names.index(_BACKGROUND) if _BACKGROUND in names else -1)
            size, submit, finish = (numbers(batch, name) for name in ("size_bytes", "submit_ns", "finish_ns"))
            apart.append((size[beside], submit[beside], finish[beside]))
            if beside.any():
                batch = batch.filter(pa.array(~beside))
        submit, finish = numbers(batch, "submit_ns"), numbers(batch, "finish_ns")
        counts = submit >= warmup.until_ns
        counts &= ~(np.isin(numbers(batch, "request", absent=-1), left_out) & present(batch, "request"))
        promotions += int(numbers(batch, "promotions")[counts].sum())
        stage_of, names = codes(batch, "stage")
        for code, stage in enumerate(map(Stage, names)):
            mine = stage_of == code
            stages[stage].append((finish - submit)[counts & mine])
            if stage is Stage.COLLECTIVE:
                collectives.take(batch.filter(pa.array(mine)))
            elif stage is Stage.P2D:
                mine &= counts & present(batch, "deadline_ns")
                slack.append((numbers(batch, "deadline_ns", absent=0) - finish)[mine])
        for name, first, last in _coflows(batch):
            _merge(coflows, name, first, last)
    return FlowMeasures(
        background=_background(apart),
        stage_ns={stage: _joined(times) for stage, times in stages.items()},
        collective_ns=collectives.took_ns(),
        coflow_ns={name: last - first for name, (first, last) in coflows.items()},
        p2d_slack_ns=_joined(slack),
        promotions=promotions,
        checked=checked,
        failed=failed,
    )


def _background(apart: Sequence[tuple[IntArray, IntArray, IntArray]]) -> BackgroundMeasures | None:
    sizes, submits, finishes = (_joined([block[i] for block in apart]) for i in range(3))
    if not len(sizes):
        return None
    return BackgroundMeasures(
        transfers=len(sizes),
        size_bytes=int(sizes.sum()),
        took_ns=finishes - submits,
        first_ns=int(submits.min()),
        last_ns=int(finishes.max()),
    )


def _coflows(flows: pa.RecordBatch) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the first submit and the last finish of coflows outside batches, in order of flows."""
    outside = present(flows, "coflow") & ~present(flows, "batch")
    if not outside.any():
        return
    flows = flows.filter(pa.array(outside))
    coflow, names = codes(flows, "coflow")
    submit, finish = numbers(flows, "submit_ns"), numbers(flows, "finish_ns")
    _, first, group = np.unique(coflow, return_index=True, return_inverse=True)
    start, end = submit[first], finish[first]
    np.minimum.at(start, group, submit)
    np.maximum.at(end, group, finish)
    for i in np.argsort(first).tolist():
        yield names[coflow[first[i]]], int(start[i]), int(end[i])


def _merge(coflows: dict[str, tuple[int, int]], name: str, first: int, last: int) -> None:
    known = coflows.get(name)
    coflows[name] = (first, last) if known is None else (min(known[0], first), max(known[1], last))


def exposed_s1(spans: Iterable[SpanRow], warmup: WarmUp = NO_WARM_UP) -> ExposedS1:
    """Measure the S1 waits among `spans` that began after the warm-up."""
    numbered: dict[str, int] = {}
    parts = [np.empty((4, 0), dtype=np.int64)]
    for part in columns.batches_of(spans, _SPAN_COLUMNS):
        kind, kinds = codes(part, "kind")
        is_wait = np.array([name == SpanKind.S1_WAIT for name in kinds], dtype=np.bool_)[kind]
        counts = is_wait & present(part, "batch") & present(part, "layer")
        counts &= numbers(part, "start_ns") >= warmup.until_ns
        waits = part.filter(pa.array(counts))
        batch, batches = codes(waits, "batch")
        number = np.array([numbered.setdefault(name, len(numbered)) for name in batches], dtype=np.int64)
        took_ns = numbers(waits, "end_ns") - numbers(waits, "start_ns")
        parts.append(np.stack((number[batch], numbers(waits, "layer"), numbers(waits, "rank"), took_ns)))
    batch, layer, rank, took_ns = np.concatenate(parts, axis=1)
    order = np.lexsort((rank, layer, batch))
    batch, layer, rank, took_ns = batch[order], layer[order], rank[order], took_ns[order]
    starts = _starts(batch, layer, rank)
    of_rank, batch, layer = np.add.reduceat(took_ns, starts), batch[starts], layer[starts]
    starts = _starts(batch, layer)
    return ExposedS1(wait_ns=np.maximum.reduceat(of_rank, starts), layer=layer[starts])


def _starts(*keys: IntArray) -> IntArray:
    """Return where a key differs from the one before, and the first row."""
    changes = np.logical_or.reduce([np.diff(key, prepend=-1) != 0 for key in keys])
    return np.flatnonzero(changes)


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])

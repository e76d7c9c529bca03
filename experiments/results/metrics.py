"""Statistics, and what is worked out from a few rows of a run. Pure: rows in, numbers out.

What takes all rows of a run is in `measures`. Durations are model nanoseconds unless the name
says otherwise. A measure that nothing contributes to is `None`, never zero and never NaN: "no request
ended" and "requests took no time" differ.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from controller.flow import Level, PortId
from testbed.record import DecisionRow, FlowRow, LinkSample, RequestRow, SpanRow

COMPLETED = "completed"
PRUNED = "pruned"
FAILED = "failed"

Numbers = Sequence[float] | npt.NDArray[np.float64]


class SpanKind(enum.StrEnum):
    """The values of `SpanRow.kind`, as the workers report them."""

    S1_WAIT = "s1_wait"
    COMPUTE = "compute"
    COLLECTIVE = "collective"
    PAUSED = "paused"
    DECODE_STEP = "decode"


def percentile(values: Numbers, q: float) -> float | None:
    """The q-th percentile (0..100) by linear interpolation between order statistics.

    With n values in order, rank `(n - 1) * q / 100` is taken and interpolated (Hyndman and Fan,
    1996, type 7; numpy's default). `None` without values.
    """
    if len(values) == 0:
        return None
    return float(np.percentile(np.asarray(values, dtype=np.float64), q, method="linear"))


def mean(values: Numbers) -> float | None:
    """The arithmetic mean, or `None` without values."""
    if len(values) == 0:
        return None
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def meets_slo(row: RequestRow) -> bool:
    """Whether the first token of a completed request came within its budget (on the dot counts)."""
    return row.status == COMPLETED and row.ttft_ns is not None and row.ttft_ns <= row.slo_ns


def slo_attainment(rows: Sequence[RequestRow]) -> float | None:
    """The share of *arrived* requests that meet their SLO: a pruned or failed request misses it."""
    if not rows:
        return None
    return sum(meets_slo(row) for row in rows) / len(rows)


def measured(rows: Iterable[RequestRow]) -> list[RequestRow]:
    """The requests that count: all but those of the warm-up."""
    return [row for row in rows if not row.warmup]


def counted_from_ns(rows: Iterable[RequestRow]) -> int | None:
    """When the first request arrives that counts, if there was a warm-up before it; else `None`."""
    warm, first = False, None
    for row in rows:
        if row.warmup:
            warm = True
        elif first is None or row.arrival_ns < first:
            first = row.arrival_ns
    return first if warm else None


def fates(rows: Iterable[RequestRow]) -> dict[str, int]:
    """How many requests arrived, warm-up and all, and what became of them: the others add up to `arrived`.

    Raises `ValueError` for a status that is none of the three.
    """
    found = {COMPLETED: 0, PRUNED: 0, FAILED: 0}
    for row in rows:
        if row.status not in found:
            raise ValueError(f"request {row.request} ended as {row.status!r}: none of {', '.join(found)}")
        found[row.status] += 1
    return {"arrived": sum(found.values()), **found}


class LevelPeriod(msgspec.Struct, frozen=True):
    """A flow was at `level` from `start_ns` to `end_ns`, put there because of `reason`."""

    start_ns: int
    end_ns: int
    level: Level
    reason: str


def level_periods(flow: FlowRow, decisions: Sequence[DecisionRow]) -> list[LevelPeriod]:
    """The levels `flow` was sent at, in order, from its permit to its finish.

    `decisions` are that flow's, sorted by time. A change before the permit or after the finish
    leaves no period of its own; a flow without decisions was at `level_first` all the time.
    """
    changes = [(d.time_ns, d.level_to, d.reason) for d in decisions]
    if not changes:
        changes = [(flow.submit_ns, flow.level_first, "")]
    ends = [time for time, _, _ in changes[1:]] + [flow.finish_ns]
    periods: list[LevelPeriod] = []
    for (time, level, reason), end in zip(changes, ends, strict=True):
        start, stop = max(time, flow.permit_ns), min(end, flow.finish_ns)
        if not periods:
            start = flow.permit_ns
        if stop > start:
            periods.append(LevelPeriod(start, stop, level, reason))
    return periods


def decisions_by_flow(decisions: Iterable[DecisionRow]) -> dict[str, list[DecisionRow]]:
    """Each flow's decisions, in time order."""
    grouped: dict[str, list[DecisionRow]] = defaultdict(list)
    for decision in sorted(decisions, key=lambda d: d.time_ns):
        grouped[decision.flow].append(decision)
    return grouped


class LinkRate(msgspec.Struct, frozen=True):
    """Mean rate of one port between samples: `time_ns` is (n + 1,), `bps` is (n, 8), by level."""

    time_ns: npt.NDArray[np.int64]
    bps: npt.NDArray[np.float64]


def link_rates(samples: Iterable[LinkSample], bytes_scale: float) -> dict[PortId, LinkRate]:
    """Rates in *model* bits/s from the ports' wire counters, framing included.

    A wire byte is `1 / bytes_scale` model bytes and sample times are already model time. Ports with
    fewer than two samples have no rate and are left out.
    """
    by_port: dict[PortId, list[LinkSample]] = defaultdict(list)
    for sample in samples:
        by_port[sample.port].append(sample)
    rates = {}
    for port, rows in by_port.items():
        times = np.array([row.time_ns for row in rows], dtype=np.int64)
        order = np.argsort(times, kind="stable")
        times = times[order]
        keep = np.concatenate(([True], np.diff(times) > 0))
        times = times[keep]
        if len(times) < 2:
            continue
        sent = np.array([row.sent_bytes for row in rows], dtype=np.float64)[order][keep]
        seconds = np.diff(times)[:, None] / 1e9
        rates[port] = LinkRate(times, np.diff(sent, axis=0) * 8 / bytes_scale / seconds)
    return rates


class TimeSpent(msgspec.Struct, frozen=True, kw_only=True):
    """Where the TTFT of one request went. The parts add up to it.

    `other_ns` is prefill time in none of the spans (hand-over between steps, other work of a rank, the time
    between two parts of a prompt, and that in which its batch had paused).
    """

    queue_ns: int
    s1_wait_ns: int
    compute_ns: int
    collective_ns: int
    other_ns: int
    p2d_tail_ns: int
    decode_ns: int


def time_spent(row: RequestRow, spans: Mapping[str, Sequence[SpanRow]]) -> TimeSpent | None:
    """Split the TTFT of a completed request; `None` when it has no first token.

    `spans` are all spans by batch, those of `batches_of` at the least. Inside prefill, each kind is the mean
    over the ranks that worked on the batch. The P2D tail is the time S3 needed after prefill had ended,
    i.e. what compute could not hide; the decode step follows it.
    """
    if row.start_ns is None or row.prefill_end_ns is None or row.first_token_ns is None:
        return None
    prefill = row.prefill_end_ns - row.start_ns
    mine = [
        span
        for batch in batches_of(row)
        for span in spans.get(batch, ())
        if span.kind != SpanKind.DECODE_STEP
        and span.start_ns < row.prefill_end_ns
        and span.end_ns > row.start_ns
    ]
    ranks = max(1, len({span.rank for span in mine}))
    totals: dict[str, int] = defaultdict(int)
    for span in mine:
        totals[span.kind] += min(span.end_ns, row.prefill_end_ns) - max(span.start_ns, row.start_ns)
    wait, compute, collective = (
        totals[kind] // ranks for kind in (SpanKind.S1_WAIT, SpanKind.COMPUTE, SpanKind.COLLECTIVE)
    )
    arrived = max(row.prefill_end_ns, row.p2d_end_ns or row.prefill_end_ns)
    return TimeSpent(
        queue_ns=row.start_ns - row.arrival_ns,
        s1_wait_ns=wait,
        compute_ns=compute,
        collective_ns=collective,
        other_ns=prefill - wait - compute - collective,
        p2d_tail_ns=arrived - row.prefill_end_ns,
        decode_ns=row.first_token_ns - arrived,
    )


def batches_of(row: RequestRow) -> tuple[str, ...]:
    """The batches with a part of the prompt, in their order."""
    return row.earlier_batches if row.batch is None else (*row.earlier_batches, row.batch)


def spans_by_batch(spans: Iterable[SpanRow]) -> dict[str, list[SpanRow]]:
    """The spans that belong to a batch, by batch."""
    grouped: dict[str, list[SpanRow]] = defaultdict(list)
    for span in spans:
        if span.batch is not None:
            grouped[span.batch].append(span)
    return grouped

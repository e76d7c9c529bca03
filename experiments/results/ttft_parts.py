"""The parts of the TTFT of a request. Durations are model nanoseconds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from experiments.results.requests import batches_of
from testbed.record import RequestRow, SpanRow
from workers.spans import SpanKind


class TimeSpent(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the TTFT of one request, which add up to it.

    `other_ns` is prefill time outside the spans of S1 waits, compute and collectives: hand-over between
    steps, other work of a rank, time between two parts of a prompt, and pauses of its batch.
    """

    queue_ns: int
    s1_wait_ns: int
    compute_ns: int
    collective_ns: int
    other_ns: int
    p2d_tail_ns: int
    decode_ns: int


def time_spent(row: RequestRow, spans: Mapping[str, Sequence[SpanRow]]) -> TimeSpent | None:
    """Split the TTFT of a request into its parts; `None` if it has no first token.

    `spans` has spans by batch, at least those of `batches_of(row)`. Inside prefill, each part is the mean
    over the ranks that worked on these batches. The S3 tail is the time that S3 took after the end of
    prefill, which compute could not hide. The decode step follows it.
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

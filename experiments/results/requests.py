"""The outcome of requests: how they ended, which of them count, and how many met their SLO."""

from collections.abc import Iterable, Sequence

from controller.units import NS_PER_S
from testbed.record import RequestRow, RequestStatus


def meets_slo(row: RequestRow) -> bool:
    """Return whether a request completed with a TTFT of at most its SLO."""
    return row.status is RequestStatus.COMPLETED and row.ttft_ns is not None and row.ttft_ns <= row.slo_ns


def end_of(row: RequestRow) -> int:
    """Return when the last thing that is known of a request happened: its first token, if it has one."""
    marks = (row.first_token_ns, row.p2d_end_ns, row.prefill_end_ns, row.start_ns, row.arrival_ns)
    return max(time for time in marks if time is not None)


def slo_attainment(rows: Sequence[RequestRow]) -> float | None:
    """Return the share of *arrived* requests that meet their SLO; None without requests.

    A request without a first token misses its SLO.
    """
    if not rows:
        return None
    return sum(meets_slo(row) for row in rows) / len(rows)


def counted(rows: Iterable[RequestRow]) -> list[RequestRow]:
    """Return the requests that count: all but those of the warm-up."""
    return [row for row in rows if not row.warmup]


def counted_from_ns(rows: Iterable[RequestRow]) -> int | None:
    """Return when the first request that counts arrives; None without a warm-up."""
    warm, first = False, None
    for row in rows:
        if row.warmup:
            warm = True
        elif first is None or row.arrival_ns < first:
            first = row.arrival_ns
    return first if warm else None


def arrival_rps(rows: Sequence[RequestRow]) -> float | None:
    """Return the rate at which requests arrived, from the first to the last; None for a single moment."""
    arrivals = [row.arrival_ns for row in rows]
    took_ns = max(arrivals) - min(arrivals) if arrivals else 0
    return (len(arrivals) - 1) * NS_PER_S / took_ns if took_ns else None


def fates(rows: Iterable[RequestRow]) -> dict[str, int]:
    """Count the requests that arrived, including the warm-up, and their outcomes.

    `completed` and `failed` add up to `arrived`. Of these, `pruned` were pruned at least once, and
    `ended_pruned` were not freed again.
    """
    found = dict.fromkeys(("arrived", *RequestStatus, "pruned", "ended_pruned"), 0)
    for row in rows:
        found["arrived"] += 1
        found[row.status] += 1
        found["pruned"] += row.times_pruned > 0
        found["ended_pruned"] += row.ended_pruned
    return {str(name): count for name, count in found.items()}


def batches_of(row: RequestRow) -> tuple[str, ...]:
    """Return the batches that computed a part of the prompt, in order."""
    return row.earlier_batches if row.batch is None else (*row.earlier_batches, row.batch)

"""Words that the stories of flows and of requests share. All times are in model milliseconds."""

from collections.abc import Sequence

from experiments.results.requests import meets_slo
from testbed.record import FlowRow, RequestRow


def moment(time_ns: int) -> str:
    """Return a time of the run to the microsecond: "1,234.500 ms"."""
    return f"{time_ns / 1e6:,.3f} ms"


def lasting(duration_ns: int) -> str:
    """Return a duration, coarser the longer it is: "0.042 ms", "4.21 ms", "214.3 ms"."""
    milliseconds = duration_ns / 1e6
    if duration_ns == 0:
        return "0 ms"
    if abs(duration_ns) < 500:
        return "less than 0.001 ms"
    decimals = 3 if abs(milliseconds) < 1 else 2 if abs(milliseconds) < 100 else 1
    return f"{milliseconds:,.{decimals}f} ms"


def size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes} bytes"


def against_deadline(flow: FlowRow) -> str:
    """Return how long before or after its deadline the flow finished; empty if it has none."""
    if flow.deadline_ns is None:
        return ""
    spare_ns = flow.deadline_ns - flow.finish_ns
    if spare_ns == 0:
        return " and exactly at its deadline"
    return f" and {lasting(abs(spare_ns))} {'before' if spare_ns > 0 else 'after'} its deadline"


def outcome(request: RequestRow) -> str:
    """Return a sentence on whether the request met its SLO."""
    name = f"Request {request.request}"
    if request.ttft_ns is None:
        why = f" ({request.lost_to})" if request.lost_to else ""
        return f"{name} missed its SLO: it failed and has no first token{why}."
    allowed = f"its TTFT was {lasting(request.ttft_ns)}, its SLO {lasting(request.slo_ns)}"
    if meets_slo(request):
        return f"{name} met its SLO: {allowed}."
    return f"{name} missed its SLO by {lasting(request.ttft_ns - request.slo_ns)}: {allowed}."


def number_of(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def enumerated(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"

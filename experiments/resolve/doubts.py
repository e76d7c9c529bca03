"""What makes the results of a run say less than they seem to, as far as its work tells before it runs."""

import statistics
from collections.abc import Iterator, Sequence

from controller.units import NS_PER_S
from experiments.results.readable_numbers import duration, share
from testbed.job import Job, MicroFlow, Request

_FEW = 20
"""Below this, a request is more than 5 % of the attainment."""

_MOST_NAMED = 3


def doubts(job: Job) -> tuple[str, ...]:
    """Return a line for each: deadlines that cannot be met, a single burst, very few requests."""
    measured = [request for request in job.requests if not request.warmup]
    found = [*_hopeless_flows(job)]
    if measured:
        found += [*_hopeless_requests(measured), *_one_burst(job.requests), *_few(measured)]
    return tuple(found)


def _hopeless_requests(measured: Sequence[Request]) -> Iterator[str]:
    hopeless = sum(request.slo_ns < request.unloaded_ns for request in measured)
    if hopeless:
        yield (
            f"{hopeless} of {len(measured)} requests are promised less than their unloaded TTFT "
            "(slo.multiple, slo.absolute_s, slo.classes): hardly any policy can meet their SLO"
        )


def _one_burst(requests: Sequence[Request]) -> Iterator[str]:
    span_ns = max(r.arrival_ns for r in requests) - min(r.arrival_ns for r in requests)
    alone_ns = statistics.median(r.unloaded_ns for r in requests)
    if len(requests) > 1 and span_ns < alone_ns:
        yield (
            f"all {len(requests)} requests arrive within {duration(span_ns / NS_PER_S)}, and one alone takes "
            f"{duration(alone_ns / NS_PER_S)}: this is a single burst, and its rate or load says little"
        )


def _few(measured: Sequence[Request]) -> Iterator[str]:
    if len(measured) < _FEW:
        step = share(1 / len(measured))
        yield (
            f"few requests are measured, {len(measured)}: the SLO attainment moves in steps of {step}, and "
            "p99 is close to the slowest request (workload.requests)"
        )


def _hopeless_flows(job: Job) -> Iterator[str]:
    late = [flow.transfer.id for flow in job.flows if _is_hopeless(flow, job)]
    if late:
        others = len(late) - _MOST_NAMED
        more = f" and {others} more" if others > 0 else ""
        yield f"late even alone on idle links: {', '.join(late[:_MOST_NAMED])}{more} (deadline_s)"


def _is_hopeless(flow: MicroFlow, job: Job) -> bool:
    transfer = flow.transfer
    if transfer.deadline_ns is None:
        return False
    path = job.topology.paths(job.placement.node_of(transfer.src), job.placement.node_of(transfer.dst))[0]
    slowest_bps = min(job.topology.link(port).bps for port in path)
    return flow.start_ns + transfer.size_bytes * 8 * NS_PER_S / slowest_bps > transfer.deadline_ns

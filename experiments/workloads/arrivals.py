"""When requests arrive: in a trace's own rhythm, stretched, or at random.

All functions keep the order of the requests and let the first arrive at 0.
"""

import random

import msgspec

from experiments.errors import UserError
from experiments.workloads.workload import NS_PER_S, Workload
from testbed.job import Request


def stretched(workload: Workload, factor: float) -> Workload:
    """The workload's own arrivals, `factor` times as far apart."""
    requests = tuple(
        msgspec.structs.replace(request, arrival_ns=round(request.arrival_ns * factor))
        for request in workload.requests
    )
    return msgspec.structs.replace(workload, requests=requests)


def stretch_to(workload: Workload, rate_rps: float) -> float:
    """The factor for `stretched` that makes `rate_rps` the mean rate of the workload's arrivals.

    n arrivals span n - 1 gaps, so the mean rate is (n - 1) / (last - first). Raises `UserError` when
    all arrive at once: no factor changes that.
    """
    first, last = workload.requests[0].arrival_ns, workload.requests[-1].arrival_ns
    if len(workload.requests) == 1:
        return 1.0
    if last == first:
        raise UserError(
            f"workload: all {len(workload.requests)} requests of the trace arrive at one instant, "
            "so they cannot be stretched to a rate: take more of them, or arrivals: poisson"
        )
    return (len(workload.requests) - 1) / rate_rps * NS_PER_S / (last - first)


def poisson(workload: Workload, rate_rps: float, seed: int) -> Workload:
    """Arrivals of a Poisson process of `rate_rps` requests per second, drawn from `seed`.

    Where the workload has bursts, the bursts are the process: their members arrive together, and
    the rate of bursts is such that the rate of requests is `rate_rps` on average.
    """
    draw = random.Random(f"{seed}:arrivals")
    bursts = workload.bursts or tuple(range(len(workload.requests)))
    bursts_per_s = rate_rps * len(set(bursts)) / len(bursts)
    time_s = 0.0
    requests: list[Request] = []
    for i, request in enumerate(workload.requests):
        if i > 0 and bursts[i] != bursts[i - 1]:
            time_s += draw.expovariate(bursts_per_s)
        requests.append(msgspec.structs.replace(request, arrival_ns=round(time_s * NS_PER_S)))
    return msgspec.structs.replace(workload, requests=tuple(requests))

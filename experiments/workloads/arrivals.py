"""Arrival times of requests: those of a trace, stretched, or random ones, with or without bursts.

The order of the requests never changes, and the first one arrives at 0.
"""

import math
import random
from collections.abc import Callable

import msgspec

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.workloads.workload import Workload
from testbed.job import Request


def stretched(workload: Workload, factor: float) -> Workload:
    """Return the workload with its arrivals `factor` times as far apart, and pauses as much longer."""
    requests = tuple(
        msgspec.structs.replace(
            request,
            arrival_ns=round(request.arrival_ns * factor),
            pause_ns=round(request.pause_ns * factor),
        )
        for request in workload.requests
    )
    return msgspec.structs.replace(workload, requests=requests)


def own_rate_rps(workload: Workload) -> float | None:
    """Return the mean rate of requests as they are, in requests/s; None if all arrive at one instant.

    n arrivals have n - 1 gaps, so the mean rate is (n - 1) / (last - first). When a later turn of a session
    arrives depends on the run. So this counts the arrivals that wait for no other, times the requests that
    each of them stands for.
    """
    times = [request.arrival_ns for request in workload.requests if request.after is None]
    if len(times) == 1 or times[-1] == times[0]:
        return None
    return (len(times) - 1) * NS_PER_S / (times[-1] - times[0]) / instants_per_request(workload)


def stretch_to(workload: Workload, rate_rps: float) -> float:
    """Return the factor for `stretched` that makes `rate_rps` the mean rate of the workload's arrivals.

    Raises `UserError` if several requests all arrive at the same time, because no factor changes that.
    """
    own = own_rate_rps(workload)
    if own is not None:
        return own / rate_rps
    instants = sum(request.after is None for request in workload.requests)
    if instants == 1:
        return 1.0
    raise UserError(
        f"workload: all {instants} requests of the trace arrive at one instant, so neither a rate nor "
        "workload.time_scale changes that: take more of them, or workload.arrivals: poisson"
    )


class BurstyProcess(msgspec.Struct, frozen=True, kw_only=True):
    """An interrupted Poisson process: bursts, in which arrivals are a Poisson process, and silences.

    Bursts and silences have exponential lengths. Bursts last `burst_s` seconds on average, and `busy` is
    the share of time in bursts. The process is a Markov-modulated Poisson process with two states, one of
    rate 0. It is also a renewal process with hyperexponential gaps (Kuczura, "The interrupted Poisson
    process as an overflow process", Bell System Technical Journal 52, 1973).
    """

    rate_rps: float
    burst_s: float
    busy: float


def bursty_process(rate_rps: float, dispersion: float, burst_s: float | None = None) -> BurstyProcess:
    """Return the process of this rate whose index of dispersion tends to `dispersion` in long windows.

    With a busy share p, the index is 1 + 2 rate burst_s (1 - p)**2 / p, which is solved for p (Fischer and
    Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18, 1993,
    with one rate 0). Without `burst_s`, half of the time is in bursts. `dispersion` must be above 1.
    """
    if burst_s is None:
        return BurstyProcess(rate_rps=rate_rps, burst_s=(dispersion - 1) / rate_rps, busy=0.5)
    c = (dispersion - 1) / (2 * rate_rps * burst_s)
    # The smaller root of p**2 - (2 + c) p + 1 = 0, as 1 over the larger one, so that no digits cancel.
    busy = 2 / (2 + c + math.sqrt(c * (4 + c)))
    return BurstyProcess(rate_rps=rate_rps, burst_s=burst_s, busy=busy)


def poisson(workload: Workload, rate_rps: float, seed: int) -> Workload:
    """Return the workload with arrivals of a Poisson process of `rate_rps` requests/s, drawn from `seed`.

    If the workload has bursts, the members of a burst arrive together, and the bursts are the events of the
    process. Their rate is such that the mean rate of requests is `rate_rps`.
    """
    draw = random.Random(f"{seed}:arrivals")
    instants_per_s = rate_rps * instants_per_request(workload)
    return _placed(workload, lambda: draw.expovariate(instants_per_s))


def bursty(workload: Workload, process: BurstyProcess, seed: int) -> Workload:
    """Return the workload with arrivals of `process`, drawn from `seed`. The first one begins a burst.

    If the workload has bursts of its own, the members of such a burst arrive together, and these bursts are
    the events of `process`. Its rate is then `instants_per_request` times the rate of requests.
    """
    draw = random.Random(f"{seed}:arrivals")
    in_burst_rps = process.rate_rps / process.busy
    silence_s = process.burst_s * (1 - process.busy) / process.busy

    def gap_s() -> float:
        # Both times are exponential and so have no memory: they can be drawn anew after each silence.
        waited = 0.0
        while True:
            next_s, burst_ends_s = draw.expovariate(in_burst_rps), draw.expovariate(1 / process.burst_s)
            if next_s <= burst_ends_s:
                return waited + next_s
            waited += burst_ends_s + draw.expovariate(1 / silence_s)

    return _placed(workload, gap_s)


def instants_per_request(workload: Workload) -> float:
    """Return the number of distinct arrival times per request that wait for nothing.

    It is below 1 if requests arrive together, and if there are sessions, whose later turns wait.
    """
    bursts = workload.bursts
    if bursts:
        return len(set(bursts)) / len(bursts)
    return sum(request.after is None for request in workload.requests) / len(workload.requests)


def _placed(workload: Workload, gap_s: Callable[[], float]) -> Workload:
    """Return the workload with gaps drawn by `gap_s`, in seconds, between its distinct arrival times.

    A later turn of a session keeps its pause, and arrives at the earliest as if answers took no time.
    """
    bursts = workload.bursts or tuple(range(len(workload.requests)))
    time_s = 0.0
    arrival_ns: dict[int, int] = {}
    requests: list[Request] = []
    for i, request in enumerate(workload.requests):
        if request.after is None:
            if i > 0 and bursts[i] != bursts[i - 1]:
                time_s += gap_s()
            arrival_ns[request.id] = round(time_s * NS_PER_S)
        else:
            arrival_ns[request.id] = arrival_ns[request.after] + request.pause_ns
        requests.append(msgspec.structs.replace(request, arrival_ns=arrival_ns[request.id]))
    return msgspec.structs.replace(workload, requests=tuple(requests))

"""From the section `workload` of a scenario to requests with their arrivals."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.scenario.workload import TRACES, Arrivals, WorkloadSection
from experiments.trace_formats.values import MAX_S
from experiments.workloads import arrivals, from_trace
from experiments.workloads.synthetic import GENERATORS
from experiments.workloads.workload import Workload
from testbed.job import Request


class Estimate(Protocol):
    """How many requests/s the cluster can sustain, and in words what sets that."""

    @property
    def rps(self) -> float: ...

    @property
    def words(self) -> str: ...


CapacityOf = Callable[[tuple[Request, ...]], Estimate]
"""Estimates the capacity of the cluster for requests like these."""


def make_workload(section: WorkloadSection, *, seed: int, capacity: CapacityOf) -> Workload:
    """Return the requests that `section` asks for, in order of arrival.

    Raises `UserError` for a malformed trace, and for one that cannot be stretched to the rate.
    """
    workload = _prompts(section, seed)
    rate_rps, wanted = _rate(section, workload, capacity)
    if section.arrives_at_random:
        assert rate_rps is not None  # a valid section has a rate or a load for this
        if section.arrivals is Arrivals.BURSTY:
            placed, note = _bursty(section, workload, rate_rps, seed)
            notes = [f"{note} at {wanted}"]
        else:
            placed = arrivals.poisson(workload, rate_rps, seed)
            notes = [f"arrivals are Poisson at {wanted}"]
    else:
        notes = []
        if rate_rps is not None:
            factor = arrivals.stretch_to(workload, rate_rps)
            own = arrivals.own_rate_rps(workload)
            kept = "" if own is None else f"; workload.time_scale: 1 keeps its own {own:.3g} requests/s"
            notes.append(f"the trace's time is stretched by {factor:.3g} to {wanted}{kept}")
        else:
            factor = section.time_scale or 1.0
            if factor != 1.0:
                notes.append(f"the trace's time is stretched by {factor:.3g}")
        placed = arrivals.stretched(workload, factor)
    if rate_rps is not None and any(request.after is not None for request in workload.requests):
        first = rate_rps * arrivals.instants_per_request(workload)
        notes.append(
            f"requests that wait for no answer arrive at {first:.3g}/s of {rate_rps:.3g}/s; turns follow"
        )
    if section.warmup:
        warm = f"the first {section.warmup} of {section.requests} requests warm up and count in no measure"
        notes.append(warm)
    latest_ns = max((request.arrival_ns for request in placed.requests), default=0)
    if latest_ns > MAX_S * NS_PER_S:
        raise UserError(
            f"workload: the last request would arrive after {latest_ns / NS_PER_S:.3g} s; allowed are"
            f" {MAX_S:.3g} s: use a higher rate or load, or a smaller time_scale"
        )
    return msgspec.structs.replace(
        placed, requests=_with_warmup(placed.requests, section.warmup), notes=(*placed.notes, *notes)
    )


def _bursty(section: WorkloadSection, workload: Workload, rate_rps: float, seed: int) -> tuple[Workload, str]:
    """Return the workload with bursty arrivals, and a note on them."""
    assert section.dispersion is not None  # a valid section has one for this
    per_request = arrivals.instants_per_request(workload)
    process = arrivals.bursty_process(rate_rps * per_request, section.dispersion, section.burst_s)
    what = "arrivals are" if per_request == 1 else "the bursts of requests that arrive together are"
    note = (
        f"{what} an interrupted Poisson process: dispersion {section.dispersion:g}, "
        f"bursts of {process.burst_s:.3g} s, {process.busy:.1%} of the time,"
    )
    return arrivals.bursty(workload, process, seed), note


def _with_warmup(requests: tuple[Request, ...], warmup: int) -> tuple[Request, ...]:
    """Return the same requests, with the first `warmup` marked as warm-up."""
    marked = [msgspec.structs.replace(request, warmup=True) for request in requests[:warmup]]
    return (*marked, *requests[warmup:])


def _prompts(section: WorkloadSection, seed: int) -> Workload:
    if section.path is None:
        return GENERATORS[section.kind](section.requests, seed, section.slo_class)
    return from_trace.load(
        Path(section.path),
        TRACES[section.kind],
        requests=section.requests,
        skip=section.skip,
        slo_class=section.slo_class,
        class_from=section.class_from,
        spread_ticks=section.spread_ticks,
        # Random arrivals replace those of the trace, so there is nothing to spread.
        times_needed=section.arrivals is Arrivals.TRACE,
        seed=seed,
    )


def _rate(section: WorkloadSection, workload: Workload, capacity: CapacityOf) -> tuple[float | None, str]:
    """Return the mean rate that `section` asks for, in requests/s, and the same in words."""
    if section.rate is not None:
        return section.rate, f"{section.rate:.3g} requests/s"
    if section.load is None:
        return None, ""
    found = capacity(workload.requests)
    rate = section.load * found.rps
    return rate, (
        f"{rate:.3g} requests/s, {section.load:g} of an estimated capacity of {found.rps:.3g} ({found.words})"
    )

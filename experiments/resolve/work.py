"""The work of a run: requests with their SLOs, or flows."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from experiments.errors import UserError
from experiments.resolve.capacity import Capacity, estimated_capacity
from experiments.resolve.work_demand import demand
from experiments.scenario.scenario import Scenario
from experiments.scenario.workload import WorkloadKind, WorkloadSection
from experiments.workloads import coflow_benchmark
from experiments.workloads.micro import micro_flows
from experiments.workloads.source import make_workload
from testbed.job import Job, MicroFlow, Placement, Request
from testbed.serving.cache.size_and_use import cache_capacity_blocks
from testbed.serving.plans.steps import step_options
from testbed.serving.slo import DEFAULT_CLASS, SloTarget, with_slos


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Requests or flows, and notes on how they were made. `rate_rps` is what arrives if `load` sets it."""

    requests: tuple[Request, ...] = ()
    flows: tuple[MicroFlow, ...] = ()
    notes: tuple[str, ...]
    rate_rps: float | None = None


def resolve_work(scenario: Scenario, job: Job, *, most_requests: int | None = None) -> Work:
    """Make the work of `job`, which has none yet. Reads the trace, if the scenario names one.

    With `most_requests`, SLOs are worked out for that many requests, and the others left out. The capacity is
    then a rough one, for which nothing is simulated.

    Raises `UserError` for a malformed trace, naming the line, and for a prefix cache without room for a
    block of the prompts.
    """
    if scenario.workload.is_micro:
        return _flows(scenario.workload, job.placement)
    work = _requests(scenario, job, most_requests)
    _check_cache(scenario, msgspec.structs.replace(job, requests=work.requests))
    return work


def _flows(section: WorkloadSection, placement: Placement) -> Work:
    if section.kind is WorkloadKind.FLOWS:
        return Work(flows=micro_flows(section.flows, placement), notes=())
    assert section.path is not None  # a valid section of coflows has one
    trace = coflow_benchmark.load(
        Path(section.path),
        placement=placement,
        coflows=section.coflows,
        skip=section.skip,
        time_scale=section.time_scale or 1.0,
    )
    return Work(flows=trace.flows, notes=trace.notes)


def _requests(scenario: Scenario, job: Job, most: int | None) -> Work:
    known: list[Capacity] = []

    def capacity(requests: tuple[Request, ...]) -> Capacity:
        _check_cache(scenario, msgspec.structs.replace(job, requests=requests))
        if most is not None:
            found = Capacity(rps=demand(job, requests[:most]).capacity_rps, words="not simulated")
        else:
            found = estimated_capacity(job, requests)
        known.append(found)
        return found

    workload = make_workload(scenario.workload, seed=scenario.seed, capacity=capacity)
    promised = with_slos(
        workload.requests[:most],
        targets=_targets(scenario),
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        topology=job.topology,
        options=step_options(job),
        reference=scenario.slo.reference,
    )
    load = scenario.workload.load
    return Work(
        requests=tuple(promised),
        notes=workload.notes,
        rate_rps=load * known[0].rps if load is not None and known else None,
    )


def _targets(scenario: Scenario) -> Mapping[str, SloTarget]:
    slo = scenario.slo
    targets = {DEFAULT_CLASS: SloTarget(multiple=slo.multiple, absolute_s=slo.absolute_s)}
    for name, target in slo.classes.items():
        targets[name] = SloTarget(multiple=target.multiple, absolute_s=target.absolute_s)
    return targets


def _check_cache(scenario: Scenario, job: Job) -> None:
    try:
        cache_capacity_blocks(job)
    except ValueError as error:
        gib = scenario.serving.cache_gib
        key = "serving.cache_tokens" if gib is None else f"serving.cache_gib: {gib:g}"
        raise UserError(f"scenario {scenario.name}: {key}: {error}") from None

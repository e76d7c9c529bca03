"""The work of a run: requests with their SLOs, or flows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from experiments.errors import UserError
from experiments.scenario.scenario import Scenario
from experiments.scenario.workload import WorkloadKind, WorkloadSection
from experiments.workloads import coflow_benchmark
from experiments.workloads.micro import micro_flows
from experiments.workloads.source import make_workload
from testbed.job import Job, MicroFlow, Placement, Request
from testbed.serving.cache.size_and_use import cache_capacity_blocks
from testbed.serving.capacity import Demand, demand_of
from testbed.serving.plans.steps import step_options
from testbed.serving.slo import DEFAULT_CLASS, SloTarget, with_slos


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Requests or flows, and notes on how they were made."""

    requests: tuple[Request, ...] = ()
    flows: tuple[MicroFlow, ...] = ()
    notes: tuple[str, ...]


def resolve_work(scenario: Scenario, job: Job, *, most_requests: int | None = None) -> Work:
    """Make the work of `job`, which has none yet. Reads the trace, if the scenario names one.

    With `most_requests`, capacity and SLOs are worked out for that many requests, and the others left out.

    Raises `UserError` for a malformed trace, naming the line, and for a prefix cache without room for a
    block of the prompts.
    """
    if scenario.workload.is_micro:
        return _flows(scenario.workload, job.placement)
    work = _requests(scenario, job, most_requests)
    _check_cache(scenario, msgspec.structs.replace(job, requests=work.requests))
    return work


def capacity_rps(job: Job, requests: Sequence[Request]) -> float:
    """Estimate how many requests/s like these the cluster of `job` can sustain."""
    return demand(job, requests).capacity_rps


def demand(job: Job, requests: Sequence[Request]) -> Demand:
    """Estimate what the mean of these requests takes of the cluster of `job`."""
    return demand_of(
        requests,
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        topology=job.topology,
        max_batch_tokens=job.serving.max_batch_tokens,
        options=step_options(job),
    )


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
    workload = make_workload(
        scenario.workload,
        seed=scenario.seed,
        capacity_rps=lambda requests: capacity_rps(job, requests[:most]),
    )
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
    return Work(requests=tuple(promised), notes=workload.notes)


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

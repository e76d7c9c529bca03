"""From a scenario to jobs: everything left to a default is decided here, once for all policies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from controller.spec import read_spec
from experiments.errors import UserError
from experiments.resolve.auto_scale import flows_dilation, scale_for, serving_dilation
from experiments.resolve.calibration import adds_overheads, overheads_of
from experiments.scenario.cluster import SequenceExchange, TopologyKind, TopologySection
from experiments.scenario.gpu_profile import gpu_named
from experiments.scenario.model_file import model_named
from experiments.scenario.scenario import Scenario
from experiments.scenario.serving import AllReduce, FetchStart
from experiments.scenario.simulation import SimulatedCollectives, SimulatedOrder
from experiments.scenario.workload import WorkloadKind
from experiments.workloads import coflow_benchmark
from experiments.workloads.micro import endpoints, micro_flows
from experiments.workloads.source import make_workload
from testbed.job import (
    MODEL_SCALE,
    Job,
    MicroFlow,
    Placement,
    Request,
    Scale,
    SchedulerOptions,
    ServingOptions,
    SimulationOptions,
    WorkerOptions,
)
from testbed.models.shapes import is_moe
from testbed.serving.cache.size_and_use import cache_capacity_blocks, replica_bytes_per_token
from testbed.serving.capacity import estimated_capacity_rps
from testbed.serving.placement import PlacementError, place
from testbed.serving.plans.steps import step_options
from testbed.serving.slo import DEFAULT_CLASS, SloTarget, with_slos
from testbed.topology import ServerShape, Topology, fat_tree, leaf_spine, rail_optimised, star
from workers.plan import CollectiveKind

_BYTES_PER_KIB = 1024

_ALL_REDUCES = {
    AllReduce.RING: CollectiveKind.ALL_REDUCE,
    AllReduce.TREE: CollectiveKind.TREE_ALL_REDUCE,
}

_SEQUENCES = {
    SequenceExchange.RING: CollectiveKind.RING_ATTENTION,
    SequenceExchange.ULYSSES: CollectiveKind.ALL_TO_ALL,
}


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A job per policy, alike but for the policy, and notes on how the work was made."""

    jobs: tuple[Job, ...]
    notes: tuple[str, ...]


def resolve(scenario: Scenario) -> Resolved:
    """Decide all that the scenario leaves open. Reads the trace, if it names one.

    Raises `UserError` for ranks that cannot be placed (naming the key) and for a trace that is not
    right (naming the line).
    """
    topology = _topology(scenario)
    exact = scenario.simulation.order is SimulatedOrder.EXACT
    micro = scenario.workload.is_micro
    base = Job(
        scenario=scenario.name,
        policy=scenario.policies[0],
        seed=scenario.seed,
        topology=topology,
        placement=endpoints(topology) if micro else _placement(scenario, topology),
        scale=Scale(time_dilation=1.0, bytes_scale=1.0),  # decided below, once the work is known
        model=model_named(scenario.model),
        gpu=gpu_named(scenario.gpu),
        serving=ServingOptions(
            router=scenario.serving.router,
            max_batch_tokens=scenario.serving.max_batch_tokens,
            decode_choice=scenario.serving.decode,
            all_reduce=_ALL_REDUCES[scenario.serving.all_reduce],
            sequence=_SEQUENCES[scenario.units.sequence],
            expert_skew=scenario.units.expert_skew,
            batching=scenario.serving.batching,
            chunk_tokens=scenario.serving.chunk_tokens,
            preempt_layers=scenario.serving.preempt_layers,
            fetch_early=scenario.serving.fetch is FetchStart.QUEUE,
            fetch_ahead=scenario.serving.fetch_ahead,
            decode_batch=scenario.serving.decode_batch,
            decode_background=scenario.serving.decode_background,
        ),
        scheduler=SchedulerOptions(
            levels=scenario.scheduler.levels,
            mlu_top=scenario.scheduler.mlu_top,
            mlu_base=scenario.scheduler.mlu_base,
            recheck_ns=round(scenario.scheduler.recheck_ms * 1e6),
        ),
        workers=WorkerOptions(
            device=scenario.workers.device.value,
            compute=scenario.workers.compute.value,
            lanes_s1=scenario.workers.lanes_s1,
            lanes_s3=scenario.workers.lanes_s3,
            chunk_bytes=scenario.workers.chunk_kib * _BYTES_PER_KIB,
            verify_share=scenario.workers.verify_share,
        ),
        simulation=SimulationOptions(
            exact=exact,
            lanes=not exact if scenario.simulation.lanes is None else scenario.simulation.lanes,
            progress_ns=round(scenario.simulation.progress_ms * 1e6),
            paths=scenario.simulation.paths,
            grouped=scenario.simulation.collectives is SimulatedCollectives.GROUPED,
            separate=scenario.simulation.separate,
            invariants=scenario.simulation.invariants,
        ),
    )
    if micro:
        flows, notes = _flows(scenario, base.placement)
        # A handful of flows: check them all, else the sample may well be empty.
        every = msgspec.structs.replace(base.workers, verify_share=1.0)
        base = msgspec.structs.replace(base, flows=flows, workers=every)
    else:
        base = _with_cache(scenario, base)
        requests, notes = _requests(scenario, base)
        base = msgspec.structs.replace(base, requests=requests)
        _check_cache(scenario, base)
    scale, scale_notes = _scale(scenario, base)
    base = msgspec.structs.replace(base, scale=scale)
    notes += (*_topology_notes(scenario.topology), *_serving_notes(base), *scale_notes)
    if adds_overheads(scenario.simulation):
        overheads = overheads_of(scenario.simulation, _machine_scale(scenario, base)[0])
        simulation = msgspec.structs.replace(base.simulation, overheads=overheads)
        base = msgspec.structs.replace(base, simulation=simulation)
    jobs = tuple(
        msgspec.structs.replace(base, policy=policy, control=read_spec(policy).control)
        for policy in scenario.policies
    )
    return Resolved(jobs=jobs, notes=notes)


def _topology(scenario: Scenario) -> Topology:
    section = scenario.topology
    nic_bps = _bps(section.nic_gbps)
    shape = ServerShape(
        gpus=section.gpus_per_server,
        nics=section.nic_count,
        nvlink_bps=None if section.nvlink_gbps is None else _bps(section.nvlink_gbps),
        pcie_bps=None if section.pcie_gbps is None else _bps(section.pcie_gbps),
    )
    match section.kind:
        case TopologyKind.STAR:
            return star(servers=section.servers, nic_bps=nic_bps, shape=shape)
        case TopologyKind.LEAF_SPINE:
            return leaf_spine(
                leaves=section.leaves,
                spines=section.spines,
                hosts_per_leaf=section.below_each_leaf,
                nic_bps=nic_bps,
                oversubscription=section.oversubscription,
                shape=shape,
            )
        case TopologyKind.FAT_TREE:
            return fat_tree(
                k=section.k,
                servers=section.servers,
                nic_bps=nic_bps,
                oversubscription=section.oversubscription,
                shape=shape,
            )
        case TopologyKind.RAIL_OPTIMISED:
            return rail_optimised(
                servers=section.servers,
                servers_per_group=section.below_each_leaf,
                spines=section.spines,
                nic_bps=nic_bps,
                oversubscription=section.oversubscription,
                shape=shape,
            )


def _topology_notes(section: TopologySection) -> tuple[str, ...]:
    """Not refused: a sweep over kinds of topology keeps the keys of all of them."""
    keys = [f"topology.{key}" for key in section.without_meaning]
    if not keys:
        return ()
    return (f"{', '.join(keys)}: without meaning in a {section.kind} topology",)


def _serving_notes(job: Job) -> tuple[str, ...]:
    """Of keys that ask for something the model has nothing of."""
    if is_moe(job.model) or not job.requests:
        return ()
    notes = []
    if job.serving.expert_skew:
        notes.append(f"units.expert_skew: without meaning, {job.model.name} has no experts")
    if job.serving.decode_background:
        notes.append(f"serving.decode_background: without meaning, {job.model.name} has no experts")
    return tuple(notes)


def _bps(gbps: float) -> int:
    return round(gbps * 1e9)


def _placement(scenario: Scenario, topology: Topology) -> Placement:
    units = scenario.units
    try:
        return place(
            topology,
            prefill_units=units.prefill_units,
            ranks_per_unit=units.ranks_per_unit,
            decode_ranks=units.decode_ranks,
            ranks_per_server=units.ranks_per_server,
            tp=units.tp,
            ep=units.ep,
            sp=units.sp,
            pp=units.pp,
            sequence=_SEQUENCES[units.sequence],
            layout=units.layout,
            model=model_named(scenario.model),
        )
    except PlacementError as error:
        raise UserError(f"scenario {scenario.name}: {error}") from None


def _with_cache(scenario: Scenario, job: Job) -> Job:
    """The size of the prefix cache in tokens, whichever way the scenario gives it."""
    tokens, gib = scenario.serving.cache_tokens, scenario.serving.cache_gib
    if gib is not None:
        tokens = int(gib * 2**30 / replica_bytes_per_token(job.model, job.placement.tp))
    return msgspec.structs.replace(job, serving=msgspec.structs.replace(job.serving, cache_tokens=tokens))


def _check_cache(scenario: Scenario, job: Job) -> None:
    try:
        cache_capacity_blocks(job)
    except ValueError as error:
        key = "serving.cache_tokens" if scenario.serving.cache_gib is None else "serving.cache_gib"
        raise UserError(f"scenario {scenario.name}: {key}: {error}") from None


def _scale(scenario: Scenario, job: Job) -> tuple[Scale, tuple[str, ...]]:
    """The scale the scenario names, or one that fits the work; a note says which was chosen.

    Simulated time and bytes are those of the model.
    """
    if scenario.fabric == "sim":
        return MODEL_SCALE, ()
    return _machine_scale(scenario, job)


def _machine_scale(scenario: Scenario, job: Job) -> tuple[Scale, tuple[str, ...]]:
    """The scale of the emulated fabric, whatever fabric the scenario is for."""
    section = scenario.scale
    dilation = section.time_dilation
    if dilation is None and job.flows:
        dilation = flows_dilation(
            job.flows, topology=job.topology, placement=job.placement, wall_s=section.wall_s
        )
    elif dilation is None:
        dilation = serving_dilation(
            job.requests,
            layers=job.model.layers,
            capacity_rps=_capacity_rps(job, job.requests),
            wall_s=section.wall_s,
        )
    nic_bps = _bps(scenario.topology.nic_gbps)
    scale = scale_for(dilation, bytes_scale=section.bytes_scale, nic_bps=nic_bps, link_mbps=section.link_mbps)
    if section.time_dilation is not None and section.bytes_scale is not None:
        return scale, ()
    return scale, (
        f"scale chosen for this work: a model second takes {scale.time_dilation:g} wall seconds, a NIC runs"
        f" at {scale.wire_bps(nic_bps) / 1e6:.4g} Mb/s on the machine",
    )


def _flows(scenario: Scenario, placement: Placement) -> tuple[tuple[MicroFlow, ...], tuple[str, ...]]:
    """The flows of a micro workload, and how they were made."""
    section = scenario.workload
    if section.kind is WorkloadKind.FLOWS:
        return micro_flows(section.flows, placement), ()
    assert section.path is not None  # a valid section of coflows has one
    trace = coflow_benchmark.load(
        Path(section.path),
        placement=placement,
        coflows=section.coflows,
        skip=section.skip,
        time_scale=section.time_scale or 1.0,
    )
    return trace.flows, trace.notes


def _requests(scenario: Scenario, job: Job) -> tuple[tuple[Request, ...], tuple[str, ...]]:
    """The requests with their SLOs, and how they were made."""

    workload = make_workload(
        scenario.workload,
        seed=scenario.seed,
        capacity_rps=lambda requests: _capacity_rps(job, requests),
    )
    promised = with_slos(
        workload.requests,
        targets=_targets(scenario),
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        topology=job.topology,
        options=step_options(job),
    )
    return tuple(promised), workload.notes


def _capacity_rps(job: Job, requests: Sequence[Request]) -> float:
    return estimated_capacity_rps(
        requests,
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        topology=job.topology,
        max_batch_tokens=job.serving.max_batch_tokens,
        options=step_options(job),
    )


def _targets(scenario: Scenario) -> Mapping[str, SloTarget]:
    slo = scenario.slo
    targets = {DEFAULT_CLASS: SloTarget(multiple=slo.multiple, absolute_s=slo.absolute_s)}
    for name, target in slo.classes.items():
        targets[name] = SloTarget(multiple=target.multiple, absolute_s=target.absolute_s)
    return targets

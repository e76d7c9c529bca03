"""The options of a job, from the keys of its scenario."""

from controller.units import NS_PER_MS
from experiments.errors import UserError
from experiments.resolve.cluster import SEQUENCES, Cluster, cache_tokens
from experiments.scenario.scenario import Scenario
from experiments.scenario.serving import AllReduce, FetchStart
from experiments.scenario.simulation import SimulatedCollectives, SimulatedOrder
from experiments.scenario.workload import BackgroundPairs
from testbed.job import (
    Background,
    Job,
    Placement,
    ReuseRule,
    Role,
    SchedulerOptions,
    ServingOptions,
    SimulationOptions,
    WorkerOptions,
)
from workers.plan import CollectiveKind

_BYTES_PER_KIB = 1024

_ALL_REDUCES = {
    AllReduce.RING: CollectiveKind.ALL_REDUCE,
    AllReduce.TREE: CollectiveKind.TREE_ALL_REDUCE,
}


def serving_options(scenario: Scenario, cluster: Cluster) -> ServingOptions:
    return ServingOptions(
        router=scenario.serving.router,
        max_batch_tokens=scenario.serving.max_batch_tokens,
        decode_choice=scenario.serving.decode,
        all_reduce=_ALL_REDUCES[scenario.serving.all_reduce],
        sequence=SEQUENCES[scenario.units.sequence],
        expert_skew=scenario.units.expert_skew,
        batching=scenario.serving.batching,
        chunk_tokens=scenario.serving.chunk_tokens,
        cache_tokens=None if scenario.workload.is_micro else cache_tokens(scenario, cluster),
        preempt_layers=scenario.serving.preempt_layers,
        reuse=scenario.serving.reuse,
        fetch_early=scenario.serving.fetch is FetchStart.QUEUE,
        fetch_ahead=scenario.serving.fetch_ahead,
        decode_batch=scenario.serving.decode_batch,
        decode_background=scenario.serving.decode_background,
    )


def scheduler_options(scenario: Scenario) -> SchedulerOptions:
    return SchedulerOptions(
        levels=scenario.scheduler.levels,
        mlu_top=scenario.scheduler.mlu_top,
        mlu_base=scenario.scheduler.mlu_base,
        recheck_ns=round(scenario.scheduler.recheck_ms * NS_PER_MS),
    )


def worker_options(scenario: Scenario) -> WorkerOptions:
    return WorkerOptions(
        device=scenario.workers.device,
        compute=scenario.workers.compute,
        lanes_s1=scenario.workers.lanes_s1,
        lanes_s3=scenario.workers.lanes_s3,
        chunk_bytes=scenario.workers.chunk_kib * _BYTES_PER_KIB,
        # A sample of a handful of flows could be empty, so all of them are checked.
        verify_share=1.0 if scenario.workload.is_micro else scenario.workers.verify_share,
    )


def simulation_options(scenario: Scenario) -> SimulationOptions:
    exact = scenario.simulation.order is not SimulatedOrder.LEVELS
    return SimulationOptions(
        exact=exact,
        hybrid=scenario.simulation.order is SimulatedOrder.HYBRID,
        lanes=not exact if scenario.simulation.lanes is None else scenario.simulation.lanes,
        progress_ns=round(scenario.simulation.progress_ms * NS_PER_MS),
        paths=scenario.simulation.paths,
        grouped=scenario.simulation.collectives is SimulatedCollectives.GROUPED,
        separate=scenario.simulation.separate,
        invariants=scenario.simulation.invariants,
    )


def background_of(scenario: Scenario, placement: Placement) -> Background | None:
    """The background transfers of `scenario`, if any. Raises `UserError` if there is nobody to send to."""
    section = scenario.workload.background
    if section.gbps is None:
        return None
    decode = placement.decode
    if section.pairs is BackgroundPairs.MIGRATE:
        if len(decode) < 2:
            raise UserError("workload.background.pairs: migrate needs two decode ranks or more")
        pairs = tuple(zip(decode, (*decode[1:], decode[0]), strict=True))
    else:
        senders = [rank.rank for rank in placement.ranks if rank.role is Role.PREFILL]
        pairs = tuple((src, decode[i % len(decode)]) for i, src in enumerate(senders))
    size_bytes = round(section.transfer_mb * 1e6)
    return Background(
        pairs=pairs, size_bytes=size_bytes, period_ns=max(1, round(size_bytes * 8 / section.gbps))
    )


def background_notes(job: Job) -> tuple[str, ...]:
    """Say that background transfers are beside what a load is a share of."""
    if job.background is None or not job.requests:
        return ()
    return (
        f"{len(job.background.pairs)} pairs of ranks send {job.background.asked_bps / 1e9:.3g} Gb/s of"
        " background transfers in all if nothing delays them; workload.load and unloaded TTFTs are worked out"
        " without them",
    )


def reuse_notes(job: Job) -> tuple[str, ...]:
    """Say what does not follow `serving.reuse`."""
    if not job.requests or job.serving.reuse is ReuseRule.FETCH:
        return ()
    return (
        f"serving.reuse is {job.serving.reuse}; workload.load and relative SLOs are worked out as if all "
        "reused KV were fetched",
    )


def model_notes(job: Job) -> tuple[str, ...]:
    """Say what the numbers of the model leave out or assume."""
    return tuple(f"model {job.model.name}: {note}" for note in job.model.notes) if job.requests else ()


def answer_notes(job: Job) -> tuple[str, ...]:
    """Say what the turns of conversations wait for, if there are any."""
    if all(request.after is None for request in job.requests):
        return ()
    if job.serving.decode_batch is None:
        return (
            "the first token stands for the answer that a turn waits for: only first tokens are modelled "
            "(serving.decode_batch: N models the others)",
        )
    return ("a turn waits for the last token of the answer before",)

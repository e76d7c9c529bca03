"""Builds the plan of a batch whose requests have a replica and a decode worker."""

from collections.abc import Mapping, Sequence

from controller.flow import Stage, Transfer
from testbed.job import Placement
from testbed.models.gpus import GpuSpeed, memory_s
from testbed.models.shape import ModelShape
from testbed.models.sizes import (
    active_parameter_bytes,
    kv_bytes_per_token,
    kv_bytes_per_token_layer,
    score_flops,
)
from testbed.placement import shards
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.outlook import with_downstream
from testbed.serving.plans.steps import (
    PLAIN,
    ReplicaWork,
    StepOptions,
    in_layer,
    slowest_compute_s,
    unit_steps,
)
from testbed.topology import Topology
from workers.plan import BatchPlan, LayerPlan, RequestPlan
from workers.rounds import split


def build_plan(
    *,
    batch: str,
    unit: str,
    assigned: Sequence[Assigned],
    decode_ranks: Mapping[int, int],
    topology: Topology,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    formed_ns: int,
    options: StepOptions = PLAIN,
) -> BatchPlan:
    """The plan of one batch on `unit`. `decode_ranks` maps request ids to ranks.

    KV is sharded by sequence part and head (`kv_shards`). Shard k of a request is on the k-th rank that its
    replica has in the layer's pipeline stage; the same holds for the holders of a reused prefix. Each layer
    waits for one S1 transfer per holder and shard. It posts one S3 transfer per shard, of new and reused
    tokens alike, which is due at the request's deadline. If a prompt is split, each batch delivers the
    KV of its own part, and the first one also the reused KV.
    """
    alike = unit_steps(
        replica_work(assigned, len(placement.replicas[unit]), model),
        unit=unit,
        placement=placement,
        model=model,
        gpu=gpu,
        options=options,
    )
    steps = {layer: group.steps for group in alike for layer in group.layers}
    layers = tuple(
        LayerPlan(
            index=layer,
            wait=_fetches(batch, unit, assigned, layer, placement, model),
            steps=in_layer(steps[layer], batch, layer),
            post=_deliveries(batch, unit, assigned, layer, decode_ranks, placement, model),
        )
        for layer in range(model.layers)
    )
    per_layer = placement.sp * placement.tp
    plan = BatchPlan(
        id=batch,
        unit=unit,
        ranks=placement.units[unit],
        requests=tuple(
            RequestPlan(
                request=item.request.id,
                replica=placement.replicas[unit][item.replica],
                decode_rank=decode_ranks[item.request.id],
                new_tokens=item.new_tokens,
                local_tokens=item.local_tokens,
                remote_tokens=item.remote_tokens,
                p2d_flows=(item.earlier_parts + 1) * model.layers * per_layer,
                decode_step_s=decode_step_s(model, gpu, item.request.prompt_tokens),
                deadline_ns=item.request.deadline_ns,
                last=item.last,
            )
            for item in assigned
        ),
        layers=layers,
        compute_s=sum(len(group.layers) * slowest_compute_s(group.steps) for group in alike),
        formed_ns=formed_ns,
    )
    return with_downstream(plan, topology, placement)


def replica_work(assigned: Sequence[Assigned], replicas: int, model: ModelShape) -> list[ReplicaWork]:
    """What each replica has to compute per layer for its requests."""
    tokens, scores, cached = [0] * replicas, [0] * replicas, [0] * replicas
    for item in assigned:
        tokens[item.replica] += item.new_tokens
        cached[item.replica] += item.prefix_tokens
        scores[item.replica] += score_flops(
            model,
            new_tokens=item.new_tokens,
            prefix_tokens=item.prefix_tokens,
        )
    return [
        ReplicaWork(new_tokens=t, score_flops=s, cached_tokens=c)
        for t, s, c in zip(tokens, scores, cached, strict=True)
    ]


def kv_shards(tokens: int, placement: Placement, model: ModelShape) -> tuple[int, ...]:
    """Bytes of one layer's KV of `tokens` that each of a replica's `sp * tp` ranks transfers, part by part.

    Parts and shards are as even as whole numbers can be, and the sum is exact. If ranks have copies of a
    head, or the whole latent of MLA, each of them transfers a share of it.
    """
    token_bytes = kv_bytes_per_token_layer(model)
    return tuple(
        size for part in split(tokens, placement.sp) for size in split(part * token_bytes, placement.tp)
    )


def decode_step_s(model: ModelShape, gpu: GpuSpeed, prompt_tokens: int) -> float:
    """Seconds of the first decode step, which reads the active weights and the prompt's KV once.

    Assumes that the step is memory-bound, that a decode worker has the memory bandwidth of one GPU, and
    that no other request shares the step (and so the cost of reading the weights).
    """
    kv_bytes = prompt_tokens * kv_bytes_per_token(model)
    return memory_s(gpu, active_parameter_bytes(model) + kv_bytes)


def _fetches(
    batch: str,
    unit: str,
    assigned: Sequence[Assigned],
    layer: int,
    placement: Placement,
    model: ModelShape,
) -> tuple[Transfer, ...]:
    return tuple(
        Transfer(
            id=f"{batch}.r{item.request.id}.l{layer}.s1.{src}-{dst}",
            stage=Stage.KV_REUSE,
            src=src,
            dst=dst,
            size_bytes=size,
            batch=batch,
            request=item.request.id,
            layer=layer,
        )
        for item in assigned
        for fetch in item.fetches
        for src, dst, size in zip(
            shards(placement, fetch.unit, fetch.replica, layer, model.layers),
            shards(placement, unit, item.replica, layer, model.layers),
            kv_shards(fetch.blocks * item.request.block_tokens, placement, model),
            strict=True,
        )
    )


def _deliveries(
    batch: str,
    unit: str,
    assigned: Sequence[Assigned],
    layer: int,
    decode_ranks: Mapping[int, int],
    placement: Placement,
    model: ModelShape,
) -> tuple[Transfer, ...]:
    return tuple(
        Transfer(
            id=f"{batch}.r{item.request.id}.l{layer}.s3.{src}-{decode_ranks[item.request.id]}",
            stage=Stage.P2D,
            src=src,
            dst=decode_ranks[item.request.id],
            size_bytes=size,
            batch=batch,
            request=item.request.id,
            layer=layer,
            deadline_ns=item.request.deadline_ns,
        )
        for item in assigned
        for src, size in zip(
            shards(placement, unit, item.replica, layer, model.layers),
            kv_shards(item.delivered_tokens, placement, model),
            strict=True,
        )
    )

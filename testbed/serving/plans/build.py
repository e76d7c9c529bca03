"""Builds the plan of a batch whose requests have a replica and a decode worker."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
from testbed.placement import stage_shards
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.outlook import downstream, s3_seconds
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
    groups = {layer: group for group in alike for layer in group.layers}
    stages = range(placement.pp)
    fetches = [_fetches(unit, assigned, stage, placement, model) for stage in stages]
    deliveries = [_deliveries(unit, assigned, stage, decode_ranks, placement, model) for stage in stages]
    decode_s = {item.request.id: decode_step_s(model, gpu, item.request.prompt_tokens) for item in assigned}
    s3_s = [s3_seconds(decode_s, moves, placement, topology) for moves in deliveries]
    after = downstream(alike, s3_s, decode_s, placement, topology)

    def layer_plan(layer: int) -> LayerPlan:
        group, later = groups[layer], after[layer]
        return LayerPlan(
            index=layer,
            wait=tuple(move.transfer(batch, layer, later.s1_ns) for move in fetches[group.stage]),
            steps=in_layer(group.steps, batch, layer, later.steps_ns),
            post=tuple(
                move.transfer(batch, layer, later.s3_ns[move.request]) for move in deliveries[group.stage]
            ),
        )

    return BatchPlan(
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
                p2d_flows=(item.earlier_parts + 1) * model.layers * placement.sp * placement.tp,
                decode_step_s=decode_s[item.request.id],
                deadline_ns=item.request.deadline_ns,
                last=item.last,
                recomputed_tokens=item.recomputed_blocks * item.request.block_tokens,
                fetch_estimate_ns=item.fetch_estimate_ns,
                recompute_estimate_ns=item.recompute_estimate_ns,
            )
            for item in assigned
        ),
        layers=tuple(map(layer_plan, range(model.layers))),
        compute_s=sum(len(group.layers) * slowest_compute_s(group.steps) for group in alike),
        formed_ns=formed_ns,
    )


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


class _Move(NamedTuple):
    """A shard of a request's KV, which goes from rank to rank in every layer of a pipeline stage.

    `name` is the end of the ids of its transfers, such as `"s3.<src>-<dst>"`.
    """

    stage: Stage
    name: str
    request: int
    src: int
    dst: int
    size_bytes: int
    deadline_ns: int | None = None

    def transfer(self, batch: str, layer: int, downstream_ns: int) -> Transfer:
        return Transfer(
            id=f"{batch}.r{self.request}.l{layer}.{self.name}",
            stage=self.stage,
            src=self.src,
            dst=self.dst,
            size_bytes=self.size_bytes,
            batch=batch,
            request=self.request,
            layer=layer,
            deadline_ns=self.deadline_ns,
            downstream_ns=downstream_ns,
        )


def _fetches(
    unit: str, assigned: Sequence[Assigned], stage: int, placement: Placement, model: ModelShape
) -> list[_Move]:
    """S1 in each layer of pipeline stage `stage`."""
    return [
        _Move(Stage.KV_REUSE, f"s1.{src}-{dst}", item.request.id, src, dst, size)
        for item in assigned
        for fetch in item.fetches
        for src, dst, size in zip(
            stage_shards(placement, fetch.unit, fetch.replica, stage),
            stage_shards(placement, unit, item.replica, stage),
            kv_shards(fetch.blocks * item.request.block_tokens, placement, model),
            strict=True,
        )
    ]


def _deliveries(
    unit: str,
    assigned: Sequence[Assigned],
    stage: int,
    decode_ranks: Mapping[int, int],
    placement: Placement,
    model: ModelShape,
) -> list[_Move]:
    """S3 in each layer of pipeline stage `stage`."""
    return [
        _Move(Stage.P2D, f"s3.{src}-{dst}", item.request.id, src, dst, size, item.request.deadline_ns)
        for item in assigned
        for dst in (decode_ranks[item.request.id],)
        for src, size in zip(
            stage_shards(placement, unit, item.replica, stage),
            kv_shards(item.delivered_tokens, placement, model),
            strict=True,
        )
    ]

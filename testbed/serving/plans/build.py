"""Builds the plan of a batch whose requests have a replica and a decode worker."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controller.flow import Stage, Transfer
from testbed.job import Placement
from testbed.models.gpus import GpuSpeed, memory_s
from testbed.models.mixers import kept_bytes, layers_that_send, mixers, state_bytes
from testbed.models.shape import Mixer, ModelShape
from testbed.models.sizes import active_parameter_bytes, context_read_bytes
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
    work_of,
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
    KV of its own part, and the first one also the reused KV. A layer that uses the KV of another one has
    neither. A layer with a state fetches it from the holder of the last reused block, and delivers it with
    the last part.
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
    kinds = {group.kind for group in alike}
    of_kind = mixers(model)
    fetches = {
        (stage, number): _fetches(unit, assigned, stage, of_kind[number], placement, model)
        for stage, number in kinds
    }
    deliveries = {
        (stage, number): _deliveries(unit, assigned, stage, of_kind[number], decode_ranks, placement, model)
        for stage, number in kinds
    }
    decode_s = {item.request.id: decode_step_s(model, gpu, item.request.prompt_tokens) for item in assigned}
    s3_s = {kind: s3_seconds(decode_s, moves, placement, topology) for kind, moves in deliveries.items()}
    after = downstream(alike, s3_s, decode_s, placement, topology)

    def layer_plan(layer: int) -> LayerPlan:
        group, later = groups[layer], after[layer]
        return LayerPlan(
            index=layer,
            wait=tuple(move.transfer(batch, layer, later.s1_ns) for move in fetches[group.kind]),
            steps=in_layer(group.steps, batch, layer, later.steps_ns),
            post=tuple(
                move.transfer(batch, layer, later.s3_ns[move.request]) for move in deliveries[group.kind]
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
                p2d_flows=_p2d_flows(item, placement, model),
                decode_step_s=decode_s[item.request.id],
                deadline_ns=item.request.deadline_ns,
                last=item.last,
            )
            for item in assigned
        ),
        layers=tuple(map(layer_plan, range(model.layers))),
        compute_s=sum(len(group.layers) * slowest_compute_s(group.steps) for group in alike),
        formed_ns=formed_ns,
    )


def replica_work(assigned: Sequence[Assigned], replicas: int, model: ModelShape) -> list[ReplicaWork]:
    """What each replica has to compute per layer for its requests."""
    requests: list[list[tuple[int, int]]] = [[] for _ in range(replicas)]
    for item in assigned:
        requests[item.replica].append((item.new_tokens, item.prefix_tokens))
    return [work_of(model, own) for own in requests]


def kv_shards(tokens: int, placement: Placement, model: ModelShape, mixer: Mixer) -> tuple[int, ...]:
    """Bytes of one layer's KV of `tokens` that each of a replica's `sp * tp` ranks transfers, part by part.

    Parts and shards are as even as whole numbers can be, and the sum is exact. If ranks have copies of a
    head, or the whole latent of MLA, each of them transfers a share of it.
    """
    token_bytes = kept_bytes(model, mixer)
    return tuple(
        size for part in split(tokens, placement.sp) for size in split(part * token_bytes, placement.tp)
    )


def state_shards(placement: Placement, mixer: Mixer) -> tuple[int, ...]:
    """Bytes of a request's state in one layer that each of a replica's `tp` ranks transfers."""
    return split(state_bytes(mixer), placement.tp)


def _p2d_flows(item: Assigned, placement: Placement, model: ModelShape) -> int:
    """S3 transfers of the request so far: of KV with every part, of states with the last one."""
    of_kv, of_state = layers_that_send(model)
    each = placement.sp * placement.tp
    return each * (of_kv * (item.earlier_parts + 1) + (of_state if item.last else 0))


def decode_step_s(model: ModelShape, gpu: GpuSpeed, prompt_tokens: int) -> float:
    """Seconds of the first decode step, which reads the active weights and the prompt's KV or state once.

    Assumes that the step is memory-bound, that a decode worker has the memory bandwidth of one GPU, and
    that no other request shares the step (and so the cost of reading the weights).
    """
    return memory_s(gpu, active_parameter_bytes(model) + context_read_bytes(model, prompt_tokens))


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
    unit: str,
    assigned: Sequence[Assigned],
    stage: int,
    mixer: Mixer,
    placement: Placement,
    model: ModelShape,
) -> list[_Move]:
    """S1 in each layer of pipeline stage `stage` that has `mixer`."""
    moves: list[_Move] = []
    for item in assigned:
        for fetch in item.fetches:
            if kept_bytes(model, mixer):
                sizes = kv_shards(fetch.blocks * item.request.block_tokens, placement, model, mixer)
            elif state_bytes(mixer) and fetch.ends_prefix:
                sizes = state_shards(placement, mixer)
            else:
                continue
            moves += [
                _Move(Stage.KV_REUSE, f"s1.{src}-{dst}", item.request.id, src, dst, size)
                for src, dst, size in zip(
                    stage_shards(placement, fetch.unit, fetch.replica, stage),
                    stage_shards(placement, unit, item.replica, stage),
                    sizes,
                    strict=True,
                )
            ]
    return moves


def _deliveries(
    unit: str,
    assigned: Sequence[Assigned],
    stage: int,
    mixer: Mixer,
    decode_ranks: Mapping[int, int],
    placement: Placement,
    model: ModelShape,
) -> list[_Move]:
    """S3 in each layer of pipeline stage `stage` that has `mixer`."""
    moves: list[_Move] = []
    for item in assigned:
        if kept_bytes(model, mixer):
            sizes = kv_shards(item.delivered_tokens, placement, model, mixer)
        elif state_bytes(mixer) and item.last:
            sizes = state_shards(placement, mixer)
        else:
            continue
        request, dst = item.request, decode_ranks[item.request.id]
        moves += [
            _Move(Stage.P2D, f"s3.{src}-{dst}", request.id, src, dst, size, request.deadline_ns)
            for src, size in zip(stage_shards(placement, unit, item.replica, stage), sizes, strict=True)
        ]
    return moves

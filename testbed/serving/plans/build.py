"""Builds the plan of a batch whose requests have a replica and a decode worker."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controller.flow import Stage, Transfer
from testbed.job import Placement
from testbed.models.gpus import GpuSpeed, memory_s
from testbed.models.shape import ModelShape
from testbed.models.sizes import (
    active_parameter_bytes,
    kv_bytes_per_token,
    kv_copies,
    score_flops,
)
from testbed.placement import stage_of, stage_shards
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.kv_moves import delivered, fetched
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


def build_plan(
    *,
    batch: str,
    unit: str,
    assigned: Sequence[Assigned],
    decode_ranks: Mapping[int, tuple[int, ...]],
    topology: Topology,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    formed_ns: int,
    options: StepOptions = PLAIN,
) -> BatchPlan:
    """The plan of one batch on `unit`. `decode_ranks` maps request ids to the ranks of their decode worker.

    A shard of a request's KV is on a rank that its replica has in the layer's pipeline stage; the same holds
    for the holders of a reused prefix. Each layer waits for the S1 transfers from each holder, and posts the
    S3 transfers of new and reused tokens alike (`plans.kv_moves` says who sends what to whom). They are due
    at the request's deadline. If a prompt is split, each batch delivers the KV of its own part, and the first
    one also the reused KV.
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
    shape = placement.shapes[unit]
    fetches = _Fetches(unit, assigned, placement, model)
    deliveries = [
        _deliveries(unit, assigned, stage, decode_ranks, placement, model) for stage in range(shape.pp)
    ]
    decode_s = {
        item.request.id: decode_step_s(model, gpu, item.request.prompt_tokens, placement.decode_tp)
        for item in assigned
    }
    at_decode = Counter(piece.dst for piece in delivered(0, shape, placement.decode_tp, model))
    s3_s = [s3_seconds(decode_s, moves, placement, topology) for moves in deliveries]
    after = downstream(alike, s3_s, decode_s, placement, topology)

    def layer_plan(layer: int) -> LayerPlan:
        group, later = groups[layer], after[layer]
        return LayerPlan(
            index=layer,
            wait=tuple(move.transfer(batch, layer, later.s1_ns) for move in fetches.of(layer)),
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
                decode_ranks=decode_ranks[item.request.id],
                new_tokens=item.new_tokens,
                local_tokens=item.local_tokens,
                remote_tokens=item.remote_tokens,
                p2d_flows=tuple(
                    (item.earlier_parts + 1) * model.layers * at_decode[number]
                    for number in range(placement.decode_tp)
                ),
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


def decode_step_s(model: ModelShape, gpu: GpuSpeed, prompt_tokens: int, tp: int = 1) -> float:
    """Seconds of the first decode step on `tp` ranks, which reads active weights and the prompt's KV once.

    Each rank reads its share of the weights, and all KV that it keeps. Assumes that the step is memory-bound
    and that no other request shares it (and so the cost of reading the weights). Its all-reduces are left
    out: with a vector per layer, they are small.
    """
    kv_bytes = prompt_tokens * kv_bytes_per_token(model) * kv_copies(model, tp)
    return memory_s(gpu, (active_parameter_bytes(model) + kv_bytes) / tp)


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


class _Fetches:
    """S1 of a batch on `unit`, layer by layer.

    Units may have different numbers of pipeline stages. Layers that are in the same stage of each unit have
    the same moves.
    """

    def __init__(
        self, unit: str, assigned: Sequence[Assigned], placement: Placement, model: ModelShape
    ) -> None:
        self._unit = unit
        self._placement = placement
        self._model = model
        self._fetches = [(item, fetch) for item in assigned for fetch in item.fetches]
        self._units = tuple(dict.fromkeys((unit, *(fetch.unit for _, fetch in self._fetches))))
        self._known: dict[tuple[int, ...], list[_Move]] = {}

    def of(self, layer: int) -> list[_Move]:
        shapes, layers = self._placement.shapes, self._model.layers
        stages = tuple(stage_of(layer, layers, shapes[unit].pp) for unit in self._units)
        if stages not in self._known:
            self._known[stages] = self._moves(dict(zip(self._units, stages, strict=True)))
        return self._known[stages]

    def _moves(self, stages: Mapping[str, int]) -> list[_Move]:
        placement, shapes = self._placement, self._placement.shapes
        moves: list[_Move] = []
        for item, fetch in self._fetches:
            senders = stage_shards(placement, fetch.unit, fetch.replica, stages[fetch.unit])
            receivers = stage_shards(placement, self._unit, item.replica, stages[self._unit])
            tokens = fetch.blocks * item.request.block_tokens
            for piece in fetched(tokens, shapes[fetch.unit], shapes[self._unit], self._model):
                src, dst = senders[piece.src], receivers[piece.dst]
                moves.append(_Move(Stage.KV_REUSE, f"s1.{src}-{dst}", item.request.id, src, dst, piece.size))
        return moves


def _deliveries(
    unit: str,
    assigned: Sequence[Assigned],
    stage: int,
    decode_ranks: Mapping[int, tuple[int, ...]],
    placement: Placement,
    model: ModelShape,
) -> list[_Move]:
    """S3 in each layer of pipeline stage `stage`."""
    shape = placement.shapes[unit]
    moves: list[_Move] = []
    for item in assigned:
        request = item.request
        senders = stage_shards(placement, unit, item.replica, stage)
        receivers = decode_ranks[request.id]
        for piece in delivered(item.delivered_tokens, shape, placement.decode_tp, model):
            src, dst = senders[piece.src], receivers[piece.dst]
            name = f"s3.{src}-{dst}"
            moves.append(_Move(Stage.P2D, name, request.id, src, dst, piece.size, request.deadline_ns))
    return moves

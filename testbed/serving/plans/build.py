"""Builds the plan of a batch whose requests have a replica and a decode worker."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controller.flow import Stage, Transfer
from testbed.job import Placement
from testbed.models.gpus import GpuSpeed, memory_s
from testbed.models.mixers import kept_bytes, layers_that_send, mixer_numbers, mixers, state_bytes
from testbed.models.shape import Mixer, ModelShape
from testbed.models.sizes import active_parameter_bytes, context_read_bytes
from testbed.placement import stage_of, stage_shards
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.kv_moves import delivered, fetched, state_pieces
from testbed.serving.plans.outlook import downstream, s3_seconds
from testbed.serving.plans.resharding import Piece
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
from workers.plan import BatchPlan, Fetched, LayerPlan, RequestPlan


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
    one also the reused KV. A layer that uses the KV of another one has neither. A layer with a state fetches
    it from the holder of the last reused block, and delivers it with the last part.
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
    of_kind = mixers(model)
    deliveries = {
        (stage, number): _deliveries(unit, assigned, stage, of_kind[number], decode_ranks, placement, model)
        for stage, number in dict.fromkeys(group.kind for group in alike)
    }
    decode_s = {
        item.request.id: decode_step_s(model, gpu, item.request.prompt_tokens, placement.decode_tp)
        for item in assigned
    }
    # Who sends to whom depends on the ranks only, so any layer tells how many flows a decode rank gets.
    at_decode = Counter(piece.dst for piece in delivered(0, shape, placement.decode_tp, model, of_kind[0]))
    s3_s = {kind: s3_seconds(decode_s, moves, placement, topology) for kind, moves in deliveries.items()}
    after = downstream(alike, s3_s, decode_s, placement, topology)

    def layer_plan(layer: int) -> LayerPlan:
        group, later = groups[layer], after[layer]
        return LayerPlan(
            index=layer,
            wait=tuple(move.transfer(batch, layer, later.s1_ns) for move in fetches.of(layer)),
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
                decode_ranks=decode_ranks[item.request.id],
                new_tokens=item.new_tokens,
                local_tokens=item.local_tokens,
                remote_tokens=item.remote_tokens,
                p2d_flows=tuple(
                    _delivering_layers(item, model) * at_decode[number]
                    for number in range(placement.decode_tp)
                ),
                decode_step_s=decode_s[item.request.id],
                deadline_ns=item.request.deadline_ns,
                last=item.last,
                recomputed_tokens=item.recomputed_blocks * item.request.block_tokens,
                fetch_estimate_ns=item.fetch_estimate_ns,
                recompute_estimate_ns=item.recompute_estimate_ns,
                earlier_tokens=item.earlier_tokens,
                fetched=_fetched(item, placement),
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


def _fetched(item: Assigned, placement: Placement) -> tuple[Fetched, ...]:
    """Which tokens of a request come from which replica with this batch."""
    block = item.request.block_tokens
    return tuple(
        Fetched(
            ranks=placement.replicas[fetch.unit][fetch.replica],
            spans=tuple((begin * block, end * block) for begin, end in fetch.spans),
        )
        for fetch in item.fetches
    )


def _delivering_layers(item: Assigned, model: ModelShape) -> int:
    """Layers with S3 in all parts of the request so far: of KV in every part, of states in the last one."""
    of_kv, of_state = layers_that_send(model)
    return of_kv * (item.earlier_parts + 1) + (of_state if item.last else 0)


def decode_step_s(model: ModelShape, gpu: GpuSpeed, prompt_tokens: int, tp: int = 1) -> float:
    """Seconds of the first decode step on `tp` ranks, which reads the prompt's KV and states once.

    Each rank also reads its share of the active weights, and of KV it reads all that it keeps. Assumes that
    the step is memory-bound and that no other request shares it (and so the cost of reading the weights).
    Its all-reduces are left out: with a vector per layer, they are small.
    """
    read_bytes = active_parameter_bytes(model) + context_read_bytes(model, prompt_tokens, tp)
    return memory_s(gpu, read_bytes / tp)


class _Move(NamedTuple):
    """A shard of a request's KV or state, which goes from rank to rank in all layers of a kind.

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
    the same moves if they also have the same mixer.
    """

    def __init__(
        self, unit: str, assigned: Sequence[Assigned], placement: Placement, model: ModelShape
    ) -> None:
        self._unit = unit
        self._placement = placement
        self._model = model
        self._fetches = [(item, fetch) for item in assigned for fetch in item.fetches]
        self._units = tuple(dict.fromkeys((unit, *(fetch.unit for _, fetch in self._fetches))))
        self._known: dict[tuple[int, tuple[int, ...]], list[_Move]] = {}

    def of(self, layer: int) -> list[_Move]:
        shapes, layers = self._placement.shapes, self._model.layers
        stages = tuple(stage_of(layer, layers, shapes[unit].pp) for unit in self._units)
        number = mixer_numbers(self._model)[layer]
        key = number, stages
        if key not in self._known:
            of_unit = dict(zip(self._units, stages, strict=True))
            self._known[key] = self._moves(of_unit, mixers(self._model)[number])
        return self._known[key]

    def _moves(self, stages: Mapping[str, int], mixer: Mixer) -> list[_Move]:
        placement, shapes = self._placement, self._placement.shapes
        moves: list[_Move] = []
        for item, fetch in self._fetches:
            senders = stage_shards(placement, fetch.unit, fetch.replica, stages[fetch.unit])
            receivers = stage_shards(placement, self._unit, item.replica, stages[self._unit])
            there, here = shapes[fetch.unit], shapes[self._unit]
            tokens = fetch.blocks * item.request.block_tokens
            pieces: tuple[Piece, ...] = ()
            if kept_bytes(self._model, mixer):
                pieces = fetched(tokens, there, here, self._model, mixer)
            elif state_bytes(mixer) and fetch.ends_prefix:
                pieces = state_pieces(there.tp, here.tp, mixer)
            for piece in pieces:
                src, dst = senders[piece.src], receivers[piece.dst]
                moves.append(_Move(Stage.KV_REUSE, f"s1.{src}-{dst}", item.request.id, src, dst, piece.size))
        return moves


def _deliveries(
    unit: str,
    assigned: Sequence[Assigned],
    stage: int,
    mixer: Mixer,
    decode_ranks: Mapping[int, tuple[int, ...]],
    placement: Placement,
    model: ModelShape,
) -> list[_Move]:
    """S3 in each layer of pipeline stage `stage` that has `mixer`."""
    shape = placement.shapes[unit]
    moves: list[_Move] = []
    for item in assigned:
        request = item.request
        senders = stage_shards(placement, unit, item.replica, stage)
        receivers = decode_ranks[request.id]
        pieces: tuple[Piece, ...] = ()
        if kept_bytes(model, mixer):
            pieces = delivered(item.delivered_tokens, shape, placement.decode_tp, model, mixer)
        elif state_bytes(mixer) and item.last:
            pieces = state_pieces(shape.tp, placement.decode_tp, mixer)
        for piece in pieces:
            src, dst = senders[piece.src], receivers[piece.dst]
            name = f"s3.{src}-{dst}"
            moves.append(_Move(Stage.P2D, name, request.id, src, dst, piece.size, request.deadline_ns))
    return moves

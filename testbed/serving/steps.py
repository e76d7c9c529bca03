"""The compute and collective steps of one layer of a batch, for all ranks of a unit.

With tensor parallelism inside a mixture of experts, the one all-reduce after attention stands for
a reduce-scatter before the dispatch and an all-gather after the combine: the same bytes, and each
of the `tp` ranks dispatches its share of the replica's tokens.
"""

from collections.abc import Sequence
from itertools import groupby, zip_longest

import msgspec

from testbed.job import GpuSpeed, ModelShape, Placement
from testbed.serving.gpus import compute_s
from testbed.serving.models import (
    activation_bytes_per_token,
    all_to_all_bytes_per_token,
    expert_flops_per_visit,
    gate_flops_per_token,
    is_moe,
    projection_flops_per_token,
)
from testbed.serving.placement import expert_groups, tensor_parallel
from workers.plan import Collective, CollectiveKind, Compute, Step


class ReplicaWork(msgspec.Struct, frozen=True, kw_only=True):
    """What one attention replica computes per layer: new tokens, and FLOPs of attention scores."""

    new_tokens: int
    score_flops: int


def layer_steps(
    work: Sequence[ReplicaWork],
    *,
    unit: str,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    all_reduce: CollectiveKind = CollectiveKind.ALL_REDUCE,
) -> tuple[Step, ...]:
    """The steps of one layer, in order; `work[i]` belongs to replica i of `unit`.

    Collective ids are `"<label>.<group>"`, to be made unique with `in_layer`. Collectives that
    nobody has anything to send in are left out. Tokens visit experts in balance. `all_reduce` is how
    vectors are reduced: `ALL_REDUCE`, a ring, or `TREE_ALL_REDUCE`.
    """
    tp = tensor_parallel(placement)
    steps: list[Step] = [_attention(work, tp, model, gpu)]
    if tp > 1:
        steps += _all_reduces("attention-reduce", all_reduce, work, unit, model)
    if is_moe(model):
        groups = expert_groups(placement, unit)
        tokens = dict(zip(placement.units[unit], _per_rank(work, tp), strict=True))
        steps += _all_to_alls("dispatch", groups, tokens, tp, model)
        steps.append(_experts(groups, tokens, tp, model, gpu))
        steps += _all_to_alls("combine", groups, tokens, tp, model)
    else:
        flops = [tokens * expert_flops_per_visit(model) / tp for tokens in _per_rank(work, tp)]
        steps.append(_compute("mlp", flops, gpu))
        if tp > 1:
            steps += _all_reduces("mlp-reduce", all_reduce, work, unit, model)
    return tuple(steps)


def in_layer(steps: Sequence[Step], batch: str, layer: int) -> tuple[Step, ...]:
    """The same steps with collective ids `"<batch>.l<layer>.<label>.<group>"`."""
    return tuple(
        msgspec.structs.replace(step, id=f"{batch}.l{layer}.{step.id}")
        if isinstance(step, Collective)
        else step
        for step in steps
    )


def slowest_compute_s(steps: Sequence[Step]) -> float:
    """Seconds of compute of one layer: of each step its slowest rank, which the others wait for.

    Of ring attention, of each round its slowest rank.
    """
    own = sum(max(step.seconds) for step in steps if isinstance(step, Compute))
    return own + sum(sum(block_compute_s(together)) for together in side_by_side(steps))


def side_by_side(steps: Sequence[Step]) -> list[list[Collective]]:
    """The collectives of `steps`, those together that run at once, in different groups: consecutive ones
    of one label."""
    collectives = [step for step in steps if isinstance(step, Collective)]
    return [list(together) for _, together in groupby(collectives, key=lambda step: step.label)]


def block_compute_s(together: Sequence[Collective]) -> list[float]:
    """Seconds of compute inside collectives that run at once, round by round, at the slowest rank."""
    ranks = [seconds for step in together for seconds in step.round_seconds]
    return [max(seconds) for seconds in zip_longest(*ranks, fillvalue=0.0)]


def _per_rank(work: Sequence[ReplicaWork], tp: int) -> list[int]:
    """For each rank of the unit in order, the new tokens of its replica."""
    return [replica.new_tokens for replica in work for _ in range(tp)]


def _compute(label: str, flops: Sequence[float], gpu: GpuSpeed) -> Compute:
    return Compute(label=label, seconds=tuple(compute_s(gpu, f) for f in flops), flops=tuple(flops))


def _attention(work: Sequence[ReplicaWork], tp: int, model: ModelShape, gpu: GpuSpeed) -> Compute:
    """Projections, scores and the choice of experts, which comes before the dispatch."""
    per_token = projection_flops_per_token(model) + gate_flops_per_token(model)
    flops = [
        (replica.new_tokens * per_token + replica.score_flops) / tp for replica in work for _ in range(tp)
    ]
    return _compute("attention", flops, gpu)


def _all_reduces(
    label: str, kind: CollectiveKind, work: Sequence[ReplicaWork], unit: str, model: ModelShape
) -> list[Collective]:
    return [
        Collective(
            id=f"{label}.{unit}.tp{i}",
            group=f"{unit}.tp{i}",
            kind=kind,
            sizes=((replica.new_tokens * activation_bytes_per_token(model),),),
            label=label,
        )
        for i, replica in enumerate(work)
        if replica.new_tokens
    ]


def _all_to_alls(
    label: str,
    groups: Sequence[tuple[str | None, tuple[int, ...]]],
    tokens: dict[int, int],
    tp: int,
    model: ModelShape,
) -> list[Collective]:
    """Member i sends `tokens_i / tp * top_k / ep` hidden states to each member; combine returns them."""
    collectives: list[Collective] = []
    for name, members in groups:
        if name is None or not any(tokens[rank] for rank in members):
            continue
        shares = len(members) * tp
        out = [tokens[rank] * all_to_all_bytes_per_token(model) // shares for rank in members]
        dispatch = tuple((size,) * len(members) for size in out)
        combine = tuple(tuple(out) for _ in members)
        collectives.append(
            Collective(
                id=f"{label}.{name}",
                group=name,
                kind=CollectiveKind.ALL_TO_ALL,
                sizes=dispatch if label == "dispatch" else combine,
                label=label,
            )
        )
    return collectives


def _experts(
    groups: Sequence[tuple[str | None, tuple[int, ...]]],
    tokens: dict[int, int],
    tp: int,
    model: ModelShape,
    gpu: GpuSpeed,
) -> Compute:
    flops: list[float] = []
    for _, members in groups:
        visits = sum(tokens[rank] for rank in members) * model.top_k
        flops += [visits * expert_flops_per_visit(model) / (tp * len(members))] * len(members)
    return _compute("experts", flops, gpu)

"""Attention of one layer: projections, scores, and what the parts of a sequence send each other for them.

A layer with a state instead of KV has the same steps, without scores.

- Without sequence parallelism, it is one compute step.
- Ring attention (Liu, Zaharia and Abbeel 2023): each part keeps its queries, and the KV blocks go round.
- Ulysses (Jacobs et al., "DeepSpeed Ulysses", 2023): an all-to-all gives each part all tokens of its share
  of the heads, and another one returns the results.
"""

from testbed.models.mixers import mixer_of
from testbed.models.shape import Attention
from testbed.models.sizes import (
    attention_weight_bytes,
    gate_flops_per_token,
    gate_weight_bytes,
    is_sparse,
    projection_flops_per_token,
)
from testbed.serving.plans.stage_work import NOTHING, Need, ReplicaWork, StageWork
from workers.plan import Collective, CollectiveKind, Step
from workers.rounds import split


def attention_steps(stage: StageWork, layer: int, sequence: CollectiveKind) -> list[Step]:
    """Projections, the choice of experts (which the dispatch needs), and scores."""
    model, tp = stage.model, stage.tp
    per_token = projection_flops_per_token(model, layer)
    weights = attention_weight_bytes(model, layer) / tp
    if is_sparse(model, layer):
        per_token += gate_flops_per_token(model)
        weights += gate_weight_bytes(model)
    if stage.sp > 1:
        projections = [
            Need(flops=tokens * per_token / tp, read_bytes=weights) if tokens else NOTHING
            for tokens in stage.new_tokens
        ]
        exchange = _ulysses if sequence is CollectiveKind.ALL_TO_ALL else _ring
        return [stage.compute("attention", projections), *exchange(stage, layer)]
    needs = [
        Need(
            flops=(work.new_tokens * per_token + work.scores(model, layer)) / tp,
            read_bytes=weights + stage.read_bytes(layer, work, tp),
        )
        if work.new_tokens
        else NOTHING
        for work in stage.replicas
        for _ in range(tp)
    ]
    return [stage.compute("attention", needs)]


def _ring(stage: StageWork, layer: int) -> list[Step]:
    """One ring for each replica and share of the heads. New and reused KV goes round."""
    return [
        _ring_of(stage, layer, work, stage.sp_group(replica * stage.tp + head))
        for replica, work in enumerate(stage.replicas)
        if work.new_tokens
        for head in range(stage.tp)
    ]


def _ring_of(stage: StageWork, layer: int, work: ReplicaWork, group: str) -> Collective:
    sp, tp = stage.sp, stage.tp
    queries = split(work.new_tokens, sp)
    keys = split(work.new_tokens + work.cached_tokens, sp)
    blocks = tuple(stage.kv_bytes(layer, tokens, tp) for tokens in keys)
    scores = work.scores(stage.model, layer)

    def seconds(member: int, number: int) -> float:
        """Compute of `member` over the block that it has in round `number`."""
        block = (member - number) % sp
        share = queries[member] * keys[block] / (sum(queries) * sum(keys))
        need = Need(flops=scores / tp * share, read_bytes=blocks[block])
        return stage.seconds(need) if queries[member] else 0.0

    return Collective(
        id=f"ring.{group}",
        group=group,
        kind=CollectiveKind.RING_ATTENTION,
        sizes=(blocks,),
        label="ring",
        round_seconds=tuple(tuple(seconds(member, number) for number in range(sp)) for member in range(sp)),
    )


def _ulysses(stage: StageWork, layer: int) -> list[Step]:
    sp, tp = stage.sp, stage.tp
    there: list[Step] = []
    back: list[Step] = []
    needs: list[Need] = []
    for replica, work in enumerate(stage.replicas):
        if not work.new_tokens:
            needs += [NOTHING] * (sp * tp)
            continue
        for head in range(tp):
            group = stage.sp_group(replica * tp + head)
            inputs, outputs = _ulysses_bytes(stage, layer, work)
            there.append(_all_to_all("heads", group, tuple((size,) * sp for size in inputs)))
            back.append(_all_to_all("tokens", group, (outputs,) * sp))
        read_bytes = stage.kv_bytes(layer, work.new_tokens + work.cached_tokens, sp * tp)
        scores = work.scores(stage.model, layer) / (sp * tp)
        needs += [Need(flops=scores, read_bytes=read_bytes)] * (sp * tp)
    return [*there, stage.compute("scores", needs), *back]


def _ulysses_bytes(
    stage: StageWork, layer: int, work: ReplicaWork
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes that each part sends to each one before attention, and receives from each one after it.

    Before, these are the queries of its new tokens and the KV of all its tokens, for the receiver's heads.
    After, they are the results of the sender's heads for the receiver's new tokens.
    """
    model = stage.model
    ways = stage.sp * stage.tp
    mixer = mixer_of(model, layer)
    assert isinstance(mixer, Attention)  # a placement with several parts has no layers with a state
    query_bytes = mixer.q_heads // ways * mixer.head_dim * model.bytes_per_element
    value_bytes = mixer.q_heads // ways * mixer.v_dim * model.bytes_per_element
    queries = split(work.new_tokens, stage.sp)
    keys = split(work.new_tokens + work.cached_tokens, stage.sp)
    inputs = tuple(
        new * query_bytes + stage.kv_bytes(layer, all_, ways) for new, all_ in zip(queries, keys, strict=True)
    )
    return inputs, tuple(new * value_bytes for new in queries)


def _all_to_all(label: str, group: str, sizes: tuple[tuple[int, ...], ...]) -> Collective:
    return Collective(
        id=f"{label}.{group}", group=group, kind=CollectiveKind.ALL_TO_ALL, sizes=sizes, label=label
    )

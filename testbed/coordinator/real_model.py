"""Real layers (`workers.compute: model`): what ranks are told of the model, and what is refused."""

from collections.abc import Iterator
from math import gcd, lcm

from testbed.fabric import JobRefused
from testbed.job import Job
from testbed.models.mixers import mixer_score_flops, mixers
from testbed.models.shape import ModelShape, Recurrent
from testbed.models.sizes import active_parameters, is_moe, total_parameters
from testbed.placement import coordinates, expert_groups, layers_of
from workers.model.setup import ELEMENT_BYTES, Decoder, Prompt, RealModel, Shard
from workers.options import ComputeMode
from workers.plan import CollectiveKind

_MOST_WEIGHTS = 20_000_000
_MOST_CHECK_FLOPS = 1e11
"""What the decode ranks may compute after the run, all together: less than a minute on a slow core."""


def is_real(job: Job) -> bool:
    """Whether ranks compute a model. A micro workload has none."""
    return job.workers.compute is ComputeMode.MODEL and bool(job.requests)


def real_model(job: Job) -> RealModel | None:
    """What the ranks of `job` compute; None if they compute no model.

    Raises `JobRefused`, naming the key to change, for what real layers do not have.
    """
    if not is_real(job):
        return None
    refuse(job)
    model, placement = job.model, job.placement
    shards = {
        rank: _shard(job, unit, index)
        for unit, ranks in placement.units.items()
        for index, rank in enumerate(ranks)
    }
    for worker in placement.decode_workers:
        for index, rank in enumerate(worker):
            shards[rank] = Shard(
                first_layer=0, end_layer=model.layers, tp=placement.decode_tp, tp_index=index
            )
    return RealModel(
        decoder=_decoder(job),
        shards=shards,
        workers=placement.decode_workers,
        prompts={
            request.id: Prompt(
                tokens=request.prompt_tokens, blocks=request.blocks, block_tokens=request.block_tokens
            )
            for request in job.requests
        },
    )


def refuse(job: Job) -> None:
    """Raise `JobRefused`, naming the key to change, if `job` asks for what real layers do not have."""
    for reason in _refusals(job) if is_real(job) else ():
        raise JobRefused(f"workers.compute: real layers (model) are not possible here: {reason}")


def _decoder(job: Job) -> Decoder:
    model = job.model
    moe = is_moe(model)
    return Decoder(
        layers=model.layers,
        hidden=model.hidden,
        q_heads=model.q_heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn=model.dense_ffn if moe else model.ffn,
        seed=job.seed,
        experts=model.experts,
        top_k=model.top_k,
        expert_ffn=model.ffn if moe else 0,
        shared_ffn=model.shared_ffn,
        dense_layers=model.dense_layers,
        expert_ways=max(shape.ep for shape in job.placement.shapes.values()),
        sequence_parts=max(shape.sp for shape in job.placement.shapes.values()),
        gated=model.gated,
        window=model.window,
    )


def _shard(job: Job, unit: str, index: int) -> Shard:
    """What the rank at place `index` of a unit has."""
    placement, model = job.placement, job.model
    shape, place = placement.shapes[unit], coordinates(placement, unit, index)
    layers = layers_of(place.stage, model.layers, shape.pp)
    rank = placement.units[unit][index]
    [members] = [ranks for _, ranks in expert_groups(placement, unit, place.stage) if rank in ranks]
    each = model.experts // len(members)
    first = members.index(rank) * each
    return Shard(
        first_layer=layers.start,
        end_layer=layers.stop,
        tp=shape.tp,
        tp_index=place.tp,
        parts=shape.sp,
        part=place.part,
        experts=(first, first + each),
    )


# --- what is refused ----------------------------------------------------------------------------


def _refusals(job: Job) -> Iterator[str]:
    yield from _of_model(job.model)
    yield from _of_units(job)
    yield from _of_serving(job)
    if job.scale.bytes_scale != 1:
        yield f"scale.bytes_scale is {job.scale.bytes_scale:g}, and real tensors need 1"
    if is_moe(job.model):
        yield from _of_experts(job)
    flops = sum(_check_flops(job.model, request.prompt_tokens) for request in job.requests)
    if flops > _MOST_CHECK_FLOPS:
        yield (
            f"to compare the prompts with the whole model takes {flops:.2g} FLOPs (at most"
            f" {_MOST_CHECK_FLOPS:.0e}); lower workload.requests, or take a smaller model"
        )


def _of_model(model: ModelShape) -> Iterator[str]:
    kinds = mixers(model)
    if any(isinstance(mixer, Recurrent) for mixer in kinds):
        yield f"model {model.name} has layers with a recurrent state"
    elif len(kinds) > 1:
        yield f"the layers of model {model.name} differ in their attention"
    attention = model.attention
    for there, what in (
        (attention.latent is not None, "latent attention (MLA)"),
        (attention.index is not None, "sparse attention"),
        (attention.output_gate, "a gate after attention"),
        (attention.v_dim != attention.head_dim, "values that are not as wide as keys"),
        (attention.head_dim % 2 == 1, "heads of an odd width, which rotary embedding cannot turn"),
        (model.expert_hidden > 0, "experts on a narrower hidden state"),
        (bool(model.bare_layers), "layers without a feed-forward"),
    ):
        if there:
            yield f"model {model.name} has {what}"
    weights = {model.weight_bytes, model.expert_bytes or model.weight_bytes}
    if weights | {model.bytes_per_element, model.kv_element_bytes} != {ELEMENT_BYTES}:
        yield f"model {model.name} has weights, KV or activations of other than 16 bits"
    count = total_parameters(model)
    if count > _MOST_WEIGHTS:
        yield f"model {model.name} has {count:,} weights, too many for a CPU (at most {_MOST_WEIGHTS:,})"


def _of_units(job: Job) -> Iterator[str]:
    model, placement = job.model, job.placement
    shapes = set(placement.shapes.values())
    sequence = job.serving.sequence is CollectiveKind.ALL_TO_ALL
    if sequence and any(model.kv_heads % (shape.sp * shape.tp) for shape in shapes if shape.sp > 1):
        yield f"units.sequence is ulysses, and {model.kv_heads} KV heads do not divide by units.sp and tp"
    parts = lcm(*(shape.sp for shape in shapes))
    for what, sizes in _lengths(job).items():
        if any(size % parts for size in sizes):
            yield f"with units.sp, {what} have to be a multiple of {parts} tokens, and not all are"
    for key, ways in (("tp", {shape.tp for shape in shapes}), ("decode_tp", {placement.decode_tp})):
        if any(model.kv_heads % tp for tp in ways):
            heads = f"the {model.kv_heads} KV heads of {model.name}"
            yield f"units.{key} has to divide {heads}: no rank has a copy of one"


def _of_serving(job: Job) -> Iterator[str]:
    serving = job.serving
    if len({request.block_tokens for request in job.requests}) > 1:
        yield "the prompts have blocks of different sizes, and a page of KV has one"
    if serving.fetch_early:
        yield "serving.fetch is queue"
    if serving.decode_background:
        yield "serving.decode_background sends messages that no model computes"
    if job.plans:
        yield "serving.batches_of replays batches, which may reuse KV before it is there"


def _of_experts(job: Job) -> Iterator[str]:
    model, placement = job.model, job.placement
    shapes = set(placement.shapes.values())
    if any(shape.tp > 1 for shape in shapes):
        yield "units.tp is above 1 with experts: one planned all-reduce stands for two other collectives"
    if job.serving.expert_skew:
        yield "units.expert_skew is above 0, and the router here is even"
    ways = {(shape.ep, shape.sp) for shape in shapes}
    if len(ways) > 1:
        yield "units.ep or units.sp differ between units with experts"
        return
    ((ep, sp),) = ways
    whole = ep // gcd(ep, model.top_k) * sp
    for what, sizes in _lengths(job).items():
        if any(size % whole for size in sizes):
            yield (
                f"visits of {model.top_k} experts divide evenly among units.ep = {ep} ranks only for a"
                f" multiple of {whole} tokens, and not all {what} have that"
            )


def _lengths(job: Job) -> dict[str, set[int]]:
    """How many tokens a batch computes of a prompt is a sum of these lengths and differences of them."""
    lengths = {
        "prompts": {request.prompt_tokens for request in job.requests},
        "blocks": {request.block_tokens for request in job.requests},
    }
    if job.serving.chunk_tokens is not None:
        lengths["chunks"] = {min(job.serving.chunk_tokens, job.serving.max_batch_tokens)}
    return lengths


def _check_flops(model: ModelShape, tokens: int) -> float:
    """FLOPs of the whole model for a prompt."""
    scores = mixer_score_flops(model.attention, new_tokens=tokens, prefix_tokens=0)
    return 2.0 * active_parameters(model) * tokens + model.layers * scores

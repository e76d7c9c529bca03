"""What a rank is told of the model: the size of a page of KV, and of the layers that its kernels imitate."""

from statistics import fmean

from testbed.job import Job
from testbed.models.mixers import copies, kept_bytes, mixers
from testbed.models.sizes import is_moe
from workers.layer_sizes import LayerSizes

_CONTEXT = 1024
"""The tokens that a token attends to, if there are no prompts."""

_BLOCK_TOKENS = 16


def page_bytes(job: Job, rank: int) -> int:
    """The bytes of a block's KV in one layer, as `rank` has it: of the layers, the one that keeps most."""
    model, tp = job.model, _ways(job, rank)
    tokens = max((request.block_tokens for request in job.requests), default=_BLOCK_TOKENS)
    return max(1, *(tokens * kept_bytes(model, each) * copies(each, tp) // tp for each in mixers(model)))


def layer_sizes(job: Job, rank: int) -> LayerSizes:
    """The sizes of a layer with attention, as `rank` has it."""
    model, tp = job.model, _ways(job, rank)
    attention = model.attention
    prompts = [request.prompt_tokens for request in job.requests]
    return LayerSizes(
        hidden=model.hidden,
        q_heads=max(1, attention.q_heads // tp),
        kv_heads=max(1, attention.kv_heads // tp),
        head_dim=attention.head_dim,
        v_dim=attention.v_dim,
        ffn=model.ffn if is_moe(model) else max(1, model.ffn // tp),
        gated=model.gated,
        context=round(fmean(prompts)) if prompts else _CONTEXT,
    )


def _ways(job: Job, rank: int) -> int:
    """How many tensor-parallel ranks divide the heads of the unit or decode worker of `rank`."""
    for unit, ranks in job.placement.units.items():
        if rank in ranks:
            return job.placement.shapes[unit].tp
    return job.placement.decode_tp

"""How large the prefix cache of a replica is, and how much requests reuse from it."""

from testbed.job import Job
from testbed.models.shape import ModelShape
from testbed.models.sizes import kv_bytes_per_token
from testbed.record import CacheRow
from testbed.serving.cache.assignment import Assigned, reusable_blocks


def cache_capacity_blocks(job: Job) -> int | None:
    """Whole blocks that fit into `job.serving.cache_tokens`; None: no limit.

    Raises `ValueError` if not even one block fits.
    """
    tokens = job.serving.cache_tokens
    block_tokens = max((request.block_tokens for request in job.requests), default=1)
    if tokens is None:
        return None
    if tokens < block_tokens:
        raise ValueError(f"a prefix cache of {tokens} tokens has no room for a block of {block_tokens}")
    return tokens // block_tokens


def replica_bytes_per_token(model: ModelShape, tp: int) -> float:
    """KV bytes per token that a replica of `tp` tensor-parallel ranks keeps, on all its ranks together.

    This is more than the token's KV if ranks keep copies. States are left out: they do not grow with tokens.
    """
    return kv_bytes_per_token(model, tp)


def use_of(unit: str, item: Assigned) -> CacheRow:
    """What one request, which `unit` runs as `item` says, has reused and what it has missed."""
    missed = len(reusable_blocks(item.request)) - item.reused_blocks - item.recomputed_blocks
    return CacheRow(
        unit=unit,
        requests=1,
        prompt_tokens=item.request.prompt_tokens,
        local_blocks=item.local_blocks,
        remote_blocks=item.remote_blocks,
        recomputed_blocks=item.recomputed_blocks,
        missed_blocks=missed,
        local_tokens=item.local_tokens,
        remote_tokens=item.remote_tokens,
        recomputed_tokens=item.recomputed_blocks * item.request.block_tokens,
        missed_tokens=missed * item.request.block_tokens,
    )

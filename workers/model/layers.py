"""The functions of a decoder layer. Pure; all tensors have 32 bits.

t is a number of tokens, n a number of keys, d the width of a head.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

_ROTARY_BASE = 10_000.0
_ROWS = 128  # of queries at a time, so that their scores fit into a cache


def normed(hidden: torch.Tensor) -> torch.Tensor:
    """Each row of `hidden`, at a root mean square of 1 (RMSNorm, without weights)."""
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + 1e-6)


def rotated(heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`heads` (t, heads, d) with rotary embedding for `positions` (t). Su et al., "RoFormer", 2021."""
    half = heads.shape[-1] // 2
    turns = _ROTARY_BASE ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = positions.to(torch.float32)[:, None, None] * turns
    cos, sin = angles.cos(), angles.sin()
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class PartialAttention(NamedTuple):
    """Attention of queries to some of their keys: the mean of the values (t, q heads, d) by softmax, and the
    logarithm of the sum of exponentials (t, q heads), by which it counts among the other keys."""

    values: torch.Tensor
    logarithms: torch.Tensor


def attended(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor,
    places: torch.Tensor,
    window: int | None,
) -> PartialAttention:
    """Causal attention of `queries` (t, q heads, d) at `positions` (t) to keys and values (kv heads, n, d).

    The keys are at `places` (n). Both are ascending. Consecutive query heads share a KV head.
    """
    done = []
    for begin in range(0, len(queries), _ROWS):
        rows = slice(begin, begin + _ROWS)
        seen = int((places <= positions[rows][-1]).sum())
        done.append(
            _attended(queries[rows], keys[:, :seen], values[:, :seen], positions[rows], places[:seen], window)
        )
    return PartialAttention(
        torch.cat([block.values for block in done]), torch.cat([block.logarithms for block in done])
    )


def _attended(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor,
    places: torch.Tensor,
    window: int | None,
) -> PartialAttention:
    kv_heads, count, width = keys.shape
    if count == 0:  # nothing is seen
        return PartialAttention(torch.zeros_like(queries), torch.full(queries.shape[:2], -torch.inf))
    by_head = queries.unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3)
    scores = torch.bmm(by_head.flatten(1, 2), keys.transpose(1, 2)).mul_(width**-0.5)
    back = positions[:, None] - places
    unseen = back < 0 if window is None else (back < 0) | (back >= window)
    scores.view(-1, len(queries), count).masked_fill_(unseen, -torch.inf)
    logarithms = scores.logsumexp(-1)
    # A query that sees none of these keys has no softmax. It counts for nothing, so any mean will do.
    shares = scores.sub_(logarithms.nan_to_num(neginf=0.0)[..., None]).exp_()
    means = torch.bmm(shares, values).view(by_head.shape)
    return PartialAttention(
        means.permute(2, 0, 1, 3).flatten(1, 2),
        logarithms.view(by_head.shape[:3]).permute(2, 0, 1).flatten(1),
    )


def merged(blocks: Sequence[PartialAttention]) -> torch.Tensor:
    """Attention to the keys of all blocks: (t, q heads * d)."""
    logarithms = torch.stack([block.logarithms for block in blocks])
    shares = torch.exp(logarithms - logarithms.logsumexp(0))
    values = torch.stack([block.values for block in blocks])
    return (values * shares[..., None]).sum(0).flatten(1)


def fed_forward(
    hidden: torch.Tensor, gate: torch.Tensor | None, up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """An MLP or an expert: with three matrices gated by SiLU (Shazeer 2020), with two by GELU."""
    inner = functional.linear(hidden, up)
    if gate is None:
        inner = functional.gelu(inner)
    else:
        inner = functional.silu(functional.linear(hidden, gate)) * inner
    return functional.linear(inner, down)

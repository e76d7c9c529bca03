"""The parts of a decoder layer as a shard of the model computes them. Hidden states have 32 bits.

A sum that crosses the network is rounded to 16 bits on the way, and so is KV before anything attends to it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from workers.model.layers import PartialAttention, attended, fed_forward, merged, normed, rotated
from workers.model.routing import visited
from workers.model.setup import Decoder, WrongSize
from workers.model.weights import Feed, LayerWeights, Weights
from workers.plan import Collective

WIRE = torch.float16
"""The format of KV and of hidden states on the wire: 16 bits, as plans count them. Of the two formats with 16
bits, it is the one that shows smaller errors."""


def check_size(step: Collective, planned_bytes: int, real_bytes: int) -> None:
    """Raise `WrongSize` unless a plan counts the bytes that a rank has for one member of a collective."""
    if planned_bytes != real_bytes:
        raise WrongSize(f"{step.id} is planned with {planned_bytes} B; the real tensor has {real_bytes} B")


def new_kv(
    decoder: Decoder, weights: LayerWeights, hidden: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """The K and V (2, kv heads of the shard, t, d) of tokens with these hidden states (t, hidden)."""
    inputs = normed(hidden)
    heads = [
        functional.linear(inputs, matrix).unflatten(-1, (-1, decoder.head_dim))
        for matrix in (weights.key, weights.value)
    ]
    return torch.stack((rotated(heads[0], positions), heads[1])).transpose(1, 2).to(WIRE)


def attention(
    decoder: Decoder,
    weights: LayerWeights,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    kv: torch.Tensor,
) -> torch.Tensor:
    """What the shard's heads add to the hidden states, given the KV (2, kv heads, n, d) so far."""
    places = torch.arange(kv.shape[2])
    own = queries(decoder, weights, hidden, positions)
    return summed(weights, [attended_to(decoder, own, positions, kv, places)])


def queries(
    decoder: Decoder, weights: LayerWeights, hidden: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """The queries (t, q heads of the shard, d) of tokens with these hidden states."""
    flat = functional.linear(normed(hidden), weights.query)
    return rotated(flat.unflatten(-1, (-1, decoder.head_dim)), positions)


def attended_to(
    decoder: Decoder,
    queries: torch.Tensor,
    positions: torch.Tensor,
    kv: torch.Tensor,
    places: torch.Tensor,
) -> PartialAttention:
    """Attention of queries at `positions` to the tokens at `places`, whose KV is (2, kv heads, n, d)."""
    keys, values = kv.to(torch.float32)
    return attended(queries, keys, values, positions, places, decoder.window)


def summed(weights: LayerWeights, blocks: Sequence[PartialAttention]) -> torch.Tensor:
    """What the shard's heads add to the hidden states after attention to all blocks of KV."""
    return functional.linear(merged(blocks), weights.output)


def mlp(weights: LayerWeights, hidden: torch.Tensor) -> torch.Tensor:
    """What the shard's part of the MLP adds to the hidden states."""
    return fed_forward(normed(hidden), *weights.mlp)


def logits(weights: Weights, hidden: torch.Tensor) -> torch.Tensor:
    """The logits of the token after one with this hidden state (hidden)."""
    return functional.linear(normed(hidden), weights.logits)


class Routed(NamedTuple):
    """The inputs (t, hidden) of a sparse layer, the experts (t, top_k) and how much each visit counts."""

    inputs: torch.Tensor
    experts: torch.Tensor
    shares: torch.Tensor


def routed(
    decoder: Decoder, weights: LayerWeights, layer: int, hidden: torch.Tensor, positions: torch.Tensor
) -> Routed:
    inputs = normed(hidden)
    experts = visited(decoder, layer, positions)
    scores = functional.linear(inputs, weights.router)
    return Routed(inputs, experts, scores.gather(1, experts).softmax(-1))


def expert_outputs(weights: LayerWeights, inputs: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """What each expert of `experts` (v) makes of its row of `inputs` (v, hidden)."""
    outputs = torch.empty_like(inputs)
    for expert in experts.unique().tolist():
        mine = experts == expert
        outputs[mine] = _fed(inputs[mine], weights.expert(expert))
    return outputs


def weighed(chosen: Routed, outputs: torch.Tensor) -> torch.Tensor:
    """The sum over each token's visits, given what came of them (t * top_k, hidden), token by token."""
    return torch.einsum("tk,tkh->th", chosen.shares, outputs.unflatten(0, chosen.shares.shape))


def shared_output(decoder: Decoder, weights: LayerWeights, inputs: torch.Tensor) -> torch.Tensor:
    """What the shared expert makes of `inputs`; zeros if there is none."""
    return _fed(inputs, weights.shared) if decoder.shared_ffn else torch.zeros_like(inputs)


def _fed(inputs: torch.Tensor, feed: Feed) -> torch.Tensor:
    return fed_forward(inputs, *feed)

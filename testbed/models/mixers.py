"""What each layer of a model has to mix tokens: attention or a state, its bytes, weights and FLOPs.

A FLOP is a multiplication or an addition, so a matrix of n weights costs 2 n FLOPs per token.
"""

import math
from functools import lru_cache

from testbed.models.shape import Attention, Mixer, ModelShape, Recurrent


@lru_cache(maxsize=64)
def mixers(model: ModelShape) -> tuple[Mixer, ...]:
    """The different mixers of a model. The first is that of all layers but `other_layers`."""
    return (model.attention, *(other.mixer for other in model.other_layers))


@lru_cache(maxsize=64)
def mixer_numbers(model: ModelShape) -> tuple[int, ...]:
    """For each layer, which of `mixers` it has."""
    numbers = [0] * model.layers
    for number, other in enumerate(model.other_layers, start=1):
        for layer in other.layers:
            numbers[layer] = number
    return tuple(numbers)


def mixer_of(model: ModelShape, layer: int) -> Mixer:
    return mixers(model)[mixer_numbers(model)[layer]]


@lru_cache(maxsize=64)
def layers_that_send(model: ModelShape) -> tuple[int, int]:
    """How many layers keep, and so send, KV of their own, and how many a state."""
    own = [mixer_of(model, layer) for layer in range(model.layers)]
    return sum(kept_bytes(model, mixer) > 0 for mixer in own), sum(state_bytes(mixer) > 0 for mixer in own)


def kv_source(model: ModelShape, layer: int) -> int:
    """The layer whose KV `layer` uses: itself, or the last one before it that keeps KV of that shape."""
    mixer = mixer_of(model, layer)
    if not isinstance(mixer, Attention) or not mixer.shares_kv:
        return layer
    for earlier in reversed(range(layer)):
        other = mixer_of(model, earlier)
        if isinstance(other, Attention) and not other.shares_kv and other.window == mixer.window:
            return earlier
    raise ValueError(f"no layer before layer {layer} of {model.name} has the KV that it uses")


def attended_bytes(model: ModelShape, mixer: Mixer) -> int:
    """Bytes of KV of one token that a layer attends to, over all KV heads, whichever layer keeps it.

    With latent attention: the latent, and the part of the keys with a position, which all heads share. Index
    keys are KV too. A layer with a state has none.
    """
    if isinstance(mixer, Recurrent):
        return 0
    if mixer.latent is not None:
        elements = mixer.latent.kv_rank + mixer.latent.rope_dim
    else:
        elements = mixer.kv_heads * (mixer.head_dim + mixer.v_dim)
    return math.ceil(elements * model.kv_element_bytes) + _index_bytes(mixer)


def _index_bytes(mixer: Attention) -> int:
    return 0 if mixer.index is None else mixer.index.key_bytes


def kept_bytes(model: ModelShape, mixer: Mixer) -> int:
    """Bytes of KV of one token that a layer keeps, and that S1 and S3 send for it."""
    if isinstance(mixer, Attention) and mixer.shares_kv:
        return 0
    return attended_bytes(model, mixer)


def state_bytes(mixer: Mixer) -> int:
    """Bytes of the state of one request in a layer."""
    return mixer.state_bytes if isinstance(mixer, Recurrent) else 0


def copies(mixer: Mixer, ranks: int) -> int:
    """How many copies of a layer's KV `ranks` tensor-parallel ranks have together.

    With more ranks than KV heads, ranks have copies of a head. Every rank needs a latent whole.
    """
    if isinstance(mixer, Recurrent):
        return 1
    return ranks if mixer.latent is not None else max(1, ranks // mixer.kv_heads)


def share_bytes(mixer: Mixer, size_bytes: int, ways: int) -> int:
    """Bytes that a rank has of `size_bytes` of KV or of a state, if `ways` ranks divide its heads."""
    if isinstance(mixer, Recurrent):
        return size_bytes // ways
    return size_bytes if mixer.latent is not None else size_bytes // min(ways, mixer.kv_heads)


def read_bytes(model: ModelShape, mixer: Mixer, tokens: int) -> int:
    """Bytes of KV that one request with `tokens` earlier tokens reads in a layer for one more token, or of
    its state. Tokens outside a window, or not chosen by an index, are not read."""
    if isinstance(mixer, Recurrent):
        return mixer.state_bytes
    token_bytes = attended_bytes(model, mixer)
    if mixer.index is not None:
        chosen = min(tokens, mixer.index.top_k)
        return chosen * (token_bytes - mixer.index.key_bytes) + tokens * mixer.index.key_bytes
    return (tokens if mixer.window is None else min(tokens, mixer.window)) * token_bytes


def prefix_bytes(model: ModelShape, mixer: Mixer, tokens: int) -> int:
    """Bytes of KV that new tokens of one request read of the `tokens` before them, or of its state.

    All new tokens together read what an index chooses for any of them, which counts as everything.
    """
    if isinstance(mixer, Recurrent):
        return mixer.state_bytes if tokens else 0
    return (tokens if mixer.window is None else min(tokens, mixer.window)) * attended_bytes(model, mixer)


def mixer_weights(model: ModelShape, mixer: Mixer) -> int:
    """Number of weights of a layer's projections: Q, K, V and output, with MLA down and up."""
    if isinstance(mixer, Recurrent):
        return mixer.weights
    output = mixer.q_heads * mixer.v_dim * model.hidden
    gate = output if mixer.output_gate else 0
    latent = mixer.latent
    if latent is None:
        queries = model.hidden * mixer.q_heads * mixer.head_dim
        values = 0 if mixer.keys_are_values else mixer.v_dim
        kv = 0 if mixer.shares_kv else model.hidden * mixer.kv_heads * (mixer.head_dim + values)
        return queries + kv + output + gate
    width = mixer.q_heads * (latent.nope_dim + latent.rope_dim)
    q = latent.q_rank * (model.hidden + width) if latent.q_rank else model.hidden * width
    kv_down = 0 if mixer.shares_kv else model.hidden * (latent.kv_rank + latent.rope_dim)
    kv_up = latent.kv_rank * mixer.q_heads * (latent.nope_dim + latent.v_dim)
    return q + kv_down + kv_up + output + gate + _index_weights(model, mixer)


def _index_weights(model: ModelShape, mixer: Attention) -> int:
    """The projections of index queries (from the latent of the queries), of keys, and of head weights."""
    if mixer.index is None:
        return 0
    latent, index = mixer.latent, mixer.index
    inner = latent.q_rank if latent is not None and latent.q_rank else model.hidden
    return inner * index.heads * index.dim + model.hidden * (index.dim + index.heads)


def mixer_flops_per_token(model: ModelShape, mixer: Mixer) -> int:
    """FLOPs per token and layer besides scores: projections, and the update of a state."""
    further = mixer.flops if isinstance(mixer, Recurrent) else 0
    return 2 * mixer_weights(model, mixer) + further


def mixer_score_flops(mixer: Mixer, *, new_tokens: int, prefix_tokens: int) -> int:
    """FLOPs of causal attention in one layer for `new_tokens` after `prefix_tokens` cached ones.

    A token at position c, counted from one, looks at c keys, or at min(c, w) with a window of w. Per key
    and head this takes 2 FLOPs per element of a key for Q K^T, and 2 per element of a value for the
    weighted sum of V. The sum of c over positions p+1 .. p+n is n p + n (n + 1) / 2. So a reused prefix
    costs no projections, but new tokens still attend to it. An index scores all keys, and attention looks
    at the `top_k` best.
    """
    if isinstance(mixer, Recurrent):
        return 0
    width = mixer.head_dim + mixer.v_dim
    if mixer.latent is not None:
        width = mixer.latent.nope_dim + mixer.latent.rope_dim + mixer.latent.v_dim
    if mixer.index is None:
        return 2 * mixer.q_heads * width * _keys(mixer.window, new_tokens, prefix_tokens)
    chosen = _keys(mixer.index.top_k, new_tokens, prefix_tokens)
    scored = _keys(None, new_tokens, prefix_tokens)
    return 2 * mixer.q_heads * width * chosen + 2 * mixer.index.heads * mixer.index.dim * scored


def _keys(window: int | None, new_tokens: int, prefix_tokens: int) -> int:
    """The sum of min(c, window) over positions c = prefix + 1 .. prefix + new."""
    if window is None:
        window = prefix_tokens + new_tokens
    growing = min(max(window - prefix_tokens, 0), new_tokens)
    return growing * prefix_tokens + growing * (growing + 1) // 2 + (new_tokens - growing) * window

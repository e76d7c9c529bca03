"""The bytes and FLOPs of a decoder layer, computed from a model's shape.

A FLOP is a multiplication or an addition, so a matrix of n weights costs 2 n FLOPs per token. A gated
feed-forward has three matrices of hidden x width, any other has two. A mixture of experts may have two
kinds of layers: sparse ones have a gate and routed experts, dense ones have an MLP.

Embedding, final norm and vocabulary projection are left out, because they are not part of a layer. Norms,
biases, activations and rotary embedding are left out, because they are negligible next to the matrices.
"""

import math

from testbed.models.shape import ModelShape


def is_moe(model: ModelShape) -> bool:
    return model.experts > 0


def is_sparse(model: ModelShape, layer: int) -> bool:
    """Whether `layer` has routed experts, and so a gate and an all-to-all."""
    return is_moe(model) and layer not in model.dense_layers


def layer_kinds(model: ModelShape) -> tuple[tuple[int, ...], ...]:
    """The layers by kind (sparse or dense), each ascending, the kind of layer 0 first."""
    sparse = tuple(layer for layer in range(model.layers) if is_sparse(model, layer))
    dense = tuple(layer for layer in range(model.layers) if not is_sparse(model, layer))
    return tuple(sorted(filter(None, (sparse, dense))))


def kv_bytes_per_token_layer(model: ModelShape) -> int:
    """Bytes of KV of one token in one layer, over all KV heads.

    With latent attention: the latent, and the part of the keys with a position, which all heads share.
    """
    if model.latent is not None:
        elements = model.latent.kv_rank + model.latent.rope_dim
    else:
        elements = 2 * model.kv_heads * model.head_dim
    return math.ceil(elements * model.kv_element_bytes)


def kv_bytes_per_token(model: ModelShape) -> int:
    """Bytes of KV of one token in all layers."""
    return model.layers * kv_bytes_per_token_layer(model)


def kv_copies(model: ModelShape, tp: int) -> int:
    """How often `tp` tensor-parallel ranks together keep the KV of a token.

    With more ranks than KV heads, several have the same head, and every rank has the whole latent of MLA.
    """
    return tp if model.latent is not None else max(1, tp // model.kv_heads)


def activation_bytes_per_token(model: ModelShape) -> int:
    """Bytes of one token's hidden state, which is what an all-reduce reduces per token."""
    return model.hidden * model.bytes_per_element


def all_to_all_bytes_per_token(model: ModelShape) -> int:
    """Bytes of one token in a dispatch, and again in a combine: one copy per chosen expert.

    This is an upper bound: two chosen experts on one rank could share a copy, which is not modelled. Zero
    for a dense model.
    """
    return model.top_k * activation_bytes_per_token(model)


def _attention_weights(model: ModelShape) -> int:
    """Number of weights of the Q, K, V and output projections of one layer (with MLA, down and up)."""
    latent = model.latent
    if latent is None:
        return 2 * model.hidden * model.head_dim * (model.q_heads + model.kv_heads)
    queries = model.q_heads * (latent.nope_dim + latent.rope_dim)
    q = latent.q_rank * (model.hidden + queries) if latent.q_rank else model.hidden * queries
    kv_down = model.hidden * (latent.kv_rank + latent.rope_dim)
    kv_up = latent.kv_rank * model.q_heads * (latent.nope_dim + latent.v_dim)
    output = model.q_heads * latent.v_dim * model.hidden
    return q + kv_down + kv_up + output


def _feed_forward_weights(model: ModelShape, width: int) -> int:
    return (3 if model.gated else 2) * model.hidden * width


def _mlp_weights(model: ModelShape) -> int:
    return _feed_forward_weights(model, model.dense_ffn if is_moe(model) else model.ffn)


def _gate_weights(model: ModelShape) -> int:
    return model.hidden * model.experts


def projection_flops_per_token(model: ModelShape) -> int:
    """FLOPs of the projections of attention (with MLA, down and up), per token and layer."""
    return 2 * _attention_weights(model)


def score_flops(model: ModelShape, *, new_tokens: int, prefix_tokens: int) -> int:
    """FLOPs of causal attention in one layer for `new_tokens` after `prefix_tokens` cached ones.

    A token at position c, counted from one, looks at c keys, or at min(c, w) with a window of w. Per key
    and head this takes 2 FLOPs per element of a key for Q K^T, and 2 per element of a value for the
    weighted sum of V. The sum of c over positions p+1 .. p+n is n p + n (n + 1) / 2. So a reused prefix
    costs no projections, but new tokens still attend to it.
    """
    width = 2 * model.head_dim
    if model.latent is not None:
        width = model.latent.nope_dim + model.latent.rope_dim + model.latent.v_dim
    return 2 * model.q_heads * width * _keys(model.window, new_tokens, prefix_tokens)


def _keys(window: int | None, new_tokens: int, prefix_tokens: int) -> int:
    """The sum of min(c, window) over positions c = prefix + 1 .. prefix + new."""
    if window is None:
        window = prefix_tokens + new_tokens
    growing = min(max(window - prefix_tokens, 0), new_tokens)
    return growing * prefix_tokens + growing * (growing + 1) // 2 + (new_tokens - growing) * window


def gate_flops_per_token(model: ModelShape) -> int:
    """FLOPs of the gate, per token and sparse layer; zero for a dense model."""
    return 2 * _gate_weights(model)


def expert_flops_per_visit(model: ModelShape) -> int:
    """FLOPs of one token in one routed expert of one layer, or in the MLP of a dense model."""
    return 2 * _feed_forward_weights(model, model.ffn)


def mlp_flops_per_token(model: ModelShape) -> int:
    """FLOPs of one token in the MLP of a dense layer; zero if a mixture of experts has no dense layers."""
    return 2 * _mlp_weights(model)


def shared_flops_per_token(model: ModelShape) -> int:
    """FLOPs of one token in the shared expert of a sparse layer; zero without one."""
    return 2 * _feed_forward_weights(model, model.shared_ffn)


def ffn_flops_per_token(model: ModelShape) -> int:
    """FLOPs of a token's feed-forward in one layer.

    A dense model has an MLP; a sparse layer has `top_k` experts per token, the shared expert and the gate.
    """
    if not is_moe(model):
        return mlp_flops_per_token(model)
    visits = model.top_k * expert_flops_per_visit(model)
    return visits + shared_flops_per_token(model) + gate_flops_per_token(model)


def attention_weight_bytes(model: ModelShape) -> int:
    """Bytes of the weights of the attention projections of one layer."""
    return _stored(model, _attention_weights(model))


def mlp_weight_bytes(model: ModelShape) -> int:
    """Bytes of the MLP of one dense layer."""
    return _stored(model, _mlp_weights(model))


def expert_weight_bytes(model: ModelShape) -> int:
    """Bytes of one routed expert of one sparse layer; zero for a dense model."""
    return _stored(model, _feed_forward_weights(model, model.ffn)) if is_moe(model) else 0


def shared_weight_bytes(model: ModelShape) -> int:
    """Bytes of the shared expert of one sparse layer; zero without one."""
    return _stored(model, _feed_forward_weights(model, model.shared_ffn))


def gate_weight_bytes(model: ModelShape) -> int:
    """Bytes of the gate of one sparse layer; zero for a dense model."""
    return _stored(model, _gate_weights(model))


def total_parameters(model: ModelShape) -> int:
    """Number of weights in all layers, without embeddings."""
    return _parameters(model, model.experts)


def active_parameters(model: ModelShape) -> int:
    """Number of weights that one token passes in all layers, without embeddings."""
    return _parameters(model, model.top_k)


def active_parameter_bytes(model: ModelShape) -> int:
    """Bytes of the weights that one token passes in all layers, without embeddings."""
    return _stored(model, active_parameters(model))


def _parameters(model: ModelShape, experts: int) -> int:
    """Number of weights in all layers, with `experts` routed experts in each sparse one."""
    sparse = sum(is_sparse(model, layer) for layer in range(model.layers))
    routed = experts * _feed_forward_weights(model, model.ffn)
    shared = _feed_forward_weights(model, model.shared_ffn)
    return (
        model.layers * _attention_weights(model)
        + sparse * (routed + shared + _gate_weights(model))
        + (model.layers - sparse) * _mlp_weights(model)
    )


def _stored(model: ModelShape, weights: int) -> int:
    return math.ceil(weights * model.weight_bytes)

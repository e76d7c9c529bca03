"""Model shapes, and the bytes and FLOPs of one decoder layer that follow from them.

Shapes are those of the published configurations. `ffn` is the inner width of one expert (MoE) or
of the MLP (dense); every feed-forward here is gated, i.e. three matrices of hidden x ffn. A FLOP
is a multiplication or an addition, so a matrix of n weights costs 2 n FLOPs per token.

Left out, because neither is work of a layer: embedding, final norm and vocabulary projection.
Norms, activations and rotary embedding are left out as negligible next to the matrices.
"""

from testbed.job import ModelShape


def _shape(
    name: str,
    *,
    layers: int,
    hidden: int,
    heads: tuple[int, int],
    ffn: int,
    experts: int = 0,
    top_k: int = 0,
    head_dim: int = 128,
) -> ModelShape:
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        q_heads=heads[0],
        kv_heads=heads[1],
        head_dim=head_dim,
        ffn=ffn,
        experts=experts,
        top_k=top_k,
        bytes_per_element=2,
    )


MODELS: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        _shape("mixtral-8x7b", layers=32, hidden=4096, heads=(32, 8), ffn=14336, experts=8, top_k=2),
        _shape("mixtral-8x22b", layers=56, hidden=6144, heads=(48, 8), ffn=16384, experts=8, top_k=2),
        _shape("llama-3-8b", layers=32, hidden=4096, heads=(32, 8), ffn=14336),
        _shape("llama-3-70b", layers=80, hidden=8192, heads=(64, 8), ffn=28672),
        # Qwen3 states its head_dim; hidden / q_heads would give 64.
        _shape("qwen3-30b-a3b", layers=48, hidden=2048, heads=(32, 4), ffn=768, experts=128, top_k=8),
        _shape("dbrx", layers=40, hidden=6144, heads=(48, 8), ffn=10752, experts=16, top_k=4),
        _shape("grok-1", layers=64, hidden=6144, heads=(48, 8), ffn=32768, experts=8, top_k=2),
    )
}
"""Models by name (as on Hugging Face, lower case, without organisation), 16-bit weights and KV."""


def is_moe(model: ModelShape) -> bool:
    return model.experts > 0


def kv_bytes_per_token_layer(model: ModelShape) -> int:
    """Bytes of K and V that one token leaves behind in one layer, over all KV heads."""
    return 2 * model.kv_heads * model.head_dim * model.bytes_per_element


def kv_bytes_per_token(model: ModelShape) -> int:
    """Bytes of K and V that one token leaves behind in the whole model."""
    return model.layers * kv_bytes_per_token_layer(model)


def activation_bytes_per_token(model: ModelShape) -> int:
    """Bytes of one token's hidden state: what an all-reduce reduces, per token and per call."""
    return model.hidden * model.bytes_per_element


def all_to_all_bytes_per_token(model: ModelShape) -> int:
    """Bytes one token puts into a dispatch (and again into a combine): one copy per chosen expert.

    An upper bound: two chosen experts on one rank could share a copy, which is not modelled.
    Zero for a dense model.
    """
    return model.top_k * activation_bytes_per_token(model)


def _attention_weights(model: ModelShape) -> int:
    """Weights of the Q, K, V and output projections of one layer."""
    return 2 * model.hidden * model.head_dim * (model.q_heads + model.kv_heads)


def _ffn_weights(model: ModelShape) -> int:
    """Weights of one expert, or of the dense MLP, of one layer."""
    return 3 * model.hidden * model.ffn


def projection_flops_per_token(model: ModelShape) -> int:
    """FLOPs of the Q, K, V and output projections, per token and layer."""
    return 2 * _attention_weights(model)


def score_flops(model: ModelShape, *, new_tokens: int, prefix_tokens: int) -> int:
    """FLOPs of causal attention in one layer for `new_tokens` after a cached `prefix_tokens`.

    A token at (one-based) position c looks at c keys: 2 c head_dim FLOPs per head for Q K^T and as
    many for the weighted sum of V. Over positions p+1 .. p+n the sum of c is n p + n (n + 1) / 2:
    a reused prefix costs no projections, but it is still attended to.
    """
    keys = new_tokens * prefix_tokens + new_tokens * (new_tokens + 1) // 2
    return 4 * model.q_heads * model.head_dim * keys


def gate_flops_per_token(model: ModelShape) -> int:
    """FLOPs of choosing a token's experts, per token and layer; zero for a dense model."""
    return 2 * model.hidden * model.experts


def expert_flops_per_visit(model: ModelShape) -> int:
    """FLOPs of one token in one expert, or in the dense MLP, per layer."""
    return 2 * _ffn_weights(model)


def ffn_flops_per_token(model: ModelShape) -> int:
    """FLOPs of a token's feed-forward per layer: its `top_k` experts and the gate, or the MLP."""
    visits = model.top_k if is_moe(model) else 1
    return visits * expert_flops_per_visit(model) + gate_flops_per_token(model)


def active_parameter_bytes(model: ModelShape) -> int:
    """Bytes of the weights that one token passes through in all layers (embeddings left out)."""
    visits = model.top_k if is_moe(model) else 1
    per_layer = _attention_weights(model) + visits * _ffn_weights(model) + model.hidden * model.experts
    return model.layers * per_layer * model.bytes_per_element

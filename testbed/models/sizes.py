"""The bytes and FLOPs of a decoder layer, computed from a model's shape.

A FLOP is a multiplication or an addition, so a matrix of n weights costs 2 n FLOPs per token. A gated
feed-forward has three matrices of hidden x width, any other has two. A mixture of experts may have two
kinds of layers: sparse ones have a gate and routed experts, dense ones have an MLP.

Embedding, final norm and vocabulary projection are left out, because they are not part of a layer. Norms,
biases, activations and rotary embedding are left out, because they are negligible next to the matrices.
"""

import math
from collections.abc import Callable, Iterator

from testbed.models.mixers import (
    copies,
    kept_bytes,
    mixer_flops_per_token,
    mixer_numbers,
    mixer_of,
    mixer_score_flops,
    mixer_weights,
    mixers,
    read_bytes,
    state_bytes,
)
from testbed.models.shape import Mixer, ModelShape


def is_moe(model: ModelShape) -> bool:
    return model.experts > 0


def is_sparse(model: ModelShape, layer: int) -> bool:
    """Whether `layer` has routed experts, and so a gate and an all-to-all."""
    return is_moe(model) and layer not in model.dense_layers and layer not in model.bare_layers


def has_feed_forward(model: ModelShape, layer: int) -> bool:
    """Whether `layer` has experts or an MLP."""
    return layer not in model.bare_layers


def layer_kinds(model: ModelShape) -> tuple[tuple[int, ...], ...]:
    """The layers by kind, each ascending, the kind of layer 0 first.

    Layers of a kind have the same attention or state, and are all sparse, all dense or all bare.
    """
    numbers = mixer_numbers(model)
    kinds: dict[tuple[int, bool, bool], list[int]] = {}
    for layer in range(model.layers):
        kind = numbers[layer], is_sparse(model, layer), has_feed_forward(model, layer)
        kinds.setdefault(kind, []).append(layer)
    return tuple(tuple(layers) for layers in kinds.values())


def kv_bytes_per_token_layer(model: ModelShape, layer: int) -> int:
    """Bytes of KV of one token that `layer` keeps, over all KV heads (`mixers.kept_bytes`)."""
    return kept_bytes(model, mixer_of(model, layer))


def kv_bytes_per_token(model: ModelShape, tp: int = 1) -> int:
    """Bytes of KV of one token in all layers, as `tp` tensor-parallel ranks keep it, with their copies."""
    return sum(_by_layers(model, lambda mixer: kept_bytes(model, mixer) * copies(mixer, tp)))


def context_read_bytes(model: ModelShape, tokens: int, tp: int = 1) -> int:
    """Bytes of KV and states that one more token after `tokens` reads in all layers.

    Each of `tp` tensor-parallel ranks reads all that it keeps, so copies count.
    """
    return sum(_by_layers(model, lambda mixer: read_bytes(model, mixer, tokens) * copies(mixer, tp)))


def state_bytes_per_request(model: ModelShape) -> int:
    """Bytes of the states of one request in all layers; 0 if all layers have KV."""
    return sum(_by_layers(model, state_bytes))


def _by_layers(model: ModelShape, value: Callable[[Mixer], int]) -> Iterator[int]:
    """The value of each kind of mixer, times its layers."""
    numbers = mixer_numbers(model)
    for number, mixer in enumerate(mixers(model)):
        if count := numbers.count(number):
            yield count * value(mixer)


def activation_bytes_per_token(model: ModelShape) -> int:
    """Bytes of one token's hidden state, which is what an all-reduce reduces per token."""
    return model.hidden * model.bytes_per_element


def all_to_all_bytes_per_token(model: ModelShape) -> int:
    """Bytes of one token in a dispatch, and again in a combine: one copy per chosen expert.

    This is an upper bound: two chosen experts on one rank could share a copy, which is not modelled. Zero
    for a dense model.
    """
    return model.top_k * (model.expert_hidden or model.hidden) * model.bytes_per_element


def _feed_forward_weights(model: ModelShape, width: int) -> int:
    return (3 if model.gated else 2) * model.hidden * width


def _expert_weights(model: ModelShape) -> int:
    """Weights of a routed expert, or of the MLP of a dense model."""
    return (3 if model.gated else 2) * (model.expert_hidden or model.hidden) * model.ffn


def _shared_weights(model: ModelShape) -> int:
    """Weights of what every token passes in a sparse layer beside its routed experts."""
    return _feed_forward_weights(model, model.shared_ffn) + 2 * model.hidden * model.expert_hidden


def _mlp_weights(model: ModelShape) -> int:
    return _feed_forward_weights(model, model.dense_ffn if is_moe(model) else model.ffn)


def _gate_weights(model: ModelShape) -> int:
    return model.hidden * model.experts


def projection_flops_per_token(model: ModelShape, layer: int) -> int:
    """FLOPs per token of the projections of `layer` (with MLA, down and up), and of updating a state."""
    return mixer_flops_per_token(model, mixer_of(model, layer))


def score_flops(model: ModelShape, layer: int, *, new_tokens: int, prefix_tokens: int) -> int:
    """FLOPs of causal attention in `layer`, as in `mixers.mixer_score_flops`."""
    return mixer_score_flops(mixer_of(model, layer), new_tokens=new_tokens, prefix_tokens=prefix_tokens)


def gate_flops_per_token(model: ModelShape) -> int:
    """FLOPs of the gate, per token and sparse layer; zero for a dense model."""
    return 2 * _gate_weights(model)


def expert_flops_per_visit(model: ModelShape) -> int:
    """FLOPs of one token in one routed expert of one layer, or in the MLP of a dense model."""
    return 2 * _expert_weights(model)


def mlp_flops_per_token(model: ModelShape) -> int:
    """FLOPs of one token in the MLP of a dense layer; zero if a mixture of experts has no dense layers."""
    return 2 * _mlp_weights(model)


def shared_flops_per_token(model: ModelShape) -> int:
    """FLOPs of one token in the shared expert of a sparse layer, and in projections to and from a narrower
    hidden state; zero without these."""
    return 2 * _shared_weights(model)


def ffn_flops_per_token(model: ModelShape) -> int:
    """FLOPs of a token's feed-forward in one layer.

    A dense model has an MLP; a sparse layer has `top_k` experts per token, the shared expert and the gate.
    """
    if not is_moe(model):
        return mlp_flops_per_token(model)
    visits = model.top_k * expert_flops_per_visit(model)
    return visits + shared_flops_per_token(model) + gate_flops_per_token(model)


def attention_weight_bytes(model: ModelShape, layer: int) -> int:
    """Bytes of the weights of the projections of attention in `layer`, or of a layer with a state."""
    return _stored(model, mixer_weights(model, mixer_of(model, layer)))


def mlp_weight_bytes(model: ModelShape) -> int:
    """Bytes of the MLP of one dense layer."""
    return _stored(model, _mlp_weights(model))


def expert_weight_bytes(model: ModelShape) -> int:
    """Bytes of one routed expert of one sparse layer; zero for a dense model."""
    return math.ceil(_expert_weights(model) * _expert_bytes(model)) if is_moe(model) else 0


def shared_weight_bytes(model: ModelShape) -> int:
    """Bytes of the shared expert of one sparse layer, and of projections to and from a narrower hidden
    state; zero without these."""
    return _stored(model, _shared_weights(model))


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
    routed = _sparse_layers(model) * model.top_k * _expert_weights(model)
    return math.ceil((active_parameters(model) - routed) * model.weight_bytes + routed * _expert_bytes(model))


def _parameters(model: ModelShape, experts: int) -> int:
    """Number of weights in all layers, with `experts` routed experts in each sparse one."""
    sparse = _sparse_layers(model)
    routed = experts * _expert_weights(model)
    shared = _shared_weights(model)
    return (
        sum(_by_layers(model, lambda mixer: mixer_weights(model, mixer)))
        + sparse * (routed + shared + _gate_weights(model))
        + (model.layers - sparse - len(model.bare_layers)) * _mlp_weights(model)
    )


def _sparse_layers(model: ModelShape) -> int:
    return model.layers - len(model.dense_layers) - len(model.bare_layers) if is_moe(model) else 0


def _expert_bytes(model: ModelShape) -> float:
    return model.weight_bytes if model.expert_bytes is None else model.expert_bytes


def _stored(model: ModelShape, weights: int) -> int:
    return math.ceil(weights * model.weight_bytes)

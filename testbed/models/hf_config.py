"""A model's shape from a Hugging Face `config.json`, of any decoder-only family.

Families have different names for a size, but seldom mean different things. So the shape is read from the
keys that are present, whatever the family. What no key says, such as an ungated feed-forward or a default
of the family's class, is in the tables below.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.models.hf_precision import element_bytes, kv_element_bytes, weight_bytes
from testbed.models.hf_reading import ConfigError, Reader
from testbed.models.shape import LatentAttention, ModelShape

__all__ = ["ConfigError", "shape_from_config"]

_INSIDE = ("text_config", "llm_config", "language_config", "attn_config", "ffn_config")
"""Keys that hold the decoder of a model of several parts, or the parts of a layer of DBRX."""

_UNGATED = (
    *("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt"),
    *("nemotron", "opt", "persimmon", "phi", "starcoder2", "xglm"),
)
"""Families whose feed-forward has two matrices, not three."""

_ALTERNATING = ("cohere2", "gemma2", "gemma3", "gpt_oss", "llama4")
"""Families in which only some layers have a window, even if the file does not list them."""

_CLASS_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256},
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
    "qwen3": {"head_dim": 128},
}
"""Defaults of a family's class in `transformers` that its files leave out and no other key implies."""

_ENCODERS = (
    "albert",
    "bert",
    "clip",
    "deberta",
    "distilbert",
    "electra",
    "modernbert",
    "roberta",
    "siglip",
    "vit",
)

_OTHER_LAYERS = (
    "mamba",
    "ssm_",
    "linear_num_",
    "linear_conv_",
    "rwkv",
    "attn_layer_",
    "full_attention_interval",
    "hybrid_",
    "lru_width",
)
"""Prefixes of keys that show that not every layer is attention with a KV cache."""

_MOST_LAYERS = 1000
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads", "n_head_kv", "multi_query_group_num")
_HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels")
_FFN = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_EXPERT_FFN = ("moe_intermediate_size", "expert_ffn_hidden_size")
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
_TOP_K = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "moe_top_k",
    "moe_topk",
    "moe_k",
)
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_SHARED_FFN = ("shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim")


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """Return the shape of the decoder that `config`, the content of a `config.json`, describes.

    The number of KV heads defaults to the query heads, and the width of a head to hidden size / heads.
    Elements take 2 bytes, even if the file says float32 (`hf_precision`); weights and cached KV may take
    fewer by `quantization_config`. A window counts only if all layers have it. A model that mixes windows
    with full attention is treated as full attention, so its attention FLOPs are an upper bound. Layers for
    multi-token prediction are left out, because they are not part of prefill.

    Raises `ConfigError`, naming the key, for a model that is not a decoder or has other layers than
    attention with a KV cache, for a missing size, and for sizes that are impossible.
    """
    model = Reader(_flattened(config))
    family = str(model.get("model_type") or "")
    model = Reader({**_CLASS_DEFAULTS.get(family, {}), **model.keys_with_values()})
    _refuse_what_is_no_decoder(model, family)
    layers, hidden, heads = model.size(_LAYERS), model.size(_HIDDEN), model.size(_HEADS)
    if layers > _MOST_LAYERS:
        raise ConfigError(f"{model.named(_LAYERS)}: {layers} layers are more than any model has")
    model.size(("num_attention_heads_per_layer",), default=heads)  # refuses heads that differ
    latent = _latent(model)
    kv_heads = heads if latent else _kv_heads(model, heads)
    experts = model.count(_EXPERTS)
    dense = _dense_layers(model, layers) if experts else ()
    if len(dense) == layers:
        raise ConfigError(f"{model.named(_EXPERTS)}: {experts} experts, but no layer has any")
    expert_ffn = _expert_ffn(model, hidden, family) if experts else 0
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        q_heads=heads,
        kv_heads=kv_heads,
        head_dim=latent.nope_dim + latent.rope_dim if latent else _head_dim(model, hidden, heads),
        ffn=expert_ffn or _ffn(model, hidden, family),
        experts=experts,
        top_k=_top_k(model, experts) if experts else 0,
        bytes_per_element=element_bytes(model),
        dense_layers=dense,
        dense_ffn=_dense_ffn(model, hidden, family) if dense else 0,
        shared_ffn=_shared_ffn(model, expert_ffn) if experts else 0,
        latent=latent,
        window=_window(model, family),
        gated=_gated(model, family),
        kv_element_bytes=kv_element_bytes(model),
        weight_bytes=weight_bytes(model),
    )


def _flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the file and of its decoder part in one mapping. Inner keys replace outer ones."""
    keys = dict(config)
    for name in _INSIDE:
        inner = config.get(name)
        if isinstance(inner, Mapping):
            keys |= {key: value for key, value in _flattened(inner).items() if value not in (None, "")}
    return keys


def _refuse_what_is_no_decoder(model: Reader, family: str) -> None:
    if model.get("is_encoder_decoder") is True:
        raise ConfigError("is_encoder_decoder: this model has an encoder; only decoders are modelled")
    if family in _ENCODERS or family.endswith(("-bert", "_bert", "bert", "-roberta")):
        raise ConfigError(f"model_type: {family!r} is an encoder; only decoders are modelled")
    for key, value in model.keys_with_values().items():
        if key.startswith(_OTHER_LAYERS) and value is not False:
            raise ConfigError(f"{key}: not every layer of this model is attention with a KV cache")
    if isinstance(kinds := model.get("attn_type_list"), list) and 0 in kinds:
        raise ConfigError("attn_type_list: not every layer of this model is attention with a KV cache")
    for kind in _layer_types(model):
        if "attention" not in kind or "linear" in kind:
            raise ConfigError(f"layer_types: {kind!r} is not attention with a KV cache")


def _layer_types(model: Reader) -> Sequence[str]:
    kinds = model.get("layer_types") or ()
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else ()


def _latent(model: Reader) -> LatentAttention | None:
    if model.get("kv_lora_rank") is None:
        return None
    return LatentAttention(
        q_rank=model.count(("q_lora_rank",)),
        kv_rank=model.size(("kv_lora_rank",)),
        nope_dim=model.size(("qk_nope_head_dim",)),
        rope_dim=model.size(("qk_rope_head_dim",)),
        v_dim=model.size(("v_head_dim",)),
    )


def _kv_heads(model: Reader, heads: int) -> int:
    if model.get("multi_query") is True and model.get("new_decoder_architecture") is not True:
        return 1
    # Falcon states its KV heads, and ChatGLM its groups, even if a switch turns them off.
    named: tuple[str, ...] = _KV_HEADS
    if model.get("new_decoder_architecture") is False:
        named = ()
    if model.get("multi_query_attention") is False:
        named = tuple(key for key in named if key != "multi_query_group_num")
    kv_heads = model.size(named, default=heads)
    if heads % kv_heads:
        raise ConfigError(f"{model.named(_KV_HEADS)}: {kv_heads} KV heads do not divide {heads} query heads")
    return kv_heads


def _head_dim(model: Reader, hidden: int, heads: int) -> int:
    if model.named(_HEAD_DIM, default="") == "" and hidden % heads:
        key = model.named(_HEADS)
        raise ConfigError(
            f"{key}: {heads} heads do not divide a hidden size of {hidden}, and head_dim is missing"
        )
    return model.size(_HEAD_DIM, default=hidden // heads)


def _ffn(model: Reader, hidden: int, family: str) -> int:
    """The inner width of a dense MLP; 4 x hidden size by default if ungated or with the keys of GPT-2."""
    if (ratio := model.get("expansion_ratio")) is not None and isinstance(ratio, int):
        return ratio * hidden
    default = 4 * hidden if family in _UNGATED or model.get("n_embd") is not None else None
    return model.size(_FFN, default=default)


def _expert_ffn(model: Reader, hidden: int, family: str) -> int:
    return model.size(_EXPERT_FFN, default=0) or _ffn(model, hidden, family)


def _dense_ffn(model: Reader, hidden: int, family: str) -> int:
    """The inner width of a layer without routed experts, for which some families have a separate key."""
    return model.size(("intermediate_size_mlp", "dense_intermediate_size"), default=0) or _ffn(
        model, hidden, family
    )


def _top_k(model: Reader, experts: int) -> int:
    top_k = model.size(_TOP_K)
    if top_k > experts:
        raise ConfigError(f"{model.named(_TOP_K)}: a token cannot choose {top_k} of {experts} experts")
    return top_k


def _shared_ffn(model: Reader, expert_ffn: int) -> int:
    """The width of all shared experts together."""
    if model.get("intermediate_size_mlp") is not None:
        return expert_ffn  # Llama 4 has one in every sparse layer, as wide as a routed one
    return model.count(_SHARED_FFN) or model.count(_SHARED) * expert_ffn


def _dense_layers(model: Reader, layers: int) -> tuple[int, ...]:
    """The layers without routed experts, in whichever of the several ways the file states them."""
    every = range(layers)
    if isinstance(kinds := model.get("mlp_layer_types"), list):
        if len(kinds) != layers or set(kinds) - {"dense", "sparse"}:
            raise ConfigError(f"mlp_layer_types: needs dense or sparse for each of {layers} layers")
        return tuple(layer for layer in every if kinds[layer] == "dense")
    if isinstance(model.get("moe_layers"), list):
        sparse = set(model.indices("moe_layers", layers))
        return tuple(layer for layer in every if layer not in sparse)
    if isinstance(model.get("moe_layer_freq"), list):
        flags = model.get("moe_layer_freq")
        if len(flags) != layers:
            raise ConfigError(f"moe_layer_freq: {len(flags)} entries for {layers} layers")
        return tuple(layer for layer in every if not flags[layer])
    first = model.count(("first_k_dense_replace", "moe_layer_start_index"))
    last = model.size(("moe_layer_end_index",), default=layers - 1, least=-1)
    frequency = model.size(("moe_layer_freq",), default=1)
    # These three count layers from one: every `step`-th layer is sparse.
    step = model.size(("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval"), default=1)
    only_mlp = model.indices("mlp_only_layers", layers)
    return tuple(
        layer
        for layer in every
        if layer < first
        or (last >= 0 and layer > last)
        or layer % frequency
        or (layer + 1) % step
        or layer in only_mlp
    )


def _window(model: Reader, family: str) -> int | None:
    """The window of all layers, in tokens; None if some layers have full attention."""
    if model.get("sliding_window") is None or model.get("use_sliding_window") is False:
        return None
    kinds = _layer_types(model)
    if kinds:
        return model.size(("sliding_window",)) if set(kinds) == {"sliding_attention"} else None
    if family.startswith(_ALTERNATING) or model.count(("sliding_window_pattern",)) > 1:
        return None
    # In Qwen2 only the layers from this one on have the window.
    if model.get("use_sliding_window") is True and model.count(("max_window_layers",)) > 0:
        return None
    return model.size(("sliding_window",))


def _gated(model: Reader, family: str) -> bool:
    activation = str(model.get("hidden_act") or model.get("activation_function") or "")
    return not (family in _UNGATED or model.get("n_embd") is not None or activation in ("relu", "relu2"))

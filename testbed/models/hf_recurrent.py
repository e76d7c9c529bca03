"""Layers of a `config.json` that keep a state instead of KV: their weights, FLOPs and states.

A state is a matrix of keys times values in each head, kept in 32 bits unless the file says otherwise, and the
last inputs of a short convolution, kept in 16 bits. To update and read a matrix of n elements takes 4 n FLOPs
per token, and 6 n with the delta rule, which first reads what it replaces (Yang et al., "Parallelizing Linear
Transformers with the Delta Rule", 2024). Convolutions, norms and activations are left out.
"""

from collections.abc import Mapping
from typing import Any

from testbed.models.hf_families import RECURRENT
from testbed.models.hf_reading import ConfigError, Reader
from testbed.models.shape import Recurrent

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_CONVOLUTION_BYTES = 2


def recurrent_layer(model: Reader, family: str, hidden: int, heads: int, head_dim: int) -> Recurrent:
    """Return what the layers without KV are. Raises `ConfigError` for a kind that is not modelled.

    `heads` and `head_dim` are those of the layers with attention.
    """
    match _kind(model, family):
        case "delta":
            return _delta(model, hidden)
        case "kda":
            return _kda(model, hidden)
        case "lightning":
            return _made("linear attention", model, heads, 5 * hidden * heads * head_dim, heads * head_dim**2)
        case "mamba1":
            return _mamba1(model, hidden)
        case "mamba2":
            return _mamba2(model, hidden)
        case "conv":
            return _conv(model, hidden)
    raise ConfigError(f"model_type: the layers without KV of {family!r} are not modelled")


def _kind(model: Reader, family: str) -> str:
    if family in RECURRENT:
        return RECURRENT[family]
    if model.get("linear_attn_config") is not None:
        return "kda"
    if model.get("linear_num_value_heads") is not None:
        return "delta"
    if model.get("mamba_n_heads") is not None or model.get("mamba_num_heads") is not None:
        return "mamba2"
    return "mamba1" if model.get("mamba_d_state") is not None else ""


def _made(
    kind: str,
    model: Reader,
    heads: int,
    weights: int,
    state: int,
    *,
    convolution: int = 0,
    flops: int = 4,
) -> Recurrent:
    """A layer with a state of `state` elements, `flops` per element and token, and `convolution` inputs."""
    given = model.word("mamba_ssm_dtype") or model.word("mamba_ssm_cache_dtype") or "float32"
    if given not in _BYTES:
        raise ConfigError(f"mamba_ssm_dtype: {given!r} is not one of {', '.join(_BYTES)}")
    return Recurrent(
        kind=kind,
        heads=heads,
        weights=weights,
        flops=flops * state,
        state_bytes=_BYTES[given] * state + _CONVOLUTION_BYTES * convolution,
    )


def _delta(model: Reader, hidden: int) -> Recurrent:
    """Gated DeltaNet: projections of queries, keys, values and a gate, and two numbers per value head."""
    key_heads = model.size(("linear_num_key_heads",))
    value_heads = model.size(("linear_num_value_heads",))
    key_dim, value_dim = model.size(("linear_key_head_dim",)), model.size(("linear_value_head_dim",))
    keys, values = key_heads * key_dim, value_heads * value_dim
    kernel = model.size(("linear_conv_kernel_dim",))
    return _made(
        "linear attention",
        model,
        min(key_heads, value_heads),
        hidden * (2 * keys + 2 * values + 2 * value_heads) + values * hidden,
        value_heads * key_dim * value_dim,
        convolution=(2 * keys + values) * (kernel - 1),
        flops=6,
    )


def _kda(model: Reader, hidden: int) -> Recurrent:
    """Kimi Delta Attention: queries, keys and values, a gate and a decay of low rank, one number per head."""
    inner: Any = model.get("linear_attn_config")
    if isinstance(inner, Mapping):
        part = Reader({f"linear_attn_config.{key}": value for key, value in inner.items()})
        names = [f"linear_attn_config.{key}" for key in ("num_heads", "head_dim", "short_conv_kernel_size")]
        heads, dim, kernel = (part.size((name,)) for name in names)
    else:
        names = ["linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim"]
        heads, dim, kernel = (model.size((name,)) for name in names)
    width = heads * dim
    return _made(
        "linear attention",
        model,
        heads,
        4 * hidden * width + 2 * (hidden * dim + dim * width) + hidden * heads,
        heads * dim * dim,
        convolution=3 * width * (kernel - 1),
        flops=6,
    )


def _mamba1(model: Reader, hidden: int) -> Recurrent:
    inner = model.size(("mamba_expand",)) * hidden
    state, kernel = model.size(("mamba_d_state",)), model.size(("mamba_d_conv",))
    rank = -(-hidden // 16)
    if model.get("mamba_dt_rank") not in (None, "auto"):
        rank = model.size(("mamba_dt_rank",))
    return _made(
        "Mamba",
        model,
        inner,
        3 * hidden * inner + inner * (rank + 2 * state) + rank * inner,
        inner * state,
        convolution=inner * (kernel - 1),
    )


def _mamba2(model: Reader, hidden: int) -> Recurrent:
    heads = model.size(("mamba_n_heads", "mamba_num_heads"))
    state = model.size(("mamba_d_state", "ssm_state_size"))
    width = ("mamba_d_head", "mamba_head_dim")
    expanded = model.size(("mamba_expand",), default=0) * hidden
    inner = expanded
    if model.named(width, default="") and model.get("mamba_d_head") != "auto":
        inner = heads * model.size(width)
    if not inner or (expanded and expanded != inner):
        raise ConfigError("mamba_d_head: times the number of heads is not mamba_expand times the hidden size")
    model.ask("expand", "time_step_rank")  # Nemotron-H states them, but its widths follow from the heads
    groups = model.size(("mamba_n_groups", "n_groups"), default=1)
    kernel = model.size(("mamba_d_conv", "conv_kernel"))
    return _made(
        "Mamba",
        model,
        heads,
        hidden * (2 * inner + 2 * groups * state + heads) + inner * hidden,
        inner * state,
        convolution=(inner + 2 * groups * state) * (kernel - 1),
    )


def _conv(model: Reader, hidden: int) -> Recurrent:
    """LFM2: a gated short convolution over the hidden state, which keeps its last inputs."""
    for key in ("conv_dim", "conv_dim_out"):
        if model.size((key,), default=hidden) != hidden:
            raise ConfigError(f"{key}: a convolution of another width than the hidden state is not modelled")
    kept = hidden * (model.size(("conv_L_cache",)) - 1)
    return Recurrent(
        kind="convolution",
        heads=hidden,
        weights=4 * hidden * hidden,
        flops=0,
        state_bytes=_CONVOLUTION_BYTES * kept,
    )

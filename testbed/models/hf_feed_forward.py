"""The feed-forward of the layers of a `config.json`: its width, experts, and layers without experts."""

from typing import Any

import msgspec

from testbed.models.hf_blocks import Blocks
from testbed.models.hf_families import GATED, TWO_WIDTHS, UNGATED
from testbed.models.hf_names import (
    ALL_OF_EXPERTS,
    DENSE_FFN,
    EXPANSION,
    EXPERT_FFN,
    EXPERT_HIDDEN,
    EXPERTS,
    FFN,
    FIRST_DENSE,
    LAST_SPARSE,
    SHARED,
    SHARED_FFN,
    SPARSE_STEP,
    TOP_K,
)
from testbed.models.hf_reading import ConfigError, Reader


class FeedForward(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `ModelShape` about the feed-forward."""

    ffn: int
    gated: bool
    experts: int = 0
    top_k: int = 0
    dense_layers: tuple[int, ...] = ()
    dense_ffn: int = 0
    bare_layers: tuple[int, ...] = ()
    shared_ffn: int = 0
    expert_hidden: int = 0


def feed_forward(model: Reader, family: str, hidden: int, layers: int, blocks: Blocks | None) -> FeedForward:
    """Return the feed-forward of all layers, of which `blocks` may say which have which.

    Raises `ConfigError` for a missing or impossible size.
    """
    bare = () if blocks is None else blocks.bare
    gated = _gated(model, family)
    experts = model.count(EXPERTS)
    off = any(model.flag(key) is False for key in ("use_moe", "is_moe", "enable_moe"))
    if off or not experts:
        if off or model.named(EXPERTS, default=""):  # what else is said of experts means nothing
            model.ask(*ALL_OF_EXPERTS)
        if blocks is not None and set(range(layers)) - {*blocks.dense, *blocks.bare}:
            raise ConfigError(f"{EXPERTS[0]}: missing, and there are blocks of experts")
        return FeedForward(ffn=_dense_width(model, hidden, family), gated=gated, bare_layers=bare)
    top_k = model.size(TOP_K)
    if top_k > experts:
        raise ConfigError(f"{model.named(TOP_K)}: a token cannot choose {top_k} of {experts} experts")
    dense = _dense_layers(model, layers) if blocks is None else blocks.dense
    if len(dense) + len(bare) == layers:
        raise ConfigError(f"{model.named(EXPERTS)}: {experts} experts, but no layer has any")
    width = model.size(EXPERT_FFN, default=0) or _ffn(model, hidden, family)
    shared = _shared_ffn(model, hidden, family, width)
    model.ask(*FFN, *DENSE_FFN)
    plain = not (shared or dense or bare or model.count(EXPERT_HIDDEN))
    if experts == 1 and plain:  # Hunyuan calls an MLP one expert
        return FeedForward(ffn=width, gated=gated)
    return FeedForward(
        ffn=width,
        gated=gated,
        experts=experts,
        top_k=top_k,
        dense_layers=dense,
        dense_ffn=_dense_ffn(model, hidden, family) if dense else 0,
        bare_layers=bare,
        shared_ffn=shared,
        expert_hidden=model.count(EXPERT_HIDDEN),
    )


def _gated(model: Reader, family: str) -> bool:
    keys = ("hidden_act", "hidden_activation", "activation_function", "activation", "mlp_hidden_act")
    activations = {model.word(key) for key in keys}
    if family in GATED or any("glu" in activation for activation in activations if activation):
        return True
    if model.flag("use_gated_activation") is False or model.flag("block_use_swiglu") is False:
        return False
    ungated = family in UNGATED or model.get("n_embd") is not None
    return not (ungated or activations & {"relu", "relu2", "xielu"})


def _ffn(model: Reader, hidden: int, family: str) -> int:
    """The inner width of a dense MLP; 4 x hidden size by default if ungated or with the keys of GPT-2."""
    if (ratio := model.count(EXPANSION)) > 0:
        width = ratio * hidden
        if model.size(FFN, default=width) != width:
            key = model.named(EXPANSION)
            raise ConfigError(f"{key}: {ratio} x {hidden}, but {model.named(FFN)} is not that")
        return width
    default = 4 * hidden if family in UNGATED or model.get("n_embd") is not None else None
    width = model.size(FFN, default=default)
    return width // 2 if family in TWO_WIDTHS else width


def _dense_width(model: Reader, hidden: int, family: str) -> int:
    """The width of the MLP of a model without experts."""
    if model.named(EXPERTS, default="") and (shared := model.count(SHARED_FFN)):
        model.ask(*FFN)  # Granite 4 without experts has its shared MLP only
        return shared
    if model.flag("block_auto_adjust_ff_dim") is True:
        return _adjusted(model, hidden, family)
    model.ask("block_multiple_of", "block_ffn_dim_multiplier", "block_ff_dim")
    return _ffn(model, hidden, family)


def _adjusted(model: Reader, hidden: int, family: str) -> int:
    """LFM2: two thirds of the stated width, times a factor, rounded up to a multiple."""
    stated = model.size(("block_ff_dim",), default=0) or _ffn(model, hidden, family)
    model.ask(*FFN)
    factor: Any = model.get("block_ffn_dim_multiplier")
    width = int(2 * stated / 3)
    if isinstance(factor, int | float):
        width = int(factor * width)
    multiple = model.size(("block_multiple_of",), default=1)
    return -(-width // multiple) * multiple


def _dense_ffn(model: Reader, hidden: int, family: str) -> int:
    """The inner width of a layer without routed experts, for which some families have a separate key."""
    return model.size(DENSE_FFN, default=0) or _ffn(model, hidden, family)


def _shared_ffn(model: Reader, hidden: int, family: str, expert_ffn: int) -> int:
    """The width of everything that each token passes beside its routed experts."""
    if model.get("intermediate_size_mlp") is not None:
        return expert_ffn  # Llama 4 has one in every sparse layer, as wide as a routed one
    width = model.count(SHARED_FFN)
    number = model.count(SHARED)
    if model.flag("use_mixed_mlp_moe") is False:
        width = number = 0  # Hunyuan states a number even if a switch turns them off
    if width and number > 1 and width not in (expert_ffn, number * expert_ffn):
        raise ConfigError(
            f"{model.named(SHARED_FFN)}: {width} may be the width of one or of all of {number} shared experts"
        )
    beside = width or number * expert_ffn
    if width and number > 1 and width == expert_ffn:
        beside = number * expert_ffn  # the width is that of one of them
    if model.flag("residual_moe") is True or model.flag("enable_moe_block") is True:
        beside += _ffn(model, hidden, family)  # an MLP beside the experts: Grok-2, Gemma 4
    if model.flag("use_residual") is True or model.flag("parallel_attn_mlp_res") is True:
        if model.flag("use_residual") is not model.flag("parallel_attn_mlp_res"):
            raise ConfigError(
                "use_residual: without parallel_attn_mlp_res, or it without this, is not modelled"
            )
        beside += hidden  # Arctic: an MLP as wide as the hidden state
    return beside


def _dense_layers(model: Reader, layers: int) -> tuple[int, ...]:
    """The layers without routed experts, in whichever of the several ways the file states them."""
    every = range(layers)
    ways = [
        _by_kinds(model, layers),
        _by_list(model, layers),
        _by_flags(model, layers),
        _by_rule(model, layers),
    ]
    stated = [dense for dense in ways if dense is not None]
    if not stated:
        return ()
    if any(dense != stated[0] for dense in stated[1:]):
        raise ConfigError(f"{model.named(EXPERTS)}: keys contradict each other about the layers with experts")
    return tuple(layer for layer in every if layer in stated[0])


def _by_kinds(model: Reader, layers: int) -> frozenset[int] | None:
    kinds = model.get("mlp_layer_types")
    if kinds is None:
        return None
    further = model.count(("num_nextn_predict_layers",))
    known = isinstance(kinds, list) and all(kind in ("dense", "sparse") for kind in kinds)
    if not known or len(kinds) not in (layers, layers + further):
        raise ConfigError(f"mlp_layer_types: needs dense or sparse for each of {layers} layers")
    return frozenset(layer for layer in range(layers) if kinds[layer] == "dense")


def _by_list(model: Reader, layers: int) -> frozenset[int] | None:
    if model.get("moe_layers") is None:
        return None
    return frozenset(range(layers)) - frozenset(model.indices("moe_layers", layers))


def _by_flags(model: Reader, layers: int) -> frozenset[int] | None:
    flags = model.get("moe_layer_freq")
    if not isinstance(flags, list):
        return None
    if len(flags) != layers:
        raise ConfigError(f"moe_layer_freq: {len(flags)} entries for {layers} layers")
    return frozenset(layer for layer in range(layers) if not flags[layer])


def _by_rule(model: Reader, layers: int) -> frozenset[int] | None:
    """By the first and last sparse layer, and by steps. None if no key says anything."""
    listed = isinstance(model.get("moe_layer_freq"), list)
    rules = (*FIRST_DENSE, *LAST_SPARSE, *SPARSE_STEP, "mlp_only_layers", "expert_layer_period")
    frequency = 1 if listed else model.size(("moe_layer_freq",), default=1)
    if not any(model.get(key) is not None for key in rules) and (listed or frequency == 1):
        return None
    first = model.count(FIRST_DENSE)
    last = model.size(LAST_SPARSE, default=layers - 1, least=-1)
    step = model.size(SPARSE_STEP, default=1)  # counts layers from one
    only_mlp = model.indices("mlp_only_layers", layers)
    period = model.size(("expert_layer_period",), default=1)
    offset = model.count(("expert_layer_offset",))
    stated = step == 1 and period == 1 and first == 0 and last in (-1, layers - 1) and not only_mlp
    if stated and (listed or frequency == 1) and _elsewhere(model):
        return None  # such as `interleave_moe_layer_step: 1`, which Llama 4 states beside its list
    return frozenset(
        layer
        for layer in range(layers)
        if layer < first
        or (last >= 0 and layer > last)
        or layer % frequency
        or (layer + 1) % step
        or layer % period != offset % period
        or layer in only_mlp
    )


def _elsewhere(model: Reader) -> bool:
    return any(
        isinstance(model.get(key), list) for key in ("mlp_layer_types", "moe_layers", "moe_layer_freq")
    )

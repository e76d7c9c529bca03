"""Which layers of a `config.json` have full attention, a window, a state, or attend to images.

Families say this in many ways. Each way that a file uses is read. They have to agree on which layers have no
KV; of windows, `layer_types` has the last word.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Any

from testbed.models.hf_families import ALTERNATING, CHUNKED, WINDOW_EVERYWHERE
from testbed.models.hf_names import RECURRENT, WINDOW
from testbed.models.hf_reading import ConfigError, Reader, layer_list


class Kind(enum.Enum):
    """What a layer is. `CHUNK`: a token attends to those before it in its chunk of the prompt."""

    FULL = "full attention"
    WINDOW = "a window"
    CHUNK = "a chunk"
    RECURRENT = "a state"
    IMAGES = "cross-attention"


_NAMES = {
    "full_attention": Kind.FULL,
    "attention": Kind.FULL,
    "indexed_attention": Kind.FULL,
    "global": Kind.FULL,
    "sliding_attention": Kind.WINDOW,
    "local": Kind.WINDOW,
    "chunked_attention": Kind.CHUNK,
    "linear_attention": Kind.RECURRENT,
    "mamba": Kind.RECURRENT,
    "conv": Kind.RECURRENT,
}

Kinds = tuple[Kind, ...]


def kinds_of_layers(model: Reader, family: str, layers: int) -> Kinds:
    """Return the kind of each layer. Raises `ConfigError` for a kind that is not modelled."""
    found: list[tuple[str, Kinds]] = []
    for key, read in _WAYS.items():
        value = model.get(key)
        if value is not None and value is not False and (kinds := read(model, value, layers)):
            found.append((key, kinds))
    _refuse_contradictions(found)
    if {"layer_types", "layers_block_type"} & {key for key, _ in found}:
        model.ask(*RECURRENT)  # Granite 4 describes Mamba layers even if it has none
    for _, kinds in found:
        if Kind.RECURRENT in kinds or Kind.IMAGES in kinds:
            windows = next((each for _, each in found if Kind.WINDOW in each), None)
            return kinds if windows is None else _both(kinds, windows)
    if not _has_window(model):
        return _without_window(found[0][1]) if found else (Kind.FULL,) * layers
    return found[0][1] if found else _by_window(model, family, layers)


def _refuse_contradictions(found: Sequence[tuple[str, Kinds]]) -> None:
    """Ways that tell of windows only say nothing about states. All others have to agree."""
    states = [
        (key, [kind in (Kind.RECURRENT, Kind.IMAGES) for kind in kinds])
        for key, kinds in found
        if key not in _WINDOWS_ONLY
    ]
    for key, having in states[1:]:
        if having != states[0][1]:
            raise ConfigError(f"{key}: contradicts {states[0][0]}: other layers have no KV")


def _both(kinds: Kinds, windows: Kinds) -> Kinds:
    return tuple(w if k is Kind.FULL and w is Kind.WINDOW else k for k, w in zip(kinds, windows, strict=True))


def _without_window(kinds: Kinds) -> Kinds:
    """A window without a size is none."""
    return tuple(Kind.FULL if kind in (Kind.WINDOW, Kind.CHUNK) else kind for kind in kinds)


def _has_window(model: Reader) -> bool:
    model.ask("max_window_layers", *WINDOW)
    if model.flag("use_sliding_window") is False:
        return False
    key = model.named(WINDOW, default="")
    return key != "" and model.get(key) not in (-1, 0, False)


def _by_window(model: Reader, family: str, layers: int) -> Kinds:
    """The kinds of the layers of a model that has a window, but no list of layers."""
    first = model.count(("max_window_layers",))
    if family in CHUNKED:
        return _every(4, layers, Kind.CHUNK)
    if model.flag("use_sliding_window") is True:  # in Qwen2 only the layers from this one on have it
        return (Kind.FULL,) * min(first, layers) + (Kind.WINDOW,) * max(0, layers - first)
    if family in ALTERNATING:
        return _every(ALTERNATING[family], layers)
    if family in WINDOW_EVERYWHERE:
        return (Kind.WINDOW,) * layers
    model.note(
        f"{model.named(WINDOW)}: the file does not say which layers have this window; all count as attending "
        f"to all tokens, so scores are an upper bound"
    )
    return (Kind.FULL,) * layers


def _every(step: int, layers: int, other: Kind = Kind.WINDOW, *, at: int = -1) -> Kinds:
    """Full attention in every `step`-th layer: those with number `at` modulo `step`. `other` elsewhere."""
    return tuple(Kind.FULL if layer % step == at % step else other for layer in range(layers))


def _named(key: str) -> Callable[[Reader, Any, int], Kinds]:
    def read(model: Reader, value: Any, layers: int) -> Kinds:
        further = model.count(("num_nextn_predict_layers",))
        if not isinstance(value, list) or len(value) not in (layers, layers + further):
            size = len(value) if isinstance(value, list) else 0
            raise ConfigError(f"{key}: {size} entries for {layers} layers")
        for name in value:
            if not isinstance(name, str) or name not in _NAMES:
                raise ConfigError(f"{key}: {name!r} is not a kind of layer that is modelled")
        return tuple(_NAMES[name] for name in value[:layers])

    return read


def _flags(key: str, kind_of: dict[int, Kind]) -> Callable[[Reader, Any, int], Kinds]:
    def read(model: Reader, value: Any, layers: int) -> Kinds:
        known = isinstance(value, list) and all(type(flag) is int and flag in kind_of for flag in value)
        if not known or len(value) != layers:
            raise ConfigError(f"{key}: needs {' or '.join(map(str, kind_of))} for each of {layers} layers")
        return tuple(kind_of[flag] for flag in value)

    return read


def _listed(key: str, others: Kind) -> Callable[[Reader, Any, int], Kinds]:
    """The layers that `key` lists have full attention; `others` have not."""

    def read(model: Reader, value: Any, layers: int) -> Kinds:
        full = layer_list(key, value, layers)
        return tuple(Kind.FULL if layer in full else others for layer in range(layers))

    return read


def _images(model: Reader, value: Any, layers: int) -> Kinds:
    across = layer_list("cross_attention_layers", value, layers)
    return tuple(Kind.IMAGES if layer in across else Kind.FULL for layer in range(layers))


def _linear(model: Reader, value: Any, layers: int) -> Kinds:
    """Kimi Linear counts layers from one."""
    if not isinstance(value, dict) or "full_attn_layers" not in value:
        raise ConfigError("linear_attn_config: full_attn_layers is missing")
    full = layer_list("linear_attn_config.full_attn_layers", value["full_attn_layers"], layers, first=1)
    if (linear := value.get("kda_layers")) is not None:
        stated = layer_list("linear_attn_config.kda_layers", linear, layers, first=1)
        if sorted((*full, *stated)) != list(range(layers)):
            raise ConfigError(f"linear_attn_config: its lists do not cover each of {layers} layers once")
    return tuple(Kind.FULL if layer in full else Kind.RECURRENT for layer in range(layers))


def _interval(model: Reader, value: Any, layers: int) -> Kinds:
    return _every(model.size(("full_attention_interval",)), layers, Kind.RECURRENT)


def _jamba(model: Reader, value: Any, layers: int) -> Kinds:
    period, offset = model.size(("attn_layer_period",)), model.count(("attn_layer_offset",))
    return _every(period, layers, Kind.RECURRENT, at=offset)


def _pattern(key: str) -> Callable[[Reader, Any, int], Kinds]:
    """Every n-th layer has full attention, or a string such as LLLG repeats."""

    def read(model: Reader, value: Any, layers: int) -> Kinds:
        if isinstance(value, str):
            if not value or set(value) - set("LG"):
                raise ConfigError(f"{key}: {value!r} does not consist of L and G")
            return tuple(
                Kind.WINDOW if value[layer % len(value)] == "L" else Kind.FULL for layer in range(layers)
            )
        if isinstance(value, list):
            return _flags(key, {0: Kind.FULL, 1: Kind.WINDOW})(model, value, layers)
        return _every(model.size((key,)), layers)

    return read


def _neo(model: Reader, value: Any, layers: int) -> Kinds:
    try:
        names = [name for kinds, times in value for _ in range(times) for name in kinds]
    except (TypeError, ValueError):
        raise ConfigError(f"attention_types: {value!r} is not a list of kinds and how often") from None
    return _named("attention_types")(model, names, layers)


def _rope(model: Reader, value: Any, layers: int) -> Kinds:
    """In Llama 4, layers without rotary embedding are those that do not attend in chunks."""
    if model.get("attention_chunk_size") is None or not value:
        return ()
    return _flags("no_rope_layers", {0: Kind.FULL, 1: Kind.CHUNK})(model, value, layers)


def _ropes(model: Reader, value: Any, layers: int) -> Kinds:
    if model.get("attention_chunk_size") is None:
        return ()
    return _every(model.size(("no_rope_layer_interval",)), layers, Kind.CHUNK)


_WAYS: dict[str, Callable[[Reader, Any, int], Kinds]] = {
    "layer_types": _named("layer_types"),
    "layers_block_type": _named("layers_block_type"),
    "linear_attn_config": _linear,
    "attn_type_list": _flags("attn_type_list", {0: Kind.RECURRENT, 1: Kind.FULL}),
    "full_attention_interval": _interval,
    "attn_layer_period": _jamba,
    "attn_layer_indices": _listed("attn_layer_indices", Kind.RECURRENT),
    "full_attn_idxs": _listed("full_attn_idxs", Kind.RECURRENT),
    "cross_attention_layers": _images,
    "hybrid_layer_pattern": _flags("hybrid_layer_pattern", {0: Kind.FULL, 1: Kind.WINDOW}),
    "attention_layers": _named("attention_layers"),
    "attention_types": _neo,
    "sliding_window_pattern": _pattern("sliding_window_pattern"),
    "_sliding_window_pattern": _pattern("_sliding_window_pattern"),
    "global_attn_every_n_layers": _pattern("global_attn_every_n_layers"),
    "global_attn_every_n": _pattern("global_attn_every_n"),
    "layer_switch": _pattern("layer_switch"),
    "full_attn_mod": _pattern("full_attn_mod"),
    "no_rope_layers": _rope,
    "no_rope_layer_interval": _ropes,
}
"""How to read each key that tells the kinds of layers."""

_WINDOWS_ONLY = (
    *("global_attn_every_n", "layer_switch", "full_attn_mod"),
    *("hybrid_layer_pattern", "attention_layers", "attention_types", "sliding_window_pattern"),
    *("_sliding_window_pattern", "global_attn_every_n_layers", "no_rope_layers", "no_rope_layer_interval"),
)

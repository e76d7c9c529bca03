"""A model's shape from a Hugging Face `config.json`, of any decoder-only family.

Families have different names for a size, but seldom mean different things. So the shape is read from the
keys that are present, whatever the family (`hf_names`). What no key says, such as an ungated feed-forward or
a default of the family's class, is in `hf_families`. Keys that are not known are refused (`hf_checks`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from testbed.models.hf_attention import attention_of_layers
from testbed.models.hf_blocks import number_of_blocks, read_blocks
from testbed.models.hf_checks import (
    family_of,
    flattened,
    note_what_is_left_out,
    refuse_states_of_no_layer,
    refuse_unknown_keys,
    refuse_what_is_no_decoder,
    refuse_what_nothing_read,
)
from testbed.models.hf_families import CLASS_DEFAULTS
from testbed.models.hf_feed_forward import feed_forward
from testbed.models.hf_layers import Kind, Kinds, kinds_of_layers
from testbed.models.hf_names import HIDDEN, KV_HEADS, LAYERS, WINDOW
from testbed.models.hf_precision import element_bytes, kv_element_bytes, weight_bytes
from testbed.models.hf_reading import ConfigError, Reader
from testbed.models.hf_recurrent import recurrent_layer
from testbed.models.shape import Attention, Mixer, ModelShape, OtherLayers

__all__ = ["ConfigError", "shape_from_config"]

_MOST_LAYERS = 1000
_NOTED_DEFAULTS = ("num_key_value_heads", "num_attention_heads", "head_dim", "num_kv_shared_layers")


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """Return the shape of the decoder that `config`, the content of a `config.json`, describes.

    The key `hf_quant_config.json` may hold the content of that file. The notes of the shape say what it
    leaves out, and which defaults of the family's class it uses.

    Raises `ConfigError`, naming the key: first for a model that is no decoder, for keys that are not known
    and for a structure that is not modelled, then for a missing size, and for sizes that are impossible.
    """
    keys = flattened(config)
    family = family_of(Reader(keys))
    defaults = CLASS_DEFAULTS.get(family, {})
    model = Reader(keys | {key: value for key, value in defaults.items() if _is_missing(key, keys)})
    model.ask("model_type", "architectures")
    refuse_what_is_no_decoder(model, family)
    refuse_unknown_keys(model)
    _note_defaults(model, family, keys, defaults)
    layers = model.size(LAYERS, default=number_of_blocks(model))
    if layers > _MOST_LAYERS:
        raise ConfigError(f"{model.named(LAYERS)}: {layers} layers are more than any model has")
    blocks = read_blocks(model, layers)
    kinds = kinds_of_layers(model, family, layers) if blocks is None else blocks.kinds
    layers = len(kinds)
    if Kind.RECURRENT not in kinds:
        refuse_states_of_no_layer(model)
    layers, kinds = _without_images(model, kinds)
    hidden = model.size(HIDDEN)
    mixers = _mixers(model, family, kinds, hidden)
    base, others = _grouped(mixers)
    feeding = feed_forward(model, family, hidden, layers, blocks)
    width, expert_width = weight_bytes(model)
    shape = ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        q_heads=base.q_heads,
        kv_heads=base.kv_heads,
        head_dim=base.head_dim,
        v_dim=None if base.v_dim == base.head_dim or base.latent else base.v_dim,
        latent=base.latent,
        window=base.window,
        index=base.index,
        output_gate=base.output_gate,
        other_layers=others,
        bytes_per_element=element_bytes(model),
        kv_element_bytes=kv_element_bytes(model),
        weight_bytes=width,
        expert_bytes=expert_width if feeding.experts else None,
        **msgspec.structs.asdict(feeding),
    )
    refuse_what_nothing_read(model)
    note_what_is_left_out(model)
    return msgspec.structs.replace(shape, notes=tuple(model.notes))


def _is_missing(key: str, keys: Mapping[str, Any]) -> bool:
    """Null is as good as missing, except that it says of a window that there is none."""
    return key not in keys if key in WINDOW else keys.get(key) is None


def _note_defaults(model: Reader, family: str, keys: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for key in _NOTED_DEFAULTS:
        other_name = key == "num_key_value_heads" and any(keys.get(name) is not None for name in KV_HEADS)
        if key in defaults and _is_missing(key, keys) and not other_name:
            model.note(f"{key}: missing, so {defaults[key]}, the default of {family!r}")


def _without_images(model: Reader, kinds: Kinds) -> tuple[int, Kinds]:
    """Leave out the layers that attend to images: a request of text skips them (Llama 3.2 Vision)."""
    text = tuple(kind for kind in kinds if kind is not Kind.IMAGES)
    if len(text) < len(kinds):
        model.note(
            f"cross_attention_layers: {len(kinds) - len(text)} layers that attend to images are left out, as "
            f"a request of text skips them"
        )
    return len(text), text


def _mixers(model: Reader, family: str, kinds: Kinds, hidden: int) -> Sequence[Mixer]:
    if all(kind is Kind.RECURRENT for kind in kinds):
        raise ConfigError("layer_types: no layer of this model is attention with a KV cache")
    attention = attention_of_layers(model, family, kinds, hidden)
    if Kind.RECURRENT not in kinds:
        return attention
    typical = attention[kinds.index(Kind.RECURRENT)]
    state = recurrent_layer(model, family, hidden, typical.q_heads, typical.head_dim)
    count = kinds.count(Kind.RECURRENT)
    model.note(
        f"{count} layers with {state.kind} keep a recurrent state of {state.state_bytes:,} B per request "
        f"instead of KV; a state is assumed to be cached at the end of every block"
    )
    return [state if kind is Kind.RECURRENT else own for kind, own in zip(kinds, attention, strict=True)]


def _grouped(mixers: Sequence[Mixer]) -> tuple[Attention, tuple[OtherLayers, ...]]:
    """The attention that the fields of a model state, and the other layers by what they have.

    The former is the most frequent attention to all tokens, or with a window if all layers have one.
    """
    found: dict[Mixer, list[int]] = {}
    for layer, mixer in enumerate(mixers):
        found.setdefault(mixer, []).append(layer)
    own = [mixer for mixer in found if isinstance(mixer, Attention) and not mixer.shares_kv]
    stated = [mixer for mixer in own if not mixer.keys_are_values] or [
        msgspec.structs.replace(mixer, keys_are_values=False) for mixer in own
    ]
    base = max(stated, key=lambda mixer: (mixer.window is None, len(found.get(mixer, ()))))
    others = tuple(
        OtherLayers(layers=tuple(layers), mixer=mixer) for mixer, layers in found.items() if mixer != base
    )
    return base, others

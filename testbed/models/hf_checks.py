"""Which keys of a `config.json` may be there: an allow-list.

A key is read (`hf_names`), or is known to change no size (`hf_harmless`). Any other key could change layers,
heads, widths, caching or precision, so a model that has one is refused. A new kind of model is then an
error, and not a wrong number.
"""

from collections.abc import Mapping
from typing import Any

from testbed.models.hf_families import ENCODERS, NOT_MODELLED
from testbed.models.hf_harmless import (
    AUXILIARY,
    HARMLESS,
    HARMLESS_PATTERNS,
    NEUTRAL,
    OTHER_MODALITIES,
    PARTS,
    REFUSED,
    TEXT_BLOCKS,
)
from testbed.models.hf_names import ALL_OF_EXPERTS, KNOWN, RECURRENT
from testbed.models.hf_precision import QUANTIZATIONS
from testbed.models.hf_reading import ConfigError, Reader

_WHERE_OFF_MATTERS = (
    *("attention", "attn", "cache", "causal", "cla", "expert", "ffn", "gat", "glu", "head", "kv", "layer"),
    *("linear", "mamba", "mla", "mlp", "moe", "quant", "shar", "sliding", "sparse", "swa", "window"),
)
"""Parts that other keys describe, or that every model here is assumed to have. A key with one of these in its
name may switch that part off, so it counts even if it is false, zero or empty."""

_MOST_NAMED = 5
_DECODERS = TEXT_BLOCKS[: -len(PARTS)]


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the file and of its decoder part in one mapping. Inner keys replace outer ones."""
    keys = {key: value for key, value in config.items() if key not in TEXT_BLOCKS}
    decoders = [name for name in _DECODERS if isinstance(config.get(name), Mapping)]
    if len(decoders) > 1:
        raise ConfigError(f"{' and '.join(decoders)}: a file with two decoders is not modelled")
    for name in TEXT_BLOCKS:
        inner = config.get(name)
        if isinstance(inner, Mapping):
            found = {key: value for key, value in flattened(inner).items() if value != ""}
            _refuse_two_quantizations(keys, found, name)
            keys |= found
        elif inner:
            keys[name] = inner
    return keys


def _refuse_two_quantizations(outer: Mapping[str, Any], inner: Mapping[str, Any], name: str) -> None:
    for key in QUANTIZATIONS:
        if outer.get(key) and inner.get(key) and outer[key] != inner[key]:
            raise ConfigError(f"{key}: the file and its {name} state different ones")


def family_of(model: Reader) -> str:
    """Return the model's family: `model_type`, or else what its architecture is called; may be empty."""
    named = model.get("model_type")
    architectures = model.get("architectures")
    if named:
        return str(named).lower()
    if isinstance(architectures, list) and architectures:
        return str(architectures[0]).split("For")[0].lower()
    return ""


def refuse_what_is_no_decoder(model: Reader, family: str) -> None:
    """Raise `ConfigError` for an encoder and for a model that has one."""
    if model.flag("is_encoder_decoder") is True:
        raise ConfigError("is_encoder_decoder: this model has an encoder; only decoders are modelled")
    if family in ENCODERS or family.endswith(("-bert", "_bert", "bert", "-roberta")):
        raise ConfigError(f"model_type: {family!r} is an encoder; only decoders are modelled")
    if family in NOT_MODELLED:
        raise ConfigError(f"model_type: {family!r}: {NOT_MODELLED[family]}")
    if model.flag("causal") is False:
        raise ConfigError("causal: only causal attention is modelled")
    if model.get("use_bidirectional_attention") not in (None, False, "vision"):  # "vision": in images only
        raise ConfigError("use_bidirectional_attention: only causal attention is modelled")


def refuse_unknown_keys(model: Reader) -> None:
    """Raise `ConfigError` for keys that are not modelled, and for those that are not known at all."""
    found = model.keys_with_values()
    for key, why in REFUSED.items():
        if not _is_nothing(found.get(key)):
            raise ConfigError(f"{key}: {why}")
    unknown = [
        key
        for key, value in found.items()
        if not (key in REFUSED or _is_allowed(key, value) or _is_off(key, value))
    ]
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        keys = "this key is" if len(unknown) == 1 else "these keys are"
        raise ConfigError(
            f"{', '.join(unknown[:_MOST_NAMED])}{more}: {keys} not known here and could change sizes; "
            f"remove {'it' if len(unknown) == 1 else 'them'} from the file if you know that no size depends "
            f"on {'it' if len(unknown) == 1 else 'them'}"
        )


def note_what_is_left_out(model: Reader) -> None:
    """Tell of parts of the model that the shape does not have."""
    for key, value in model.keys_with_values().items():
        if why := AUXILIARY.get(key):
            if not _is_nothing(value):
                model.note(f"{key}: {why}")
        elif isinstance(value, Mapping) and value and OTHER_MODALITIES.fullmatch(key):
            model.note(f"{key}: only the text part of the model is modelled")


def refuse_states_of_no_layer(model: Reader) -> None:
    """Raise `ConfigError` for sizes of layers with a state, if no key says which layers these are."""
    for key in RECURRENT:
        if key not in model.asked and not _is_nothing(model.keys_with_values().get(key)):
            raise ConfigError(
                f"{key}: not every layer of this model is attention with a KV cache, and no key says which"
            )


def refuse_what_nothing_read(model: Reader) -> None:
    """Raise `ConfigError` for a key that has a meaning, but none together with the keys around it."""
    for key, value in model.keys_with_values().items():
        if key not in KNOWN or key in model.asked or _is_nothing(value):
            continue
        if key in ALL_OF_EXPERTS:
            raise ConfigError(f"{key}: the model has experts, but no key says how many")
        raise ConfigError(f"{key}: {value!r} has no meaning together with the other keys")


def _is_allowed(key: str, value: Any) -> bool:
    if key in KNOWN or key in HARMLESS or key in AUXILIARY:
        return True
    if isinstance(value, Mapping) and OTHER_MODALITIES.fullmatch(key):
        return True
    return any(pattern.fullmatch(key) for pattern in HARMLESS_PATTERNS)


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {}, 0)


def _is_off(key: str, value: Any) -> bool:
    """Whether a key that is not known says nothing, or that something is absent that is not expected."""
    if value is None or (key in NEUTRAL and value == NEUTRAL[key]):
        return True
    return _is_nothing(value) and not any(word in key for word in _WHERE_OFF_MATTERS)

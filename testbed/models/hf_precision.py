"""Bytes of an element, by the number formats that a `config.json` states, and an `hf_quant_config.json`."""

import re
from collections.abc import Mapping
from typing import Any

from testbed.models.hf_reading import ConfigError, Reader

_FORMATS = ("float32", "float16", "bfloat16")

_METHOD_BITS = {
    "fp8": 8,
    "fbgemm_fp8": 8,
    "ptpc_fp8": 8,
    "mxfp8": 8,
    "eetq": 8,
    "modelopt_fp8": 8,
    "w8a8_fp8": 8,
    "mxfp4": 4,
    "nvfp4": 4,
    "modelopt_fp4": 4,
    "awq": 4,
    "gptq": 4,
    "awq_marlin": 4,
    "gptq_marlin": 4,
}
"""Bits of a weight by quantisation method, unless `bits` says otherwise."""

_SCALE_BITS = (
    (r"nvfp4", 8 / 16),
    (r"mxfp[468]", 8 / 32),
    (r"q[458]_0|iq4_nl", 16 / 32),
    (r"q[458]_1", 32 / 32),
)
"""Bits per cached element for the scales of formats whose blocks have one each: 8 bits for 16 elements, 8 for
32, and in llama.cpp 16 for 32, or twice that with a minimum."""

_SEVERAL_FORMATS = ("fp8_ds_mla",)
"""Formats of a cache that keep some elements of a token in more bits than others."""

_EXPERTS_ONLY = ("mxfp4",)
"""Methods that quantise routed experts only, and leave the rest at 16 bits (GPT-OSS)."""

QUANTIZATIONS = ("quantization_config", "compression_config", "quantization", "hf_quant_config.json")
_KV_KEYS = ("kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_dtype")
_AS_ACTIVATIONS = ("auto", "none", "null", "")
_WEIGHTS_OF_EMBEDDINGS = re.compile(
    r".*(lm_head|embed|vision|visual|audio|projector|router|gate$|mtp|norm).*"
)


def element_bytes(model: Reader) -> int:
    """Return the bytes of an activation element: 2. Models saved in 32 bits are served in 16 bits, too."""
    for key in ("dtype", "torch_dtype"):
        named = model.get(key)
        if named is not None and str(named).removeprefix("torch.") not in (*_FORMATS, "auto"):
            raise ConfigError(f"{key}: {named!r} is not one of {', '.join(_FORMATS)}")
    return 2


def kv_element_bytes(model: Reader) -> float:
    """Return the bytes of a cached KV element: as the file says about its cache, else as an activation.

    Raises `ConfigError` for a statement that is not understood, and for two that differ.
    """
    if model.get("cache_implementation") == "quantized":
        raise ConfigError("cache_implementation: a quantised cache of a width that is not stated")
    found: dict[str, float] = {}
    for key in _KV_KEYS:
        if (value := model.get(key)) is not None:
            found[key] = _kv_bytes(value, key)
    for outer in QUANTIZATIONS:
        inner = model.get(outer)
        for key in _keys_about_kv(inner):
            found[f"{outer}: {key}"] = _kv_bytes(inner[key], key)
        if (quark := _quark_kv_bytes(inner)) is not None:
            found[f"{outer}: kv_cache_group"] = quark
    if len(set(found.values())) > 1:
        raise ConfigError(f"{' and '.join(found)}: say different things about the KV cache")
    width = next(iter(found.values()), float(element_bytes(model)))
    if width == 0.5:
        model.note(f"{next(iter(found))}: KV of 4 bits counts without its scales")
    return width


def _keys_about_kv(inner: Any) -> list[str]:
    """The keys of a quantization that are about the cache. All of them have to be understood."""
    if not isinstance(inner, Mapping):
        return []
    keys = [
        key
        for key, value in inner.items()
        if re.search(r"(^|_)kv(_|$)|cache", key) and value not in (False, {}, [])
    ]
    for key in keys:
        if key not in _KV_KEYS and inner[key] is not None:
            raise ConfigError(f"{key}: this is not understood, and is about the KV cache")
    _refuse_deeper(inner)
    return [key for key in keys if inner[key] is not None]


def _refuse_deeper(inner: Mapping[str, Any]) -> None:
    """Refuse what an inner block says of the cache, but for what Quark says."""
    for name, block in inner.items():
        if not isinstance(block, Mapping):
            continue
        for key, value in block.items():
            nothing = value is None or value is False or value in ([], {}, "", 0)
            if re.search(r"kv_?cache", key) and key != "kv_cache_group" and not nothing:
                raise ConfigError(f"{name}.{key}: this is not understood, and is about the KV cache")
        _refuse_deeper(block)


def _quark_kv_bytes(inner: Any) -> float | None:
    """AMD's Quark names the projections whose outputs the cache has, and lists these with a format."""
    group = _at(inner, "export", "kv_cache_group")
    if not group:
        return None
    layers = _at(inner, "layer_quant_config")
    formats = [
        _at(layers, name, "output_tensors", "dtype") for name in (group if isinstance(group, list) else ())
    ]
    if not formats or None in formats:
        raise ConfigError(f"kv_cache_group: {group!r}: no format is stated for these outputs")
    return _kv_bytes([str(name) for name in formats], "kv_cache_group")


def _kv_bytes(value: Any, key: str) -> float:
    """Bytes by a number of bits, by the name of a format, or by several of these that agree."""
    if isinstance(value, Mapping):
        if "num_bits" in value:
            return _bytes(value["num_bits"], key)
        formats = [value[name] for name in ("dtype", "type", "quant_algo") if value.get(name) is not None]
        if not formats:
            raise ConfigError(f"{key}: {dict(value)!r} states no number of bits")
        value = formats
    if isinstance(value, list | tuple):
        each = {_kv_bytes(item, key) for item in value}
        if len(each) != 1:
            raise ConfigError(f"{key}: {value!r} is not one number format")
        return each.pop()
    if isinstance(value, int) and not isinstance(value, bool):
        return _bytes(value, key)
    if isinstance(value, str):
        return 2.0 if value.lower() in _AS_ACTIVATIONS else (_format_bits(value, key) + _scales(value)) / 8
    raise ConfigError(f"{key}: {value!r} is not a number format")


def _scales(name: str) -> float:
    lower = name.lower()
    return next((bits for pattern, bits in _SCALE_BITS if re.fullmatch(pattern, lower)), 0.0)


def _format_bits(name: str, key: str) -> int:
    """The bits of an element of a format or of a quantisation algorithm, such as FP8, NVFP4 or W4A16_AWQ."""
    lower = name.lower().removeprefix("torch.")
    if match := re.match(r"w(\d+)a\d+", lower):
        return int(match[1])
    if lower in _SEVERAL_FORMATS:
        raise ConfigError(f"{key}: {name!r}: a cache of several number formats is not modelled")
    if re.search(r"mixed", lower):
        raise ConfigError(f"{key}: {name!r}: weights of several widths are not modelled")
    if re.fullmatch(r"float32|fp32|float16|fp16|half|bfloat16|bf16", lower):
        return 16
    if match := re.search(r"(?:fp|float|int|uint|nvfp|mxfp|e\dm\d_|q)(\d+)", lower):
        return int(match[1])
    if re.search(r"e4m3|e5m2", lower):
        return 8
    raise ConfigError(f"{key}: {name!r} is not a number format that is known")


def weight_bytes(model: Reader) -> tuple[float, float | None]:
    """Return the bytes of a weight without scales, and of a weight of a routed expert if that differs.

    All other weights get one width: those that the file leaves unquantised count as quantised, with a note.
    """
    found: dict[str, float] = {}
    only_experts = False
    for key in QUANTIZATIONS:
        quantization = model.get(key)
        if quantization is None or quantization == {}:
            continue
        if isinstance(quantization, str):
            quantization = {"quant_method": quantization}
        if not isinstance(quantization, Mapping):
            raise ConfigError(f"{key}: {quantization!r} is not a mapping")
        if (bits := _weight_bits(model, quantization, key)) is not None:
            found[key] = bits / 8
            only_experts |= str(quantization.get("quant_method")).lower() in _EXPERTS_ONLY
            _note_exceptions(model, quantization, key)
    if len(set(found.values())) > 1:
        raise ConfigError(f"{' and '.join(found)}: say different things about weights")
    plain = float(element_bytes(model))
    width = next(iter(found.values()), plain)
    if (stated := model.get("expert_dtype")) is not None:
        expert = _format_bits(str(stated), "expert_dtype") / 8
        return width, None if expert == width else expert
    return (plain, width) if only_experts and width != plain else (width, None)


def _weight_bits(model: Reader, quantization: Mapping[str, Any], key: str) -> int | None:
    if quantization.get("load_in_4bit") is True:
        return 4
    if quantization.get("load_in_8bit") is True:
        return 8
    bits = quantization.get("bits")
    if bits is not None:
        return _checked_bits(bits, key)
    widths = {
        _checked_bits(_at(group, "weights", "num_bits"), key)
        for group in _groups(quantization)
        if _at(group, "weights", "num_bits") is not None
    }
    if len(widths) > 1:
        model.note(f"{key}: weights of {sorted(widths)} bits; all count as {max(widths)} bits")
    if widths:
        return max(widths)
    for name in ("quant_algo", "qformat_weight", "weight_dtype"):
        if (stated := quantization.get(name)) is not None:
            return _format_bits(str(stated), key) if str(stated).lower() not in _AS_ACTIVATIONS else 16
    if (dtype := _at(quantization, "global_quant_config", "weight", "dtype")) is not None:
        return _format_bits(str(dtype), key)
    method = quantization.get("quant_method")
    known = _METHOD_BITS.get(str(method).lower())
    if known is None and method is None and any(name in quantization for name in ("quant_algo", *_KV_KEYS)):
        return None  # a statement about the cache only, or that there is no quantisation
    if method == "compressed-tensors" and _groups(quantization) == [] and "kv_cache_scheme" in quantization:
        return None  # only the cache is quantised
    if known is None:
        raise ConfigError(f"{key}: the weight width is not known for the method {method!r}")
    return known


_BY_LAYER = ("layer_quant_config", "layer_type_quant_config", "dynamic", "extra_config")
"""Blocks that state other formats for single layers (Quark, GPTQModel, AutoRound)."""


def _note_exceptions(model: Reader, quantization: Mapping[str, Any], key: str) -> None:
    for name in _BY_LAYER:
        own = quantization.get(name)
        usual = _at(quantization, "global_quant_config", "weight", "dtype")
        if isinstance(own, Mapping) and any(
            usual is None or _at(one, "weight", "dtype") != usual for one in own.values()
        ):
            model.note(f"{key}: weights with a format of their own ({name}) count as all others")
    if str(quantization.get("quant_method")).lower() in _EXPERTS_ONLY:
        return
    for name in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "exclude"):
        left = quantization.get(name)
        if isinstance(left, list) and any(not _WEIGHTS_OF_EMBEDDINGS.fullmatch(str(item)) for item in left):
            model.note(f"{key}: weights that are not quantised ({name}) count as quantised")


def _groups(quantization: Mapping[str, Any]) -> list[Any]:
    groups = quantization.get("config_groups")
    return list(groups.values()) if isinstance(groups, Mapping) else []


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _checked_bits(bits: Any, key: str) -> int:
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 64:
        raise ConfigError(f"{key}: {bits!r} is not a number of bits")
    return bits


def _bytes(bits: Any, key: str) -> float:
    return _checked_bits(bits, key) / 8

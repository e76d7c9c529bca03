"""Bytes of an element by what a `config.json` says of its number formats."""

from collections.abc import Mapping
from typing import Any

from testbed.models.hf_reading import ConfigError, Reader

_FORMATS = ("float32", "float16", "bfloat16")

_METHOD_BITS = {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4, "nvfp4": 4, "awq": 4, "gptq": 4}
"""Bits of a weight where a method has one width, or is meant to have it unless `bits` says otherwise."""


def element_bytes(model: Reader) -> int:
    """Of an activation: 2. Models that were saved in 32 bits are served in 16 too."""
    named = model.get("dtype") or model.get("torch_dtype")
    if named is not None and str(named).removeprefix("torch.") not in _FORMATS:
        raise ConfigError(f"torch_dtype: {named!r} is none of {', '.join(_FORMATS)}")
    return 2


def kv_element_bytes(model: Reader) -> float:
    """Of cached KV: that of an activation, unless the file comes with a narrower format for the cache."""
    bits = _at(model.get("quantization_config"), "kv_cache_scheme", "num_bits")
    return float(element_bytes(model)) if bits is None else _bytes(bits, "kv_cache_scheme")


def weight_bytes(model: Reader) -> float:
    """Of a weight, scales left out. One width for all: what a file leaves unquantised counts as quantised."""
    quantization = model.get("quantization_config")
    if quantization is None:
        return float(element_bytes(model))
    if not isinstance(quantization, Mapping):
        raise ConfigError(f"quantization_config: {quantization!r} is no set of keys")
    if quantization.get("load_in_4bit") is True:
        return 0.5
    if quantization.get("load_in_8bit") is True:
        return 1.0
    bits = quantization.get("bits")
    for group in _groups(quantization):
        bits = bits or _at(group, "weights", "num_bits")
    if bits is None:
        bits = _METHOD_BITS.get(str(quantization.get("quant_method")).lower())
    if bits is None:
        method = quantization.get("quant_method")
        raise ConfigError(f"quantization_config: how wide a weight is by {method!r} is not known here")
    return _bytes(bits, "quantization_config")


def _groups(quantization: Mapping[str, Any]) -> list[Any]:
    groups = quantization.get("config_groups")
    return list(groups.values()) if isinstance(groups, Mapping) else []


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _bytes(bits: Any, key: str) -> float:
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 64:
        raise ConfigError(f"{key}: {bits!r} is no number of bits")
    return bits / 8

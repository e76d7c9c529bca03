"""Bytes of an element, by the number formats that a `config.json` states."""

from collections.abc import Mapping
from typing import Any

from testbed.models.hf_reading import ConfigError, Reader

_FORMATS = ("float32", "float16", "bfloat16")

_METHOD_BITS = {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4, "nvfp4": 4, "awq": 4, "gptq": 4}
"""Bits of a weight by quantisation method, unless `bits` says otherwise."""


def element_bytes(model: Reader) -> int:
    """Return the bytes of an activation element: 2. Models saved in 32 bits are served in 16 bits, too."""
    named = model.get("dtype") or model.get("torch_dtype")
    if named is not None and str(named).removeprefix("torch.") not in _FORMATS:
        raise ConfigError(f"torch_dtype: {named!r} is not one of {', '.join(_FORMATS)}")
    return 2


def kv_element_bytes(model: Reader) -> float:
    """Return the bytes of a cached KV element: by `kv_cache_scheme` if given, else as an activation."""
    bits = _at(model.get("quantization_config"), "kv_cache_scheme", "num_bits")
    return float(element_bytes(model)) if bits is None else _bytes(bits, "kv_cache_scheme")


def weight_bytes(model: Reader) -> float:
    """Return the bytes of a weight, without scales.

    All weights get one width: those that the file leaves unquantised count as quantised.
    """
    quantization = model.get("quantization_config")
    if quantization is None:
        return float(element_bytes(model))
    if not isinstance(quantization, Mapping):
        raise ConfigError(f"quantization_config: {quantization!r} is not a mapping")
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
        raise ConfigError(f"quantization_config: the weight width is not known for the method {method!r}")
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
        raise ConfigError(f"{key}: {bits!r} is not a number of bits")
    return bits / 8

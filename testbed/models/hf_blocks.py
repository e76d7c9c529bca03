"""Models that list blocks instead of layers: each block is a mixer or a feed-forward (Nemotron-H).

A layer here has a mixer and the feed-forward after it. So a mixer that another mixer follows is a layer
without a feed-forward. The bytes and FLOPs are those of the blocks.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from testbed.models.hf_layers import Kind, Kinds
from testbed.models.hf_reading import ConfigError, Reader

_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_MIXERS = {
    "mamba": Kind.RECURRENT,
    "linear_attention": Kind.RECURRENT,
    "attention": Kind.FULL,
    "full_attention": Kind.FULL,
}
_FEEDING = ("mlp", "moe")


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """The layers that blocks make: the kind of each, and which have an MLP or no feed-forward at all."""

    kinds: Kinds
    dense: tuple[int, ...]
    bare: tuple[int, ...]


def number_of_blocks(model: Reader) -> int | None:
    """Return how many blocks the file lists, None if it lists none."""
    listed: Any = model.get("hybrid_override_pattern") or model.get("layers_block_type")
    return len(listed) if isinstance(listed, str | list) else None


def read_blocks(model: Reader, number: int) -> Blocks | None:
    """Return the layers that the file's `number` blocks make; None if it lists layers.

    Raises `ConfigError` for a block that is not modelled, and for a feed-forward that no mixer precedes.
    """
    names = _names(model, number)
    if names is None:
        return None
    kinds: list[Kind] = []
    feeding: list[str | None] = []
    for place, name in enumerate(names):
        if name in _MIXERS:
            kinds.append(_MIXERS[name])
            feeding.append(None)
        elif not feeding or feeding[-1] is not None:
            raise ConfigError(f"{_key(model)}: block {place} is a feed-forward that no mixer precedes")
        else:
            feeding[-1] = name
    return Blocks(
        kinds=tuple(kinds),
        dense=tuple(layer for layer, name in enumerate(feeding) if name == "mlp"),
        bare=tuple(layer for layer, name in enumerate(feeding) if name is None),
    )


def _key(model: Reader) -> str:
    return model.named(("hybrid_override_pattern", "layers_block_type"))


def _names(model: Reader, number: int) -> Sequence[str] | None:
    pattern: Any = model.get("hybrid_override_pattern")
    listed: Any = model.get("layers_block_type")
    if pattern is None:
        if not isinstance(listed, list) or not any(name in _FEEDING for name in listed):
            return None
        names = [str(name) for name in listed]
    elif isinstance(pattern, str):
        names = [_LETTERS.get(letter, letter) for letter in pattern]
    else:
        raise ConfigError(f"hybrid_override_pattern: {pattern!r} is not a string of blocks")
    for name in names:
        if name not in _MIXERS and name not in _FEEDING:
            raise ConfigError(f"{_key(model)}: {name!r} is not a kind of block that is modelled")
    if len(names) != number:
        raise ConfigError(f"{_key(model)}: {len(names)} entries for {number} layers")
    return names

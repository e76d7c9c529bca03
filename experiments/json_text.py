"""JSON for files and other programs: indented, without NaN or infinity. And a check of what others wrote."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def json_text(content: Any) -> str:
    """Return `content` as JSON text that ends with a newline. NaN and infinities become null."""
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Return `value` with every NaN and infinity replaced by `None`, because JSON cannot express them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class NamedTwice(ValueError):
    """An object has a key twice. Python and msgspec would take the last value, and say nothing."""


def named_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, as `object_pairs_hook` of `json.loads`. Raises `NamedTwice`."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NamedTwice(f"the key {key!r} is there twice")
        found[key] = value
    return found

"""Python values as the texts that the command's options take.

Messages and results name options as the command does, so a result says how to get it again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.sweep import plan


def as_text(value: Any) -> str:
    """Return `value` as it would be written after `--set KEY=`. Raises `TypeError` if it cannot be."""
    plain = plain_value(value)
    if not isinstance(plain, str):
        return json.dumps(plain, ensure_ascii=False, allow_nan=False)
    try:
        return plan.as_text(plain)
    except UserError:  # not YAML without quotes
        return json.dumps(plain, ensure_ascii=False)


def as_listed(value: Any) -> str:
    """Return `value` as it would be written among others after `--over KEY=`."""
    text = as_text(value)
    special = isinstance(value, str) and not text.startswith('"') and set(text) & set(",:[]{}")
    return json.dumps(text, ensure_ascii=False) if special else text


def plain_value(value: Any) -> Any:
    """Return paths as text, numpy's numbers as Python's, and tuples and arrays as lists."""
    match value:
        case None | bool():
            return value
        case int() | float() | str():
            return _underneath(value)  # numpy's float64 is a float, too
        case Path():
            return str(value)
        case Mapping():
            return {str(key): plain_value(inner) for key, inner in value.items()}
        case list() | tuple() | range():
            return [plain_value(inner) for inner in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r}: a scenario takes numbers, text, true and false, lists and mappings")


def _underneath(value: int | float | str) -> int | float | str:
    """Return what a member of an enum, or another kind of number or text, is underneath."""
    kind = next(kind for kind in (int, float, str) if isinstance(value, kind))
    return kind(getattr(value, "value", value))


def settings_texts(settings: Mapping[str, Any] | None) -> list[str]:
    """Return a text of `--set` for each of `settings`."""
    return [f"{key}={as_text(value)}" for key, value in (settings or {}).items()]

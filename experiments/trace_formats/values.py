"""The values in a row of a trace: read from text or JSON, and refused if they make no sense."""

import json
import re
from typing import Any

from experiments.errors import UserError

MAX_TOKENS = 16_777_216
"""More than any model's context: a larger count in a trace is an error, not a prompt."""

MAX_S = 10**10
"""More than three hundred years: a later time in a trace is an error too."""


def columns_of(line: str) -> tuple[str, ...]:
    """Return the cells of a line of CSV. In these formats they are never quoted."""
    return tuple(name.strip() for name in line.split(","))


def json_object(line: str, where: str) -> dict[str, Any]:
    """Return the JSON object in `line`. Raises `UserError` if it is none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not JSON") from None
    if not isinstance(data, dict):
        raise UserError(f"{where}: not a JSON object")
    return data


def json_value(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise UserError(f"{where}: {key} is missing")
    return row[key]


def json_count(row: dict[str, Any], key: str, where: str, *, low: int, high: int) -> int:
    value = json_value(row, key, where)
    if type(value) is not int:
        raise UserError(f"{where}: {key} is {value!r}, not a whole number")
    if not low <= value <= high:
        raise UserError(f"{where}: {key} is {value}; allowed is {low} .. {high}")
    return value


def json_block_ids(row: dict[str, Any], where: str) -> list[int]:
    ids = json_value(row, "hash_ids", where)
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**63 for i in ids):
        raise UserError(f"{where}: hash_ids is not a list of whole numbers from 0")
    return ids


def text_count(name: str, text: str, where: str, *, low: int) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        raise UserError(f"{where}: {name} is {text!r}, not a whole number")
    value = int(text)
    if not low <= value <= MAX_TOKENS:
        raise UserError(f"{where}: {name} is {value}; allowed is {low} .. {MAX_TOKENS}")
    return value

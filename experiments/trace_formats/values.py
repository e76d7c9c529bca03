"""The values in a row of a trace: read from text or JSON, and refused if they make no sense."""

import json
import math
import re
from decimal import Decimal
from typing import Any

import msgspec

from controller.units import NS_PER_MS, NS_PER_S
from experiments.errors import UserError
from experiments.json_text import NamedTwice, named_once

MAX_TOKENS = 16_777_216
"""More than any model's context: a larger count in a trace is an error, not a prompt."""

MAX_S = 9 * 10**9
"""Two hundred and eighty-five years, about what 64 bits of nanoseconds hold: a later time in a trace is an
error too."""

BYTES_PER_TOKEN = 4
"""A rule of thumb for English text."""

_LONG = 10**21

_UNITS = {1: "ns", NS_PER_MS: "ms", NS_PER_S: "seconds"}


def columns_of(line: str) -> tuple[str, ...]:
    """Return the cells of a line of CSV, or of TSV if it has tabs. No cell has a separator in quotes."""
    return tuple(_unquoted(name.strip()) for name in line.split("\t" if "\t" in line else ","))


def _unquoted(cell: str) -> str:
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def json_object(line: str, where: str) -> dict[str, Any]:
    """Return the JSON object in `line`. Raises `UserError` if it is none, or has a key twice."""
    try:
        data = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        data = _slowly(line, where)
    if isinstance(data, dict) and line.count(":") > len(data):
        data = _slowly(line, where)  # some object has a key twice, or there are colons in a text or inside
    if not isinstance(data, dict):
        raise UserError(f"{where}: not a JSON object")
    return data


def _slowly(line: str, where: str) -> Any:
    """Return what Python makes of a line, which may not be strictly JSON: NaN, for instance, is refused by
    name. Raises `UserError` if an object has a key twice."""
    try:
        return json.loads(line, object_pairs_hook=named_once)
    except NamedTwice as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not JSON") from None


def json_value(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise UserError(f"{where}: {key} is missing")
    return row[key]


def json_count(row: dict[str, Any], key: str, where: str, *, low: int, high: int = MAX_TOKENS) -> int:
    """Return a count, which may be written as a float without a fraction."""
    value = json_value(row, key, where)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise UserError(f"{where}: {key} is {value!r}, not a whole number")
    if not low <= value <= high:
        raise UserError(f"{where}: {key} is {_told(value)}; allowed is {low} .. {high}")
    return value


def json_time_ns(row: dict[str, Any], key: str, where: str, *, unit_ns: int) -> int:
    """Return a time from 0, or a pause, in ns. `unit_ns` is the unit that the file counts in."""
    value = json_value(row, key, where)
    if type(value) is not int and type(value) is not float:
        raise UserError(f"{where}: {key} is {value!r}, not a number of {_UNITS[unit_ns]}")
    most = MAX_S * NS_PER_S // unit_ns
    if not 0 <= value <= most:
        raise UserError(f"{where}: {key} is {_told(value)}; allowed is 0 .. {most}")
    return round(value * unit_ns)


def _told(value: float) -> str:
    """A number in words: of a long one, how many digits it has."""
    if type(value) is int and abs(value) >= _LONG:
        return f"a {'negative ' if value < 0 else ''}number of {int(math.log10(abs(value))) + 1} digits"
    return f"{value:g}" if type(value) is float else str(value)


def json_block_ids(row: dict[str, Any], where: str, key: str = "hash_ids") -> list[int]:
    """Return the ids of blocks: a list, or an object from the places 0, 1, ... to ids, as pandas has it."""
    ids = json_value(row, key, where)
    if isinstance(ids, dict):
        places = [str(place) for place in range(len(ids))]
        if set(ids) != set(places):
            raise UserError(f"{where}: {key} is an object whose keys are not the places 0 .. {len(ids) - 1}")
        ids = [ids[place] for place in places]
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**63 for i in ids):
        raise UserError(f"{where}: {key} is not a list of whole numbers from 0")
    return ids


def text_count(name: str, text: str, where: str, *, low: int) -> int:
    if not re.fullmatch(r"[-+]?[0-9]{1,18}(\.0{1,6})?", text):
        raise UserError(f"{where}: {name} is {text!r}, not a whole number")
    value = int(text.partition(".")[0])
    if not low <= value <= MAX_TOKENS:
        raise UserError(f"{where}: {name} is {value}; allowed is {low} .. {MAX_TOKENS}")
    return value


def text_time_ns(name: str, text: str, where: str, *, unit_ns: int = NS_PER_S) -> int:
    """Return the ns of a time that counts units of `unit_ns`, rounded down."""
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?", text):
        raise UserError(f"{where}: {name} is {text!r}, not a number of {_UNITS[unit_ns]}")
    time = Decimal(text)
    most = MAX_S * NS_PER_S // unit_ns
    if time > most:
        raise UserError(f"{where}: {name} is {text}; allowed is 0 .. {most}")
    return int(time * unit_ns)


def estimated_tokens(text: str) -> int:
    """Return about how many tokens `text` has: a quarter of its bytes in UTF-8, rounded up, at least 1."""
    return max(1, -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN))

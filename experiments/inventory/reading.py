"""From `cluster.yaml` to an `Inventory`: every refusal names the file, the line and the key."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from experiments import yaml_file
from experiments.errors import UserError
from experiments.named_file import named_text
from experiments.nearest import nearest
from experiments.scenario.problems import dotted
from experiments.yaml_file import KeyPath
from testbed.cluster.inventory import Coordinator, Inventory, Server, faults

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_EXPECTED = re.compile(r"Expected `(?P<wanted>.*)`, got `(?P<got>.*)`")
_KINDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def read_inventory(path: Path) -> Inventory:
    """Return what the file says, with the path of its keys relative to it made absolute.

    Raises `UserError` for what is missing, unknown or not allowed, and if there is no directory of keys.
    """
    source = str(path)
    document = yaml_file.parse(named_text(path, most_bytes=yaml_file.MOST_BYTES, source=source), source)
    origins = {key: f"{source}, line {line}" for key, line in document.lines.items()}
    if not isinstance(document.data, dict):
        raise UserError(f"{source}: an inventory is a mapping of keys to values")
    try:
        inventory = msgspec.convert(document.data, Inventory, strict=True)
    except msgspec.ValidationError as error:
        raise UserError(_in_words(str(error), origins, source)) from None
    wrong = [f"{_origin(_path(key), origins, source)}: {key}: {reason}" for key, reason in faults(inventory)]
    if wrong:
        raise UserError("\n".join(wrong))
    keys = os.path.abspath(path.parent / os.path.expanduser(inventory.keys))
    if not os.path.isdir(keys):
        raise UserError(
            f"{_origin(('keys',), origins, source)}: keys: there is no directory {keys}; make it with `mfs"
            f" cluster keys {shlex.quote(keys)}`"
        )
    return msgspec.structs.replace(inventory, keys=keys)


def _in_words(text: str, origins: Mapping[KeyPath, str], source: str) -> str:
    """What msgspec says, with the place of the key in the file."""
    match = _AT.fullmatch(text)
    assert match is not None  # it matches any line
    what, path = match["what"], _path(match["path"] or "")
    if unknown := _UNKNOWN.fullmatch(what):
        path = (*path, unknown["field"])
        guess = nearest(unknown["field"], _fields(path))
        hint = f"; did you mean {guess!r}?" if guess else ""
        return f"{_origin(path, origins, source)}: unknown key {dotted(path)!r}{hint}"
    if missing := _MISSING.fullmatch(what):
        return f"{_origin(path, origins, source)}: {dotted((*path, missing['field']))!r} is missing"
    if expected := _EXPECTED.fullmatch(what):
        wanted = expected["wanted"]
        what = f"has to be {_KINDS.get(wanted, wanted)}"
    return f"{_origin(path, origins, source)}: {dotted(path)}: {what}"


def _fields(path: KeyPath) -> tuple[str, ...]:
    """The keys that are allowed where the last part of `path` is."""
    kinds: dict[Any, Any] = {"coordinator": Coordinator, "servers": Server}
    kind = kinds.get(path[0], Inventory) if len(path) > 1 else Inventory
    return tuple(kind.__struct_fields__)


def _path(key: str) -> KeyPath:
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", key))


def _origin(path: KeyPath, origins: Mapping[KeyPath, str], source: str) -> str:
    """The place of a key, or of the closest one around it."""
    return next((origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in origins), source)

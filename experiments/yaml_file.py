"""YAML to plain data, with the line of each key.

Stricter than a stock loader where a slip would go unnoticed (a key given twice, a date where text was
meant), and more lenient in one place: `1e9` is a number, as people expect.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from experiments.errors import UserError

KeyPath = tuple[str | int, ...]
"""The place of a value in a document: keys of mappings and indices of lists."""

MOST_BYTES = 2 * 2**20
"""How large a file may be: reading takes some 6 s per MiB, so a larger one would seem to hang."""

MOST_REPEATED = 100_000
"""How many values the aliases of a document may repeat. A few lines of aliases can expand to billions."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """A `SafeLoader` that reads dates as text."""


# YAML 1.1 reads `1:30` as 90. Here it is text.
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")

_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """`data` consists of dicts, lists and scalars. `lines[path]` is the line of a key or item, from 1."""

    data: Any
    lines: dict[KeyPath, int]


def parse(text: str, source: str) -> Document:
    """Read one YAML document.

    Raises `UserError` for a malformed one, or if aliases repeat too much of it. The message names `source`
    and, where it is known, the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_aliases(node, source)
        lines: dict[KeyPath, int] = {}
        data = None if node is None else _plain(loader, node, (), lines, (), source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}" if mark else source
        raise UserError(f"{where}: not YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise UserError(f"{source}: not YAML that can be read: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: not YAML: {str(error).splitlines()[0]}") from None
    return Document(data, lines)


def echo(value: object) -> str:
    """Return a value of a document for a message: as YAML in one line, with quotes around all text."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case list():
            return f"[{', '.join(map(echo, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}: {echo(inner)}" for key, inner in value.items()) + "}"
        case _:
            return repr(value)


def _check_aliases(node: yaml.Node, source: str) -> None:
    """Raise `UserError` if more than `MOST_REPEATED` values would be there only because of aliases."""
    sizes: dict[yaml.Node, int] = {}
    repeated = _expanded(node, sizes) - len(sizes)
    if repeated > MOST_REPEATED:
        raise UserError(
            f"{source}: its aliases (*name) expand to {repeated:,} values more than are written; at most"
            f" {MOST_REPEATED:,} are allowed: repeat less"
        )


def _expanded(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Return how many nodes `node` has when all aliases are written out. `sizes` has those known already.

    A node inside itself counts as nothing there: `_plain` refuses it.
    """
    if node not in sizes:
        sizes[node] = 0
        sizes[node] = 1 + sum(_expanded(inner, sizes) for inner in _inner(node))
    return sizes[node]


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _plain(
    loader: _Loader,
    node: yaml.Node,
    path: KeyPath,
    lines: dict[KeyPath, int],
    above: tuple[yaml.Node, ...],
    source: str,
) -> Any:
    where = f"{source}, line {node.start_mark.line + 1}"
    if node in above:
        raise UserError(f"{where}: this value contains itself")
    inside = (*above, node)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{source}, line {line}: a key must be a plain word")
            key = key_node.value
            if key in mapping:
                raise UserError(f"{source}, line {line}: the key {key!r} is given twice")
            lines[(*path, key)] = line
            mapping[key] = _plain(loader, value_node, (*path, key), lines, inside, source)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for i, item in enumerate(node.value):
            lines[(*path, i)] = item.start_mark.line + 1
            items.append(_plain(loader, item, (*path, i), lines, inside, source))
        return items
    if node.style is None and _SEXAGESIMAL.fullmatch(node.value):
        return node.value
    if node.style is None and _EXPONENT.fullmatch(node.value):
        number = float(node.value)
        return int(number) if number.is_integer() else number
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML leaves it to chance what a text that does not fit its tag raises: `!!bool maybe` a KeyError.
        told = error.problem if isinstance(error, yaml.MarkedYAMLError) else _short(node.value)
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise UserError(f"{where}: not YAML: not a value of {tag}: {told}") from None
    if isinstance(value, str) and _CONTROL.search(value):
        # A terminal would obey it, wherever the text is shown.
        raise UserError(f"{where}: {_short(value)} has a control character")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")

"""Error messages for a scenario, in terms of its file and its options."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from experiments.nearest import nearest
from experiments.scenario.keys import allowed, field_at, suggestion
from experiments.scenario.section import ProblemKind, PydanticKind
from experiments.yaml_file import KeyPath, echo

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "model": "a mapping of keys to values",
    "dict": "a mapping of keys to values",
    "tuple": "a list",
    "enum": "one of the values",
}


def problem_line(problem: ErrorDetails, origins: Mapping[KeyPath, str], source: str) -> str:
    """Describe one error of pydantic in one line: the place, the key, the value, and what is allowed.

    `origins` has the place of each key. `source` is named for a key that is given nowhere.
    """
    context: dict[str, Any] = problem.get("ctx") or {}
    path: KeyPath = tuple(problem["loc"])
    if "key" in context:
        path = _path(context["key"])
    where, key = _origin(path, origins, source), dotted(path)
    kind = problem["type"]
    if kind == PydanticKind.EXTRA:
        guess = suggestion(path)
        return f"{where}: unknown key {key!r}" + (f"; did you mean {guess!r}?" if guess else "")
    if kind == PydanticKind.MISSING:
        return f"{where}: {key!r} is missing"
    if "key" in context or kind == ProblemKind.POLICY:
        return f"{where}: {key}: {problem['msg']}{_beside(context, origins)}"
    return f"{where}: {key}: {_show(problem['input'])} {_reason(problem, path, context)}"


def dotted(path: KeyPath) -> str:
    """Return `("workload", "flows", 1, "dst")` as `workload.flows[1].dst`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _beside(context: Mapping[str, Any], origins: Mapping[KeyPath, str]) -> str:
    """Return the values of other keys that decide, each with the place where it is given."""
    found = []
    for key, value in context.get("beside", {}).items():
        place = origins.get(_path(key))
        found.append(f"; {key} is {echo(value)} {'by default' if place is None else f'({place})'}")
    return "".join(found)


def _path(key: str) -> KeyPath:
    return tuple(int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", key))


def _origin(path: KeyPath, origins: Mapping[KeyPath, str], source: str) -> str:
    for end in range(len(path), 0, -1):
        if path[:end] in origins:
            return origins[path[:end]]
    below = (origin for given, origin in origins.items() if given[: len(path)] == path)
    return next(below, source)


def _reason(problem: ErrorDetails, path: KeyPath, context: Mapping[str, Any]) -> str:
    kind, value = problem["type"], problem["input"]
    field = field_at(path)
    range_text = allowed(field) if field is not None else ""
    if kind == ProblemKind.UNKNOWN_NAME:
        return f"is {problem['msg']}"
    if kind == ProblemKind.SLO:
        return problem["msg"]
    if kind == PydanticKind.ENUM:
        options = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        guess = nearest(str(value), options)
        hint = f"; did you mean {guess!r}?" if guess else ""
        return f"is not one of {', '.join(options)}{hint}"
    if kind == PydanticKind.TOO_SHORT:
        return "is empty: name at least one"
    if kind.startswith("string_"):
        if kind == PydanticKind.STRING_PATTERN:
            return f"is not allowed: it must match {context['pattern']}"
        if kind != PydanticKind.STRING_TYPE:
            return f"is not allowed: {problem['msg'][0].lower()}{problem['msg'][1:]}"
    if kind.startswith(("greater_than", "less_than")):
        return f"is out of range: allowed is {range_text or problem['msg'].split(' be ')[-1]}"
    expected = _EXPECTED.get(kind.split("_")[0], "")
    if not expected:
        return f"is not allowed: {problem['msg'][0].lower()}{problem['msg'][1:]}"
    return f"is not {expected}" + (f" (allowed: {range_text})" if range_text else "")


def _show(value: object) -> str:
    text = echo(value)
    return text if len(text) <= 60 else text[:57] + "..."

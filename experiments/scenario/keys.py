"""The keys of a scenario file and the values they allow, derived from its pydantic models."""

import enum
import types
import typing
from collections.abc import Iterator
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from experiments.nearest import nearest
from experiments.scenario.scenario import Scenario
from experiments.yaml_file import KeyPath


def key_of(name: str, field: FieldInfo) -> str:
    """Return the key of the field `name` in the file. They differ where the key is a Python keyword."""
    return field.alias or name


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section; None for a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def allowed(field: FieldInfo) -> str:
    """Return what a field may be: `"star | leaf-spine"`, `"2 .. 4096"`, or `""` if there is no limit."""
    kinds = _kinds(field.annotation)
    words: list[str] = []
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            words += [str(member.value) for member in kind]
        elif kind is bool:
            words += ["true", "false"]
    low = high = ""
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge():
                low = f"{rule.ge:.12g}"
            case annotated_types.Gt():
                low = f"above {rule.gt:.12g}"
            case annotated_types.Le():
                high = f"{rule.le:.12g}"
    if low and high:
        words.append(f"{low} .. {high}" if low[0].isdigit() else f"{low}, to {high}")
    elif low:
        words.append(low if low.startswith("above") else f"{low} or more")
    if words and type(None) in kinds:
        words.append("null")
    return " | ".join(words)


def field_at(path: KeyPath) -> FieldInfo | None:
    """Return the field that a path of keys leads to; None for an item of a list and for an SLO class."""
    model: type[BaseModel] | None = Scenario
    field: FieldInfo | None = None
    for key in path:
        fields = {} if model is None else _fields(model)
        field = fields.get(str(key))
        if field is None:
            return None
        model = section_of(field)
    return field


def settable_keys() -> list[str]:
    """Return every key that has a value of its own, with its sections: `topology.nic_gbps`."""
    keys = [key for _, key in _dotted_keys(Scenario, "")]
    fields = {key: field_at(tuple(key.split("."))) for key in keys}
    return [key for key, field in fields.items() if field is not None and section_of(field) is None]


def suggestion(path: KeyPath) -> str | None:
    """Return the full key that is closest to an unknown one; None if none is close."""
    *parents, last = (str(part) for part in path)
    siblings = _siblings(path[:-1])
    guess = nearest(last, siblings)
    if guess is not None:
        return ".".join([*parents, guess])
    everywhere = dict(_dotted_keys(Scenario, ""))
    elsewhere = nearest(last, everywhere)
    return everywhere[elsewhere] if elsewhere else None


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {key_of(name, field): field for name, field in model.model_fields.items()}


def _siblings(parents: KeyPath) -> list[str]:
    """Return the keys that are valid below `parents`, also inside lists and dicts of models."""
    kinds: list[Any] = [Scenario]
    for key in parents:
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        if model is not None:
            field = _fields(model).get(str(key))
            kinds = [] if field is None else _kinds(field.annotation)
        else:
            kinds = [arg for kind in kinds for arg in typing.get_args(kind)]
    return [
        key
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for key in _fields(kind)
    ]


def _dotted_keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for key, field in _fields(model).items():
        yield key, prefix + key
        inner = section_of(field)
        if inner is not None:
            yield from _dotted_keys(inner, f"{prefix}{key}.")


def _kinds(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return list(typing.get_args(annotation))
    return [annotation]

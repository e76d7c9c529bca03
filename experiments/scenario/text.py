"""A scenario as YAML that reads back as the same scenario, with a comment for each key."""

import textwrap
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from experiments.scenario.keys import allowed, key_of, section_of
from experiments.scenario.scenario import Scenario

_WIDTH = 100


def to_yaml(scenario: Scenario) -> str:
    """Return every key of `scenario` with its value, and a comment with its meaning and what it may be."""
    return "\n".join(_section(scenario, "")) + "\n"


def _section(model: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    after_section = False
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        inner = section_of(field) is not None
        if (inner or after_section) and not indent:
            lines.append("")
        after_section = inner
        lines += _comment(field, indent)
        key = key_of(name, field)
        if inner:
            lines += [f"{indent}{key}:", *_section(value, indent + "  ")]
        else:
            lines += _entry(key, _plain(value), indent)
    return lines


def _comment(field: FieldInfo, indent: str) -> list[str]:
    words = field.description or ""
    limits = allowed(field)
    if limits:
        words += f" [{limits}]"
    return textwrap.wrap(words, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _entry(key: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [f"{indent}{key}:", *(f"{indent}  - {_inline(item)}" for item in value)]
    return [f"{indent}{key}: {_inline(value)}"]


def _inline(value: Any) -> str:
    text = _dumped(value, allow_unicode=True)
    # Unicode has line breaks that YAML would fold. They have to be escaped.
    return text if text.isprintable() else _dumped(value, allow_unicode=False)


def _dumped(value: Any, *, allow_unicode: bool) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=2**31, allow_unicode=allow_unicode
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    """Return a value as YAML data: the text of an enum, and a model without the keys that are None."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return getattr(value, "value", value)

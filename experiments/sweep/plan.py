"""What a sweep consists of: the points of a product of values, and a cell per point and policy."""

import hashlib
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from experiments import yaml_file
from experiments.errors import UserError
from experiments.results.folder_names import folder_names
from experiments.scenario.reading import Override, override, read_scenario
from experiments.scenario.scenario import Scenario

SEED = "seed"
MOST_CELLS = 100_000
_MOST_NAME = 80

_OWN_OPTION = {
    "policies": "--policy SPEC, repeated",
    "fabric": "--fabric NAME; the cells of a sweep share one fabric",
    "extends": "a sweep for each",
}


@dataclass(frozen=True, slots=True)
class Over:
    """A key and the values it takes (plain data, as read from YAML), in the order given."""

    key: str
    values: tuple[Any, ...]

    def set_to(self, value: Any) -> Override:
        return Override(self.key, json.dumps(value), f"--over {self.key}={as_text(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the product under one policy.

    `name` is that of its directory: readable, and ending in a hash of the scenario and the policy.
    `values` are those of the swept keys; `scenario` is the point's, with every policy of the sweep, and
    `point` tells it from those of the other points. `command` runs this cell alone.
    """

    name: str
    point: str
    values: dict[str, Any]
    policy: str
    scenario: Scenario
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All cells: the policies of the first point, then those of the second."""

    scenario: str
    fabric: str
    over: tuple[Over, ...]
    policies: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def keys(self) -> list[str]:
        """The swept keys but the seed, in the order given."""
        return [one.key for one in self.over if one.key != SEED]

    @property
    def seeds(self) -> int:
        """How many seeds every point has: 0 where the seed is not swept over."""
        return next((len(one.values) for one in self.over if one.key == SEED), 0)


def read_over(text: str) -> Over:
    """`KEY=V1,V2,...` or, for numbers, `KEY=START:STOP:STEP`, both ends included (STEP is 1 if left out).

    Raises `UserError` for a text of another form, a range that does not end, and a value given twice.
    """
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not key or not values.strip():
        raise UserError(f"--over {text}: write it as KEY=V1,V2,... or KEY=START:STOP:STEP")
    if key in _OWN_OPTION:
        raise UserError(f"--over {text}: {key!r} is not swept over; use {_OWN_OPTION[key]}")
    source = f"--over {text}"
    # A list in YAML's flow style: what is quoted or in brackets may have commas of its own.
    listed = _range(values, source) or f"[{values}]"
    found = yaml_file.parse(listed, source).data
    texts = [as_text(value) for value in found]
    twice = next((one for i, one in enumerate(texts) if one in texts[:i]), None)
    if twice is not None:
        raise UserError(f"{source}: {twice} is there twice")
    return Over(key, tuple(found))


def as_text(value: Any) -> str:
    """`value` as it would be written behind `--set KEY=`."""
    if isinstance(value, str) and yaml_file.parse(value, value).data == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def make_plan(
    name_or_path: str,
    *,
    over: Sequence[Over],
    settings: Sequence[str] = (),
    policies: Sequence[str] = (),
    fabric: str,
) -> Plan:
    """Read the scenario and make every cell, each checked as `load_scenario` does.

    `settings` are as in `--set`; no `policies` means those of the scenario. Raises `UserError`, naming
    the option, for what is wrong with any point.
    """
    keys = [one.key for one in over]
    twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
    if twice is not None:
        raise UserError(f"--over {twice}=...: is there twice; give all its values at once")
    fixed = [override(text) for text in settings]
    both = next((item for item in fixed if item.key in keys), None)
    if both is not None:
        raise UserError(f"{both.option}: {both.key!r} is swept over with --over")
    fixed.append(Override("fabric", json.dumps(fabric), f"--fabric {fabric}"))
    if policies:
        asked = " ".join(f"--policy {policy}" for policy in policies)
        fixed.append(Override("policies", json.dumps(list(policies)), asked))
    source = read_scenario(name_or_path)
    first = source.scenario([*fixed, *(one.set_to(one.values[0]) for one in over)])
    count = len(first.policies)
    for one in over:
        count *= len(one.values)
    if count > MOST_CELLS:
        raise UserError(f"the sweep would have {count} cells; {MOST_CELLS} are the most")
    base = ["mfs", "run", name_or_path, "--fabric", fabric]
    for text in settings:
        base += ["--set", text]
    cells: list[Cell] = []
    for values in itertools.product(*(one.values for one in over)):
        chosen = {one.key: value for one, value in zip(over, values, strict=True)}
        scenario = source.scenario([*fixed, *(one.set_to(chosen[one.key]) for one in over)])
        cells += _cells(scenario, chosen, base)
    _refuse_equal(cells)
    return Plan(
        scenario=first.name, fabric=fabric, over=tuple(over), policies=first.policies, cells=tuple(cells)
    )


def _cells(scenario: Scenario, values: dict[str, Any], base: Sequence[str]) -> list[Cell]:
    alone = scenario.model_dump(mode="json", by_alias=True, exclude={"policies"})
    point = _digest(alone)
    texts = {key: as_text(value) for key, value in values.items()}
    settings = [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]
    readable = [f"{key.rpartition('.')[2]}={text}" for key, text in texts.items()]
    cells = []
    for policy in scenario.policies:
        (folder,) = folder_names(["_".join([*readable, policy])])
        cells.append(
            Cell(
                name=f"{folder[:_MOST_NAME]}_{_digest([point, policy])}",
                point=point,
                values=values,
                policy=policy,
                scenario=scenario,
                command=shlex.join([*base, *settings, "--policy", policy]),
            )
        )
    return cells


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _refuse_equal(cells: Sequence[Cell]) -> None:
    first: dict[str, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.point, cell)
        if _said(other) != _said(cell):
            raise UserError(f"--over: {_said(other)} and {_said(cell)} are the same scenario")


def _said(cell: Cell) -> str:
    return ", ".join(f"{key}={as_text(value)}" for key, value in cell.values.items())


def _range(values: str, source: str) -> str | None:
    """The numbers of `START:STOP` or `START:STOP:STEP` as a list in YAML, None where `values` is no range."""
    parts = values.split(":")
    try:
        start, stop, *rest = (Decimal(part.strip()) for part in parts)
    except (InvalidOperation, ValueError):
        return None
    if len(rest) > 1:
        return None
    step = rest[0] if rest else Decimal(1)
    if not all(number.is_finite() for number in (start, stop, step)) or step == 0:
        raise UserError(f"{source}: a range needs finite numbers and a STEP that is not 0")
    if (stop - start) * step < 0:
        raise UserError(f"{source}: from {start} in steps of {step} there is no way to {stop}")
    count = int((stop - start) / step) + 1
    if count > MOST_CELLS:
        raise UserError(f"{source}: {count} values; a sweep has {MOST_CELLS} cells at most")
    # Decimal, so that 0.1:0.3:0.1 ends at 0.3 and every value is written as the user would.
    return f"[{', '.join(f'{start + i * step:f}' for i in range(count))}]"

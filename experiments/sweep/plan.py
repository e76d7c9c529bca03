"""The plan of a sweep: the points of a product of values, and a cell per point and policy."""

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
from experiments.results.paired import REPLICATES, SEED, WINDOW
from experiments.scenario.reading import Override, ScenarioFile, override, read_scenario, shortened
from experiments.scenario.scenario import Scenario
from experiments.sweep.windows import skip_to

MOST_CELLS = 100_000
_MOST_NAME = 80
_MOST_DIGITS = 30

_OWN_OPTION = {
    "policies": "--policy SPEC, repeated",
    "fabric": "--fabric NAME; the cells of a sweep share one fabric",
    "extends": "a sweep for each",
}


@dataclass(frozen=True, slots=True)
class Over:
    """A swept key and its values, in the order given. Values are plain data, as read from YAML."""

    key: str
    values: tuple[Any, ...]

    def set_to(self, value: Any) -> Override:
        return Override(self.key, json.dumps(value), shortened(f"--over {self.key}={as_text(value)}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the product under one policy.

    `name` is the name of its directory: readable, and ending in a hash of the scenario and the policy.
    `values` are the values of the swept keys. `scenario` is the scenario of the point, with every policy of
    the sweep; `point` is a hash of it without the policies. `command` runs this cell alone.
    """

    name: str
    point: str
    values: dict[str, Any]
    policy: str
    scenario: Scenario
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All cells, point by point; the cells of a point are in the order of the policies.

    With `ceiling`, the cells of the first policy are simulated without a network, too.
    """

    scenario: str
    fabric: str
    over: tuple[Over, ...]
    policies: tuple[str, ...]
    cells: tuple[Cell, ...]
    ceiling: bool = False

    @property
    def keys(self) -> list[str]:
        """The swept keys without the seed and the window, in the order given."""
        return [one.key for one in self.over if one.key not in REPLICATES]

    @property
    def replicates(self) -> int:
        """Seeds or windows per point; 0 if neither is swept."""
        return next((len(one.values) for one in self.over if one.key in REPLICATES), 0)

    @property
    def replicates_are(self) -> str:
        """What the replicates are, in the plural."""
        return "windows" if any(one.key == WINDOW for one in self.over) else "seeds"


def read_over(text: str) -> Over:
    """Read `KEY=V1,V2,...` or, for numbers, `KEY=START:STOP:STEP`. `window=N` has the values 0 to N - 1.

    STEP is 1 if left out; STOP is included if a step ends there. Raises `UserError` for a text of another
    form, a range that never ends or is too long, a value given twice, and a key with an option of its own.
    """
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not key or not values.strip():
        raise UserError(f"--over {shortened(text)}: write it as KEY=V1,V2,... or KEY=START:STOP:STEP")
    source = f"--over {shortened(text)}"
    # YAML's flow style, so that values in quotes or brackets may contain commas.
    listed = _range(values, source) or f"[{values}]"
    return checked_over(key, yaml_file.parse(listed, source).data, source)


def checked_over(key: str, found: Sequence[Any], source: str) -> Over:
    """Return the swept key with the values `found`. `source` names the option in messages.

    Windows of a trace are given by their number, or all in order. Raises `UserError` for no values, a value
    given twice, and a key with an option of its own.
    """
    if key == WINDOW:
        return Over(key, _windows(found, source))
    if key in _OWN_OPTION:
        raise UserError(f"{source}: {key!r} cannot be swept; use {_OWN_OPTION[key]}")
    if not found:
        raise UserError(f"{source}: there are no values")
    if len(found) > MOST_CELLS:
        raise UserError(f"{source}: {len(found)} values; a sweep has at most {MOST_CELLS} cells")
    seen: set[str] = set()
    for text in map(as_text, found):
        if text in seen:
            raise UserError(f"{source}: {shortened(text)} is given twice")
        seen.add(text)
    return Over(key, tuple(found))


def _windows(found: Sequence[Any], source: str) -> tuple[int, ...]:
    count = found[0] if len(found) == 1 else len(found)
    if type(count) is int and 0 < count <= MOST_CELLS:
        windows = tuple(range(count))
        if list(found) in ([count], list(windows)):
            return windows
    raise UserError(f"{source}: give the number of windows, as in --over {WINDOW}=8")


def as_text(value: Any) -> str:
    """Return `value` as it would be written after `--set KEY=`."""
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
    ceiling: bool = False,
) -> Plan:
    """Read the scenario and make all cells. Each point is checked as by `load_scenario`.

    `settings` are texts of `--set`; without `policies`, the scenario's own are used. Raises `UserError`,
    naming the option, if anything is wrong with a point.
    """
    keys = [one.key for one in over]
    twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
    if twice is not None:
        raise UserError(f"--over {twice}=...: is given twice; give all its values in one option")
    if set(REPLICATES).issubset(keys):
        raise UserError(
            f"--over {SEED}=...: cannot be swept together with {WINDOW}: replicates are either, and several"
            " seeds of one window are not independent"
        )
    fixed = [override(text) for text in settings]
    both = next((item for item in fixed if item.key in keys), None)
    if both is not None:
        raise UserError(f"{both.option}: {both.key!r} is already swept with --over")
    fixed.append(Override("fabric", json.dumps(fabric), f"--fabric {fabric}"))
    if policies:
        asked = " ".join(f"--policy {policy}" for policy in policies)
        fixed.append(Override("policies", json.dumps(list(policies)), asked))
    source = read_scenario(name_or_path)
    first = _point(source, fixed, [(one, one.values[0]) for one in over])
    count = len(first.policies)
    for one in over:
        count *= len(one.values)
    if count > MOST_CELLS:
        raise UserError(f"the sweep would have {count} cells; at most {MOST_CELLS} are allowed")
    base = ["mfs", "run", name_or_path, "--fabric", fabric]
    for text in settings:
        base += ["--set", text]
    base += ["--ceiling"] if ceiling else []
    cells: list[Cell] = []
    for values in itertools.product(*(one.values for one in over)):
        chosen = list(zip(over, values, strict=True))
        scenario = _point(source, fixed, chosen)
        cells += _cells(scenario, {one.key: value for one, value in chosen}, base)
    _refuse_equal(cells)
    return Plan(
        scenario=first.name,
        fabric=fabric,
        over=tuple(over),
        policies=first.policies,
        cells=tuple(cells),
        ceiling=ceiling,
    )


def _point(source: ScenarioFile, fixed: Sequence[Override], chosen: Sequence[tuple[Over, Any]]) -> Scenario:
    overrides = [*fixed, *(one.set_to(value) for one, value in chosen if one.key != WINDOW)]
    window = next(((one, value) for one, value in chosen if one.key == WINDOW), None)
    if window is None:
        return source.scenario(overrides)
    # Which rows a window begins with depends on the other values.
    one, number = window
    skip = skip_to(source.scenario(overrides), number, len(one.values))
    return source.scenario([*(item for item in overrides if item.key != skip.key), skip])


def _cells(scenario: Scenario, values: dict[str, Any], base: Sequence[str]) -> list[Cell]:
    alone = scenario.model_dump(mode="json", by_alias=True, exclude={"policies"})
    point = _digest(alone)
    texts = {key: as_text(value) for key, value in values.items()}
    # The window is no key of a scenario.
    told = {key: text for key, text in texts.items() if key != WINDOW}
    if WINDOW in texts:
        told["workload.skip"] = str(scenario.workload.skip)
    settings = [word for key, text in told.items() for word in ("--set", f"{key}={text}")]
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
        if other.values is not cell.values and _said(other) != _said(cell):
            raise UserError(f"--over: {_said(other)} and {_said(cell)} are the same scenario")


def _said(cell: Cell) -> str:
    return ", ".join(f"{key}={as_text(value)}" for key, value in cell.values.items())


def _range(values: str, source: str) -> str | None:
    """Return the numbers of `START:STOP` or `START:STOP:STEP` as a YAML list; None for no range."""
    parts = values.split(":")
    try:
        start, stop, *rest = (Decimal(part.strip()) for part in parts)
    except (InvalidOperation, ValueError):
        return None
    if len(rest) > 1:
        return None
    step = rest[0] if rest else Decimal(1)
    if not all(one.is_finite() and abs(one.adjusted()) <= _MOST_DIGITS for one in (start, stop, step)):
        raise UserError(f"{source}: a range needs numbers of at most {_MOST_DIGITS} digits")
    if step == 0:
        raise UserError(f"{source}: a range needs a STEP that is not 0")
    if (stop - start) * step < 0:
        raise UserError(f"{source}: from {start} in steps of {step}, the range never reaches {stop}")
    count = int((stop - start) / step) + 1
    if count > MOST_CELLS:
        raise UserError(f"{source}: {count} values; a sweep has at most {MOST_CELLS} cells")
    # Decimal, so that 0.1:0.3:0.1 ends at 0.3 and every value is written as a user would write it.
    return f"[{', '.join(f'{start + i * step:f}' for i in range(count))}]"

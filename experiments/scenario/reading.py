"""From a name or a file, and the options of the command line, to a checked `Scenario`.

Layers are merged from the most basic one (`extends`) to the command line (`--set`), which has the last
word: mappings key by key, lists and values as a whole. The place of every key is kept, so that an error can
say which file and line, or which option, to change.
"""

import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from experiments import yaml_file
from experiments.errors import UserError
from experiments.named_file import named_text
from experiments.nearest import nearest
from experiments.scenario.gpu_profile import as_gpu_path
from experiments.scenario.model_file import as_model_path
from experiments.scenario.problems import problem_line
from experiments.scenario.scenario import Scenario
from experiments.scenario.section import PydanticKind
from experiments.scenario.workload import SYNTHETIC, TRACES
from experiments.trace_formats.formats import detect_format
from experiments.yaml_file import KeyPath

_ALTERNATIVES = (
    ("workload", ("rate", "load", "time_scale")),
    ("slo", ("multiple", "absolute_s")),
)
"""Keys that exclude each other. A layer that sets one of them clears the others that it inherits."""

_FILES = (("workload", "path"), ("simulation", "calibration"), ("topology", "path"))
"""Keys that name a file, relative to the file they are in."""

_NAMES_OR_FILES = {"model": as_model_path, "gpu": as_gpu_path}
"""Keys that name something known or a file."""

_MOST_PARTS = 16
_MOST_EXTENDED = 32

_KIND_OF_FORMAT = {format: kind for kind, format in TRACES.items()}


@dataclass(frozen=True, slots=True)
class Layer:
    """The keys of one file, or of all options. `origins[path]` is the place of a key in error messages."""

    data: dict[str, Any]
    source: str
    origins: dict[KeyPath, str]
    directory: Path


@dataclass(frozen=True, slots=True)
class Override:
    """A key given on the command line. `value` is YAML text, `option` the option as the user wrote it."""

    key: str
    value: str
    option: str


def override(text: str) -> Override:
    """Read `key.path=value` as given to `--set`. Raises `UserError` for text of another form."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(
            f"--set {shortened(text)}: write it as key.path=value, e.g. --set topology.servers=12"
        )
    if key.count(".") >= _MOST_PARTS:
        raise UserError(f"--set {shortened(key)}: has more than {_MOST_PARTS} parts; no key has so many")
    return Override(key.strip(), value, f"--set {shortened(text)}")


def shortened(text: str) -> str:
    """Return an option for a message, which nobody reads to the end of if it has thousands of characters."""
    return text if len(text) <= 200 else f"{text[:197]}..."


def load_scenario(name_or_path: str, overrides: list[Override] | None = None) -> Scenario:
    """Return the scenario of that name, or the one in that YAML file, with `overrides` applied.

    Raises `UserError` for a file that does not exist or is not YAML, for a key that does not exist and for
    a value that is not allowed. The message names the place, the key and what is allowed.
    """
    return read_scenario(name_or_path).scenario(overrides)


@dataclass(frozen=True, slots=True)
class ScenarioFile:
    """The layers of a scenario as read, the most basic first. Many scenarios can be made from them."""

    layers: tuple[Layer, ...]

    def scenario(self, overrides: list[Override] | None = None) -> Scenario:
        """Do the same as `load_scenario`, without reading the scenario files again."""
        added = [_override_layer(overrides)] if overrides else []
        return _checked([*self.layers, *added])


def read_scenario(name_or_path: str) -> ScenarioFile:
    """Read the scenario of that name, or the one in that YAML file. Raises `UserError`."""
    return ScenarioFile(tuple(_layers(*_locate(name_or_path, Path.cwd(), ""), seen=())))


def builtin_scenarios() -> dict[str, Path]:
    """Return the files of the scenarios that come with the package, by name."""
    folder = Path(str(resources.files("experiments") / "scenarios"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _locate(name: str, relative_to: Path, asked_by: str) -> tuple[Path, str]:
    """Return the file of a scenario name or path, and its name in messages."""
    builtin = builtin_scenarios()
    if name in builtin:
        return builtin[name], f"scenario {name}"
    path = relative_to / os.path.expanduser(name)
    if os.path.isdir(path):
        raise UserError(f"{asked_by}{name}: this is a directory; a scenario is a YAML file")
    if os.path.exists(path):
        return path, name
    guess = nearest(name, builtin)
    hint = f"; did you mean {guess!r}?" if guess else ""
    raise UserError(
        f"{asked_by}no scenario {name!r}: there is no such file, and the scenarios here are "
        f"{', '.join(builtin)}{hint}"
    )


def _layers(path: Path, source: str, seen: tuple[Path, ...]) -> list[Layer]:
    """Return the layers of a file and of all that it extends, the most basic first."""
    text = named_text(path, most_bytes=yaml_file.MOST_BYTES, source=source)
    document = yaml_file.parse(text, source)
    data = document.data
    if data is None or data == {}:
        # Every key has a default, so a file that was cut off would run as something else.
        raise UserError(f"{source}: says nothing; a scenario sets one key at least, such as 'extends'")
    if not isinstance(data, dict):
        raise UserError(f"{source}: a scenario is a mapping of keys to values")
    below: list[Layer] = []
    if "extends" in data:
        base = data.pop("extends")
        where = f"{source}, line {document.lines['extends',]}: extends: "
        if not isinstance(base, str):
            raise UserError(f"{where}name one scenario or file, not {yaml_file.echo(base)}")
        base_path, base_source = _locate(base, path.parent, where)
        chain = (*seen, path.resolve())
        if base_path.resolve() in chain:
            raise UserError(f"{where}{base} extends this one in turn")
        if len(chain) > _MOST_EXTENDED:
            raise UserError(f"{where}{base}: a chain of more than {_MOST_EXTENDED} files; put some together")
        below = _layers(base_path, base_source, chain)
    data.setdefault("name", _name_from(path))
    document.lines.pop(("extends",), None)
    origins = {key: f"{source}, line {line}" for key, line in document.lines.items()}
    return [*below, Layer(data, source, origins, path.parent)]


def _name_from(path: Path) -> str:
    """Return a scenario name for a file: its stem, without what cannot be part of a directory's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "unnamed"


def _override_layer(overrides: list[Override]) -> Layer:
    """Return all options as one layer, so that setting two keys that exclude each other is an error."""
    layer = Layer({}, "the command line", {}, Path.cwd())
    for item in overrides:
        document = yaml_file.parse(item.value, item.option)
        data = document.data
        keys = tuple(item.key.split("."))
        for key in reversed(keys):
            data = {key: data}
        layer.origins.update(dict.fromkeys([keys, *map(keys.__add__, document.lines)], item.option))
        _merge(layer.data, data)
    return layer


def _checked(layers: list[Layer]) -> Scenario:
    merged: dict[str, Any] = {}
    origins: dict[KeyPath, str] = {}
    for layer in layers:
        _take_back_alternatives(merged, layer)
        _merge(merged, _with_absolute_paths(layer))
        origins = _without_replaced(origins, layer) | layer.origins
    try:
        # Validating JSON is strict about numbers, and still accepts text for enums and lists for tuples.
        scenario = Scenario.model_validate_json(json.dumps(merged, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors()
        # pydantic also calls a list with wrong items too short: report only the items.
        inside = {problem["loc"][:-1] for problem in problems}
        found = [
            problem_line(problem, origins, layers[-1].source)
            for problem in problems
            if problem["type"] != PydanticKind.TOO_SHORT or problem["loc"] not in inside
        ]
        raise UserError("\n".join(dict.fromkeys(found))) from None
    return _with_detected_kind(scenario)


def _without_replaced(origins: dict[KeyPath, str], layer: Layer) -> dict[KeyPath, str]:
    """Return `origins` without those inside a list or value that `layer` replaces as a whole."""
    replaced = {path for path in layer.origins if not isinstance(_at(layer.data, path), dict)}
    return {
        path: origin
        for path, origin in origins.items()
        if not any(path[:end] in replaced for end in range(1, len(path)))
    }


def _at(data: Any, path: KeyPath) -> Any:
    """Return the value at `path`; None if a later option has replaced a value on the way to it."""
    for key in path:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _merge(into: dict[str, Any], data: dict[str, Any]) -> None:
    for key, value in data.items():
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def _take_back_alternatives(merged: dict[str, Any], layer: Layer) -> None:
    for section, keys in _ALTERNATIVES:
        new = layer.data.get(section)
        if not isinstance(new, dict) or all(new.get(key) is None for key in keys):
            continue
        inherited = merged.setdefault(section, {})
        if isinstance(inherited, dict):
            inherited.update(dict.fromkeys(keys))


def _with_absolute_paths(layer: Layer) -> dict[str, Any]:
    """Return the layer's keys, with absolute paths for the files that they name."""
    data = layer.data
    for name, key in _FILES:
        section = data.get(name)
        if isinstance(section, dict) and isinstance(section.get(key), str):
            path = os.path.abspath(layer.directory / os.path.expanduser(section[key]))
            data = {**data, name: {**section, key: path}}
    for key, as_path in _NAMES_OR_FILES.items():
        if isinstance(data.get(key), str):
            found = as_path(data[key], layer.directory)
            data = {**data, key: found or data[key]}
    return data


def _with_detected_kind(scenario: Scenario) -> Scenario:
    """Set the kind of a workload that has a trace and a generated kind to the kind of the trace."""
    workload = scenario.workload
    if workload.path is None or workload.kind not in SYNTHETIC:
        return scenario
    kind = _KIND_OF_FORMAT[detect_format(Path(workload.path))]
    return scenario.model_copy(update={"workload": workload.model_copy(update={"kind": kind})})

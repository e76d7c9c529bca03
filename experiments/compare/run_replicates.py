"""Whether run directories are replicates of each other: the same scenario on other requests."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import yaml

from experiments.results.paired import SEED
from experiments.results.readable_numbers import NOTHING
from experiments.results.reading import RunDirectory

_SKIP: Final = "workload.skip"
_MAY_DIFFER: Final = frozenset({SEED, _SKIP, "name", "description", "policies"})
"""Seeds and windows make replicates of a scenario. Policies are paired by their names."""

_MOST_KEYS: Final = 3


def objections(directories: Sequence[RunDirectory]) -> list[str]:
    """Say which directories have the same seed and window, and which ran another scenario than the first.

    Two runs of the same requests are no two replicates: an interval over them says nothing of other requests.
    """
    found = []
    scenarios = {one.path: _keys(yaml.safe_load(one.scenario_yaml) or {}) for one in directories}
    first_with: dict[tuple[Any, Any], Path] = {}
    for one in directories:
        work = (one.summary["seed"], scenarios[one.path].get(_SKIP))
        other = first_with.setdefault(work, one.path)
        if other != one.path:
            found.append(
                f"{other} and {one.path} have the same requests, of seed {work[0]}: no two replicates"
            )
    for before, after in pairwise(directories):
        if different := _differences(scenarios[before.path], scenarios[after.path]):
            found.append(f"{before.path} and {after.path} ran different scenarios: {different}")
    return found


def _keys(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return the values of a tree by their keys, as `workload.load`."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            found |= _keys(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    keys = [key for key in {**ours, **theirs} if key not in _MAY_DIFFER and ours.get(key) != theirs.get(key)]
    told = [f"{key} {_word(ours.get(key))} and {_word(theirs.get(key))}" for key in keys[:_MOST_KEYS]]
    more = len(keys) - len(told)
    return ", ".join([*told, *([f"and {more} more keys"] if more else [])])


def _word(value: Any) -> str:
    return NOTHING if value is None else str(value)

"""What makes the results of a sweep say less than they seem to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.compare.sides import SAME_RATE, SAME_SLO
from experiments.results.paired import REPLICATES
from experiments.results.readable_numbers import duration
from experiments.sweep.cell import outcomes, summary_of
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.results import CellRow, Measure
from experiments.sweep.windows import seed_warning

_LOAD: Final = "workload.load"
_MULTIPLE: Final = "slo.multiple"
_SAME: Final = 1.005
"""Rates, or SLOs, that differ by less than this factor are one."""


def notes_of(directory: Path, plan: Plan, rows: Sequence[CellRow]) -> list[str]:
    """Return the notes on the results of `plan`, whose rows so far are `rows`."""
    differ = (*rate_notes(plan, rows), *slo_notes(plan, rows))
    return [*common_notes(directory, plan), *differ, *seed_notes(plan, rows)]


def common_notes(directory: Path, plan: Plan) -> list[str]:
    """Return the notes that all finished cells have, in their order there."""
    common: list[str] | None = None
    for name, outcome in outcomes(directory, plan).items():
        if outcome.error is None:
            notes: list[str] = summary_of(directory / "cells" / name, outcome)["notes"]
            common = notes if common is None else [note for note in common if note in notes]
    return common or []


def rate_notes(plan: Plan, rows: Sequence[CellRow]) -> Iterator[str]:
    """Yield a note on each load at which points have different rates, as those of different clusters do."""
    loads = {f"cells/{cell.name}": cell.scenario.workload.load for cell in plan.cells}
    for load, ends in _ends(plan, rows, Measure.ARRIVAL_RPS, loads, _LOAD):
        (least, low), (most, high) = ends
        yield (
            f"at load {load:g}, {low:.3g} requests/s arrive with {least}, and {high:.3g} with {most}:"
            f" {SAME_RATE}"
        )


def slo_notes(plan: Plan, rows: Sequence[CellRow]) -> Iterator[str]:
    """Yield a note on each multiple that is a different SLO at different points, as on different clusters."""
    multiples = {f"cells/{cell.name}": cell.scenario.slo.multiple for cell in plan.cells}
    for multiple, ends in _ends(plan, rows, Measure.SLO_MEAN_S, multiples, _MULTIPLE):
        (least, low), (most, high) = ends
        yield (
            f"with slo.multiple {multiple:g}, the mean SLO is {duration(low)} with {least}, and"
            f" {duration(high)} with {most}: {SAME_SLO}"
        )


def _ends(
    plan: Plan,
    rows: Sequence[CellRow],
    measure: Measure,
    settings: Mapping[str, float | None],
    key: str,
) -> Iterator[tuple[float, tuple[tuple[str, float], tuple[str, float]]]]:
    """For each of `settings`, yield the points with the least and the most of `measure` if these differ.

    `settings` are by cell, and `key` is their key, which is not named.
    """
    found: dict[float, dict[str, dict[str, float]]] = {}
    for row in rows:
        setting, value = settings[row["cell"]], row.get(measure)
        if setting is None or value is None or row["policy"] != plan.policies[0]:
            continue
        point = ", ".join(f"{one}={as_text(row[one])}" for one in plan.keys if one != key)
        found.setdefault(setting, {}).setdefault(point, {})[_replicate(row)] = value
    for setting, points in found.items():
        # Means over the replicates that all points have: others have other requests.
        shared = set.intersection(*(set(values) for values in points.values()))
        if not shared:
            continue
        means = {point: sum(values[one] for one in shared) / len(shared) for point, values in points.items()}
        least, most = (end(means, key=means.__getitem__) for end in (min, max))
        if means[most] > _SAME * means[least]:
            yield setting, ((least, means[least]), (most, means[most]))


def _replicate(row: Mapping[str, Any]) -> str:
    return json.dumps([row.get(key) for key in REPLICATES])


def seed_notes(plan: Plan, rows: Sequence[CellRow]) -> list[str]:
    """Say so if seeds gave the same results, or are no replicates: neither must pass for a small spread."""
    if plan.replicates < 2 or plan.replicates_are != "seeds":
        return []
    warned = plan_warnings(plan)
    found: dict[str, list[list[Any]]] = {}
    for row in rows:
        if row["error"] is None:
            alike = json.dumps([[row[key] for key in plan.keys], row["policy"]])
            found.setdefault(alike, []).append([row[name] for name in Measure])
    several = [measured for measured in found.values() if len(measured) > 1]
    if not several or any(one != each[0] for each in several for one in each):
        return warned
    return [
        *warned,
        f"the seed makes no difference: under each policy, all {plan.replicates} gave the same results",
    ]


def plan_warnings(plan: Plan) -> list[str]:
    """Return what makes the results of `plan` say less than they seem to."""
    if plan.replicates_are != "seeds":
        return []
    found = (seed_warning(cell.scenario, plan.replicates) for cell in plan.cells)
    return list(dict.fromkeys(text for text in found if text))

"""What makes the results of a sweep say less than they seem to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.compare.sides import SAME_RATE
from experiments.results.paired import REPLICATES
from experiments.sweep.cell import outcomes, summary_of
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.results import CellRow, Measure
from experiments.sweep.windows import seed_warning

_LOAD: Final = "workload.load"
_SAME: Final = 1.005
"""Rates that differ by less than this factor are one rate."""


def notes_of(directory: Path, plan: Plan, rows: Sequence[CellRow]) -> list[str]:
    """Return the notes on the results of `plan`, whose rows so far are `rows`."""
    return [*common_notes(directory, plan), *rate_notes(plan, rows), *seed_notes(plan, rows)]


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
    found: dict[float, dict[str, dict[str, float]]] = {}
    for row in rows:
        load, rate = loads[row["cell"]], row.get(Measure.ARRIVAL_RPS)
        if load is None or rate is None or row["policy"] != plan.policies[0]:
            continue
        point = ", ".join(f"{key}={as_text(row[key])}" for key in plan.keys if key != _LOAD)
        found.setdefault(load, {}).setdefault(point, {})[_replicate(row)] = rate
    for load, points in found.items():
        # Means over the replicates that all points have: others have other arrivals.
        shared = set.intersection(*(set(rates) for rates in points.values()))
        if not shared:
            continue
        means = {point: sum(rates[one] for one in shared) / len(shared) for point, rates in points.items()}
        least, most = (end(means, key=means.__getitem__) for end in (min, max))
        if means[most] > _SAME * means[least]:
            yield (
                f"at load {load:g}, {means[least]:.3g} requests/s arrive with {least}, and {means[most]:.3g} "
                f"with {most}: {SAME_RATE}"
            )


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

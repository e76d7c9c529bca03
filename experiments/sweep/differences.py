"""How the policies of a sweep differ from its first one, in `sweep.json`, `differences.csv` and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.atomic_file import write_text
from experiments.compare.replicates import MEASURES, of_cells, replicate_differences
from experiments.csv_text import csv_text
from experiments.results.difference_words import difference_words
from experiments.results.paired import Difference
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.results import CellRow

_COLUMNS = ("policy", "against", "measure", "reference", "mean", "low", "high", "replicates", "shown")


def differences_of(plan: Plan, rows: Sequence[CellRow]) -> list[dict[str, Any]]:
    """Compare each policy with the first one of the plan, at each point.

    Returns a row per point, policy and measure: the swept keys, `policy`, `against`, `measure`, `reference`
    (the mean under the first policy), `mean`, `low`, `high`, `replicates` and `shown`. A replicate counts if
    both of its cells have finished and have the measure.
    """
    return [
        {
            **one.values,
            "policy": one.side,
            "against": one.against,
            "measure": one.measure,
            "reference": one.reference,
            "mean": one.difference.mean,
            "low": one.difference.low,
            "high": one.difference.high,
            "replicates": one.difference.count,
            "shown": one.difference.shown,
        }
        for one in replicate_differences(of_cells(rows, plan.keys), plan.policies[0])
    ]


def words_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return a row in words: the difference, and its interval, which is empty without one."""
    fields = {name: row[name] for name in ("mean", "low", "high")}
    difference = Difference(**fields, count=row["replicates"])
    return difference_words(difference, MEASURES[row["measure"]][1])


def write_differences(directory: Path, plan: Plan, rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows` to `differences.csv`, with empty fields for None."""
    lines = [
        [*(None if row[key] is None else as_text(row[key]) for key in plan.keys), *map(row.get, _COLUMNS)]
        for row in rows
    ]
    write_text(directory / "differences.csv", csv_text([[*plan.keys, *_COLUMNS], *lines]))

"""The files of a search: `capacity.json`, `capacity.csv`, `curve.csv` and `cells.csv`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.atomic_file import write_text
from experiments.capacity.answer import Attained, PolicyCapacity, capacities, curve_of, mean_curve
from experiments.capacity.question import RATE, Question
from experiments.capacity.words import sentences
from experiments.csv_text import csv_text
from experiments.json_text import json_text
from experiments.resolve.capacity import Capacity
from experiments.results.paired import REPLICATES
from experiments.sweep.notes import plan_warnings
from experiments.sweep.plan import Plan
from experiments.sweep.results import CellRow

_CAPACITY: Final = (
    "policy",
    "outcome",
    "rate_rps",
    "low",
    "high",
    "load",
    "holds_rps",
    "fails_rps",
    "holds_again_rps",
    "lowest_tried_rps",
    "highest_tried_rps",
    "replicates",
    "ratio",
    "ratio_low",
    "ratio_high",
)
_CURVE: Final = ("policy", "rate_rps", "load", "grid", "slo_attainment", "low", "high", "replicates")


def content_of(
    question: Question,
    plan: Plan,
    rates: Sequence[float],
    estimate: Capacity,
    rows: Sequence[CellRow],
    *,
    attained: Mapping[str, Attained],
    command: str,
) -> dict[str, Any]:
    """Return the content of `capacity.json`. `rates` are those of the grid, `plan` is its plan."""
    found = capacities(attained, question.attain)
    return {
        "scenario": plan.scenario,
        "attain": question.attain,
        "within": question.within,
        "replicates": plan.replicates_are if plan.replicates else None,
        "estimated_rps": estimate.rps,
        "against": plan.policies[0],
        "command": command,
        "notes": [*plan_warnings(plan), *sentences(found, question)],
        "failed": [{"cell": row["cell"], "error": row["error"]} for row in rows if row["error"] is not None],
        "capacities": [_capacity(one, estimate.rps) for one in found],
        "curve": [
            {
                "policy": policy,
                "rate_rps": rate,
                "load": rate / estimate.rps,
                "grid": rate in rates,
                "slo_attainment": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "replicates": mean.count,
            }
            for policy, of_policy in attained.items()
            for rate, mean in curve_of(of_policy, sorted({*rates, *mean_curve(of_policy)}))
        ],
        "cells": [_cell(row) for row in rows],
    }


def _capacity(one: PolicyCapacity, estimated_rps: float) -> dict[str, Any]:
    rate, ratio = one.rate_rps, one.ratio
    lowest, highest = one.tried_rps or (None, None)
    return {
        "policy": one.policy,
        "outcome": one.bracket.outcome,
        "rate_rps": None if rate is None else rate.value,
        "low": None if rate is None else rate.low,
        "high": None if rate is None else rate.high,
        "load": None if rate is None else rate.value / estimated_rps,
        "holds_rps": one.bracket.holds,
        "fails_rps": one.bracket.fails,
        "holds_again_rps": one.bracket.again,
        "lowest_tried_rps": lowest,
        "highest_tried_rps": highest,
        "replicates": one.replicates,
        "ratio": None if ratio is None else ratio.value,
        "ratio_low": None if ratio is None else ratio.low,
        "ratio_high": None if ratio is None else ratio.high,
    }


def _cell(row: CellRow) -> dict[str, Any]:
    names = (
        "policy",
        *(key for key in REPLICATES if key in row),
        RATE,
        "slo_attainment",
        "ttft_mean_s",
        "cell",
    )
    return {name: row[name] for name in names}


def write_answer(directory: Path, content: Mapping[str, Any]) -> None:
    """Write all files. Raises `OSError`."""
    write_text(directory / "capacity.csv", _csv(_CAPACITY, content["capacities"]))
    write_text(directory / "curve.csv", _csv(_CURVE, content["curve"]))
    cells = content["cells"]
    write_text(directory / "cells.csv", _csv(tuple(cells[0]) if cells else (), cells))
    write_text(directory / "capacity.json", json_text(content))


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    return csv_text([columns, *([row[name] for name in columns] for row in rows)])

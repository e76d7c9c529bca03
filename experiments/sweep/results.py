"""What a sweep brings back: a row per cell, and the means over seeds that its table and page show."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from experiments.atomic_file import write_text
from experiments.json_text import json_text
from experiments.results.readable_numbers import NOTHING, duration, share
from experiments.sweep.cell import cell_directory, outcomes
from experiments.sweep.plan import Plan, as_text

Row = dict[str, Any]

SEED = "seed"
MEASURES = (
    "requests",
    "completed",
    "pruned",
    "failed",
    "slo_attainment",
    "ttft_mean_s",
    "ttft_p50_s",
    "ttft_p90_s",
    "ttft_p99_s",
    "cct_mean_s",
    "cct_p99_s",
    "coflow_mean_s",
    "tpot_mean_s",
    "local_tokens",
    "remote_tokens",
    "missed_tokens",
    "evicted_blocks",
    "duration_s",
    "faithful",
)
"""The measures of a row, as in `runs[]` of a summary. All are None for a cell that failed."""

_LAST_RESORT = "duration_s"
"""Shown of single flows, which have none of the other measures."""

_TITLES = {
    "slo_attainment": "SLO met",
    "ttft_mean_s": "TTFT mean",
    "ttft_p99_s": "TTFT p99",
    "cct_mean_s": "CCT mean",
    "coflow_mean_s": "coflow mean",
    _LAST_RESORT: "duration",
}
"""What is shown of them on the page, and what it is called there."""

_IN_TABLE = ("slo_attainment", "ttft_mean_s", "cct_mean_s", "coflow_mean_s", _LAST_RESORT)
"""What a terminal of 80 columns has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A measure over the seeds of a group: the mean, the least and the most."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cells that differ in their seed only. `spreads` lacks a measure that none of them has."""

    values: dict[str, Any]
    policy: str
    seeds: int
    spreads: dict[str, Spread]


def read_rows(directory: Path, plan: Plan) -> list[Row]:
    """A row per cell that is over, in the order of the plan: the swept keys, `policy`, `seed`, `MEASURES`,
    `wall_s`, `error` (None for a cell that finished) and `cell`, its directory."""
    ended = outcomes(directory, plan)
    rows = []
    for cell in plan.cells:
        outcome = ended.get(cell.name)
        if outcome is None:
            continue
        measures: Row = dict.fromkeys(MEASURES)
        if outcome.error is None:
            path = cell_directory(directory, cell) / "summary.json"
            measures = _measures(json.loads(path.read_text(encoding="utf-8")))
        rows.append(
            {
                **cell.values,
                "policy": cell.policy,
                SEED: cell.scenario.seed,
                **measures,
                "wall_s": round(outcome.wall_s, 3),
                "error": outcome.error,
                "cell": f"cells/{cell.name}",
            }
        )
    return rows


def _measures(summary: Row) -> Row:
    (run,) = summary["runs"]
    ttft, cct, coflow = run["ttft_s"], run["cct_s"], run.get("coflow_completion_s", {})
    counts, cache = run.get("counts", {}), run.get("cache", {}).get("total", {})
    values = (
        run["requests"],
        run["completed"],
        counts.get("pruned"),
        counts.get("failed"),
        run["slo_attainment"],
        *(ttft[name] for name in ("mean", "p50", "p90", "p99")),
        *(cct[name] for name in ("mean", "p99")),
        coflow.get("mean"),
        run.get("tpot_s", {}).get("mean"),
        *(cache.get(name) for name in ("local_tokens", "remote_tokens", "missed_tokens", "evicted_blocks")),
        run["duration_s"],
        summary["faithful"],
    )
    return dict(zip(MEASURES, values, strict=True))


def groups_of(plan: Plan, rows: Sequence[Row]) -> list[Group]:
    """The finished cells by point and policy, seeds together, in the order of the plan."""
    keys = [one.key for one in plan.over if one.key != SEED]
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["error"] is None:
            name = json.dumps([[row[key] for key in keys], row["policy"]])
            found.setdefault(name, []).append(row)
    return [
        Group(
            values={key: of_group[0][key] for key in keys},
            policy=of_group[0]["policy"],
            seeds=len(of_group),
            spreads={
                name: Spread(mean=sum(values) / len(values), least=min(values), most=max(values))
                for name in _TITLES
                if (values := [row[name] for row in of_group if row[name] is not None])
            },
        )
        for of_group in found.values()
    ]


def write_results(directory: Path, plan: Plan, rows: Sequence[Row], *, command: str) -> Row:
    """Write `sweep.csv` and `sweep.json`; returns the content of the latter."""
    keys = [one.key for one in plan.over if one.key != SEED]
    columns = [*keys, "policy", SEED, *MEASURES, "wall_s", "error", "cell"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        swept = ["" if row[key] is None else as_text(row[key]) for key in keys]
        writer.writerow([*swept, *("" if row[name] is None else row[name] for name in columns[len(keys) :])])
    write_text(directory / "sweep.csv", text.getvalue())
    content = {
        "scenario": plan.scenario,
        "fabric": plan.fabric,
        "over": {one.key: list(one.values) for one in plan.over},
        "policies": list(plan.policies),
        "complete": len(rows) == len(plan.cells) and all(row["error"] is None for row in rows),
        "command": command,
        "cells": list(rows),
    }
    write_text(directory / "sweep.json", json_text(content))
    return content


def shown(name: str) -> str:
    """What a measure is called in the table and on the page."""
    return _TITLES[name]


def measures_of(groups: Sequence[Group]) -> list[str]:
    """Those of the shown measures that any group has."""
    found = [name for name in _TITLES if any(name in group.spreads for group in groups)]
    return [name for name in found if name != _LAST_RESORT] or found


def written(name: str, value: float) -> str:
    return share(value) if name == "slo_attainment" else duration(value)


def results_table(plan: Plan, groups: Sequence[Group]) -> RenderableType:
    """A line per point and policy: means over seeds, and in a second line the least and the most."""
    seeds = next((len(one.values) for one in plan.over if one.key == SEED), 1)
    title = f"{plan.scenario} on {plan.fabric}"
    if seeds > 1:
        title += f"; mean over {seeds} seeds, least .. most of them"
    table = Table(box=None, padding=(0, 1, 0, 0))
    keys = [one.key for one in plan.over if one.key != SEED]
    for key in keys:
        table.add_column(key.rpartition(".")[2].replace("_", "_\n"))
    table.add_column("policy", overflow="fold")
    measures = [name for name in measures_of(groups) if name in _IN_TABLE]
    for name in measures:
        table.add_column(_TITLES[name].replace(" ", "\n"), justify="right", no_wrap=True)
    for group in groups:
        texts = [as_text(group.values[key]) for key in keys]
        policy = group.policy if group.seeds == seeds else f"{group.policy} ({group.seeds} of {seeds} seeds)"
        table.add_row(
            *map(Text, texts), Text(policy), *(_cell(name, group.spreads.get(name)) for name in measures)
        )
    return Lines(Text(title), table) if groups else Text(f"{title}: no cell has finished")


def _cell(name: str, spread: Spread | None) -> str:
    if spread is None:
        return NOTHING
    mean, least, most = (
        written(name, value).replace(" ", "") for value in (spread.mean, spread.least, spread.most)
    )
    return mean if least == most else f"{mean}\n[dim]{least}..{most}[/dim]"

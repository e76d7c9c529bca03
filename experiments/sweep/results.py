"""The results of a sweep: a row per cell, in `sweep.csv` and `sweep.json`."""

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from experiments.atomic_file import write_text
from experiments.csv_text import csv_text
from experiments.json_text import json_text
from experiments.results.checksums import sealed
from experiments.results.gap import closed_share, reference_of
from experiments.results.paired import SEED, WINDOW
from experiments.sweep.cell import cell_directory, outcomes, summary_of
from experiments.sweep.plan import Plan, as_text

CellRow = dict[str, Any]
"""The row of a cell, by column: the swept keys, then the columns that `read_rows` lists."""


class Measure(enum.StrEnum):
    """The measures of a row, taken from the cell's summary. All are None for a cell that failed."""

    REQUESTS = "requests"
    ARRIVAL_RPS = "arrival_rps"
    COMPLETED = "completed"
    PRUNED = "pruned"
    ENDED_PRUNED = "ended_pruned"
    FAILED = "failed"
    SLO_ATTAINMENT = "slo_attainment"
    SLO_MEAN_S = "slo_mean_s"
    TTFT_MEAN_S = "ttft_mean_s"
    TTFT_P50_S = "ttft_p50_s"
    TTFT_P90_S = "ttft_p90_s"
    TTFT_P99_S = "ttft_p99_s"
    CCT_MEAN_S = "cct_mean_s"
    CCT_P99_S = "cct_p99_s"
    EARLINESS_MEAN_S = "earliness_mean_s"
    COFLOW_MEAN_S = "coflow_mean_s"
    TPOT_MEAN_S = "tpot_mean_s"
    BACKGROUND_GBPS = "background_gbps"
    LOCAL_TOKENS = "local_tokens"
    REMOTE_TOKENS = "remote_tokens"
    RECOMPUTED_TOKENS = "recomputed_tokens"
    MISSED_TOKENS = "missed_tokens"
    EVICTED_BLOCKS = "evicted_blocks"
    LIMIT = "limit"
    GPUS_BUSY = "gpus_busy"
    GPUS_COMPUTING = "gpus_computing"
    PORT_BUSY = "port_busy"
    DURATION_S = "duration_s"
    FAITHFUL = "faithful"


CEILINGS: Final = {
    Measure.SLO_ATTAINMENT: "ceiling_slo_attainment",
    Measure.TTFT_MEAN_S: "ceiling_ttft_mean_s",
}
"""The columns of a sweep with ceilings: what would be reached without a network, by measure."""

CLOSED: Final = {
    Measure.SLO_ATTAINMENT: "closed_slo_attainment",
    Measure.TTFT_MEAN_S: "closed_ttft_mean_s",
}
"""The same for the share of the gap to the ceiling that a policy closes in a cell, None without a gap."""


def read_rows(directory: Path, plan: Plan) -> list[CellRow]:
    """Return a row per cell that has ended, in the order of the plan: the swept keys, `policy`, `seed`, the
    measures, `wall_s`, `error` (None if the cell finished) and `cell`, its directory. With ceilings, also
    what was reached without a network."""
    ended = outcomes(directory, plan)
    rows = []
    ceilings: dict[str, Mapping[str, float | None]] = {}
    for cell in plan.cells:
        outcome = ended.get(cell.name)
        if outcome is None:
            continue
        measures: CellRow = dict.fromkeys(Measure)
        if outcome.error is None:
            summary = summary_of(cell_directory(directory, cell), outcome)
            (run,) = summary["runs"]
            measures = measures_of_run(run)
            if plan.ceiling and summary.get("ceiling"):
                ceilings[cell.point] = summary["ceiling"]["own_batches"]
        if plan.ceiling:  # the cells of a point have one ceiling, which the first of them found
            reached = ceilings.get(cell.point, {})
            measures |= {column: reached.get(measure) for measure, column in CEILINGS.items()}
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
    if plan.ceiling:
        points = {f"cells/{cell.name}": cell.point for cell in plan.cells}
        _add_closed(rows, [points[row["cell"]] for row in rows], reference_of(plan.policies))
    return rows


def _add_closed(rows: Sequence[CellRow], points: Sequence[str], reference: str) -> None:
    """Add the columns of `CLOSED` to `rows`, which are at `points`."""
    first = {point: row for row, point in zip(rows, points, strict=True) if row["policy"] == reference}
    for row, point in zip(rows, points, strict=True):
        for measure, column in CLOSED.items():
            start = first[point][measure] if point in first else None
            unit = 1.0 if measure is Measure.SLO_ATTAINMENT else start
            row[column] = closed_share(row[measure], start, row[CEILINGS[measure]], unit=unit)


def _mean(busy: dict[str, float] | None) -> float | None:
    return busy["mean"] if busy else None


def measures_of_run(run: Mapping[str, Any]) -> CellRow:
    """Return the measures of one policy, whose part of a `summary.json` is `run`."""
    ttft, cct, coflow = run["ttft_s"], run["cct_s"], run.get("coflow_completion_s", {})
    limits = run.get("limits") or {}
    counts, cache = run.get("counts", {}), run.get("cache", {}).get("total", {})
    return {
        Measure.REQUESTS: run["requests"],
        Measure.ARRIVAL_RPS: run.get("arrival_rps"),
        Measure.COMPLETED: run["completed"],
        Measure.PRUNED: counts.get("pruned"),
        Measure.ENDED_PRUNED: counts.get("ended_pruned"),
        Measure.FAILED: counts.get("failed"),
        Measure.SLO_ATTAINMENT: run["slo_attainment"],
        Measure.SLO_MEAN_S: run.get("slo_mean_s"),
        Measure.TTFT_MEAN_S: ttft["mean"],
        Measure.TTFT_P50_S: ttft["p50"],
        Measure.TTFT_P90_S: ttft["p90"],
        Measure.TTFT_P99_S: ttft["p99"],
        Measure.CCT_MEAN_S: cct["mean"],
        Measure.CCT_P99_S: cct["p99"],
        Measure.EARLINESS_MEAN_S: run.get("earliness_s", {}).get("mean"),
        Measure.COFLOW_MEAN_S: coflow.get("mean"),
        Measure.TPOT_MEAN_S: run.get("tpot_s", {}).get("mean"),
        Measure.BACKGROUND_GBPS: run["background"]["bps"] / 1e9 if "background" in run else None,
        Measure.LOCAL_TOKENS: cache.get("local_tokens"),
        Measure.REMOTE_TOKENS: cache.get("remote_tokens"),
        Measure.RECOMPUTED_TOKENS: cache.get("recomputed_tokens"),
        Measure.MISSED_TOKENS: cache.get("missed_tokens"),
        Measure.EVICTED_BLOCKS: cache.get("evicted_blocks"),
        Measure.LIMIT: limits.get("limit"),
        Measure.GPUS_BUSY: _mean(limits.get("occupied")),
        Measure.GPUS_COMPUTING: _mean(limits.get("computing")),
        Measure.PORT_BUSY: _mean(limits.get("port_busy")),
        Measure.DURATION_S: run["duration_s"],
        Measure.FAITHFUL: run["fidelity"]["faithful"],
    }


def write_results(
    directory: Path,
    plan: Plan,
    rows: Sequence[CellRow],
    *,
    command: str,
    differences: Sequence[dict[str, Any]],
    gaps: Sequence[dict[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Write `sweep.csv` and `sweep.json`; return the content of `sweep.json`.

    `differences` are those of the policies (`experiments.sweep.differences.differences_of`), `gaps` what they
    close of the gap to the ceiling (`experiments.sweep.gaps.gaps_of`).
    """
    keys = plan.keys
    windows = [WINDOW] if plan.replicates_are == "windows" else []
    measures = [*Measure, *((*CEILINGS.values(), *CLOSED.values()) if plan.ceiling else ())]
    columns = [*keys, "policy", *windows, SEED, *measures, "wall_s", "error", "cell"]
    lines = [
        [
            *(None if row[key] is None else as_text(row[key]) for key in keys),
            *map(row.get, columns[len(keys) :]),
        ]
        for row in rows
    ]
    write_text(directory / "sweep.csv", csv_text([columns, *lines]))
    content = {
        "scenario": plan.scenario,
        "fabric": plan.fabric,
        "over": {one.key: list(one.values) for one in plan.over},
        "policies": list(plan.policies),
        "complete": len(rows) == len(plan.cells) and all(row["error"] is None for row in rows),
        "command": command,
        "notes": list(notes),
        "differences": list(differences),
        **({"gaps": list(gaps)} if plan.ceiling else {}),
        "cells": list(rows),
    }
    write_text(directory / "sweep.json", json_text(sealed(content)))
    return content

"""Requests that were pruned: every output of a simulated run has the same numbers.

The scenario is `quickstart` at a load that it cannot serve, so request control gives up some requests.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from toy_fabric import Mfs

OVERLOADED = ("--policy", "fair + requests", "--set", "workload.requests=24", "--set", "workload.load=3.5")


def rows_of(run: Path) -> tuple[int, int]:
    """How many requests were pruned at least once and how many to their end, by the rows of requests."""
    rows = pq.read_table(next(run.rglob("requests.parquet"))).to_pylist()
    assert len(rows) == 24
    pruned = [row for row in rows if row["times_pruned"]]
    assert all(row["times_pruned"] for row in rows if row["ended_pruned"])
    return len(pruned), sum(row["ended_pruned"] for row in rows)


def counts_of(run: Path) -> dict[str, Any]:
    (only,) = json.loads((run / "summary.json").read_text())["runs"]
    counts: dict[str, Any] = only["counts"]
    return counts


def test_a_run_prints_and_reports_the_pruned_requests_of_its_tables(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("run", "quickstart", "--fabric", "sim", *OVERLOADED, "--out", "there") == 0

    pruned, to_the_end = rows_of(tmp_path / "there")
    assert pruned > to_the_end > 0
    counts = counts_of(tmp_path / "there")
    assert (counts["arrived"], counts["pruned"], counts["ended_pruned"]) == (24, pruned, to_the_end)
    words = f"fair + requests: {pruned} of 24 requests were pruned, {to_the_end} of them until their end"
    assert words in mfs.out.splitlines()
    page = (tmp_path / "there" / "report.html").read_text()
    (told,) = re.findall("<p>(.*were pruned.*?)</p>", page)
    assert re.sub("<[^>]*>", "", told) == f"{words}."


def test_a_sweep_has_the_pruned_requests_of_its_cells(mfs: Mfs, tmp_path: Path) -> None:
    """A cell with tables is a run directory. The table shows the mean over seeds, here of one."""
    grid = ("--over", "seed=1", "--jobs", "1", "--keep", "tables", "--out", "s")
    assert mfs("sweep", "quickstart", "--fabric", "sim", *OVERLOADED, *grid) == 0

    (cell,) = csv.DictReader((tmp_path / "s" / "sweep.csv").open())
    pruned, to_the_end = rows_of(tmp_path / "s" / cell["cell"])
    assert pruned > to_the_end > 0
    assert (cell["pruned"], cell["ended_pruned"]) == (str(pruned), str(to_the_end))
    counts = counts_of(tmp_path / "s" / cell["cell"])
    assert (counts["pruned"], counts["ended_pruned"]) == (pruned, to_the_end)
    (told,) = json.loads((tmp_path / "s" / "sweep.json").read_text())["cells"]
    assert (told["pruned"], told["ended_pruned"]) == (pruned, to_the_end)
    head, row = mfs.out.splitlines()[2:4]
    assert head.split()[-1] == "pruned"
    assert row.split()[-1] == str(pruned)

"""One cell of a sweep: what a worker process runs, and the files it leaves.

A cell has a directory of its own. Its `cell.json` is written last and in one piece: the cell has ended
once the file is there, and has finished if the file holds no error. So a worker need not return anything,
and a killed sweep loses only the cells that were running.
"""

import hashlib
import shutil
import time
import traceback
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.atomic_file import CANNOT_WRITE, write_text
from experiments.errors import UserError
from experiments.json_text import json_text
from experiments.named_file import named_bytes
from experiments.resolve.jobs import Resolved, resolve
from experiments.results.checksums import CELL, MOST_BYTES, SUMMARY, digests_in
from experiments.results.gap import ceiling_of
from experiments.results.limits import Resources
from experiments.results.measures import measure
from experiments.results.summary import Summary, summarise
from experiments.run.all_jobs import run_job
from experiments.run.ceiling import without_network
from experiments.run.identity import Identity
from experiments.run.run import run_scenario
from experiments.sweep.identity import check_identity
from experiments.sweep.plan import Cell, Plan
from experiments.sweep.workers import end_with
from testbed.fabric import JobRefused, RunFailed
from testbed.fabrics import FABRICS
from testbed.job import Collect

_MOST_BYTES: Final = 2**20


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a cell ended, as in `cell.json`. `error` is None if it finished; `wall_s` is how long it took.

    `summary_digest` is the SHA-256 of the summary of a cell that finished.
    """

    policy: str
    values: dict[str, Any]
    seed: int
    command: str
    error: str | None
    traceback: str | None
    wall_s: float
    summary_digest: str | None = None


def outcome_of(directory: Path, cell: Cell) -> Outcome | None:
    """Return how `cell`, whose files are in `directory`, ended.

    None if it has not ended, and if its files are damaged or are those of another cell: it then runs again.
    """
    try:
        raw = named_bytes(directory / CELL, most_bytes=_MOST_BYTES)
        outcome = msgspec.json.decode(raw, type=Outcome)
        if (outcome.policy, outcome.seed, outcome.values) != (cell.policy, cell.scenario.seed, _plain(cell)):
            return None
        if outcome.error is None:
            summary_of(directory, outcome)
    except (UserError, ValueError, RecursionError):
        return None
    return outcome


def summary_of(directory: Path, outcome: Outcome) -> Summary:
    """Return the summary of a cell that has finished. Raises `UserError` if the cell did not write it."""
    path = directory / SUMMARY
    raw = named_bytes(path, most_bytes=MOST_BYTES)
    if hashlib.sha256(raw).hexdigest() != outcome.summary_digest:
        raise UserError(f"{path}: not as the cell wrote it: damaged, or the summary of another cell")
    summary: Summary = msgspec.json.decode(raw)
    return summary


def _plain(cell: Cell) -> dict[str, Any]:
    """Return the values of a cell as they come back from JSON."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(cell.values))
    return values


def cell_directory(directory: Path, cell: Cell) -> Path:
    return directory / "cells" / cell.name


def outcomes(directory: Path, plan: Plan) -> dict[str, Outcome]:
    """Return the outcomes of the cells that have ended, by cell name, in the order of the plan."""
    found = {cell.name: outcome_of(cell_directory(directory, cell), cell) for cell in plan.cells}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def run_cell(
    cell: Cell, directory: Path, tables: bool, owner: int, made_with: Identity, *, ceiling: bool = False
) -> None:
    """Run `cell` and write its summary to `directory`, or with `tables` all files of a run directory.

    With `ceiling`, its requests are run without a network, too (`experiments.run.ceiling`).

    Errors of the cell itself are recorded in its `cell.json`. Raises `OSError` if that cannot be written or
    the disk is full. `owner` is the process id of the sweep on its machine, `made_with` what the sweep began
    with.
    """
    end_with(owner)
    began = time.monotonic()
    error = trace = None
    shutil.rmtree(directory, ignore_errors=True)  # left by an earlier try
    directory.mkdir(parents=True)
    try:
        check_identity(cell, made_with)
        if tables:
            _with_tables(cell, directory, ceiling)
        else:
            summary = _summary(cell, ceiling)
            write_text(directory / SUMMARY, json_text(summary))
    except (UserError, JobRefused, RunFailed) as known:
        error = str(known)
    except Exception as unknown:
        if isinstance(unknown, OSError) and unknown.errno in CANNOT_WRITE:
            raise
        error = "".join(traceback.format_exception_only(unknown)).strip()
        trace = traceback.format_exc()
    outcome = Outcome(
        policy=cell.policy,
        values=cell.values,
        seed=cell.scenario.seed,
        command=cell.command,
        error=error,
        traceback=trace,
        wall_s=time.monotonic() - began,
        summary_digest=digests_in(directory, [SUMMARY])[SUMMARY] if error is None else None,
    )
    write_text(directory / CELL, msgspec.json.format(msgspec.json.encode(outcome)).decode() + "\n")


def _with_tables(cell: Cell, directory: Path, ceiling: bool) -> None:
    scenario = cell.scenario.model_copy(update={"policies": (cell.policy,)})
    run_scenario(
        scenario,
        fabric=FABRICS[scenario.fabric](),
        out=directory,
        progress=lambda policy, state: None,
        command=cell.command,
        ceiling=ceiling,
    )


def _summary(cell: Cell, ceiling: bool) -> Summary:
    """Leave out placement and links: they follow from the scenario and would be most of the file."""
    scenario, resolved = cell.scenario, _resolved(cell)
    fabric = FABRICS[scenario.fabric]()
    job = next(job for job in resolved.jobs if job.policy == cell.policy)
    job = msgspec.structs.replace(job, collect=Collect.SUMMARY)
    record = run_job(fabric, job, lambda state: None)
    reached = None
    if ceiling:
        reached = ceiling_of(run_job(fabric, without_network(job), lambda state: None), {}, {})
    return summarise(
        scenario=scenario.name,
        fabric=fabric.name,
        seed=scenario.seed,
        scale=job.scale,
        records=[record],
        measured=[measure(record, Resources.of(job))],
        notes=resolved.notes,
        ceiling=reached,
    )


_last: tuple[tuple[str, tuple[str, ...]], Resolved] | None = None
"""The last point that this process resolved, for these policies: its cells share one workload."""


def _resolved(cell: Cell) -> Resolved:
    global _last
    key = (cell.point, cell.scenario.policies)
    if _last is None or _last[0] != key:
        _last = None  # before the next is made, so that memory holds one at a time
        _last = (key, resolve(cell.scenario))
    return _last[1]

"""Running a sweep: finds the cells that are left, and runs them in parallel.

joblib spreads the cells over this machine's cores (its backend `loky`) or over a cluster (its backends
`ray` and `dask`). `experiments.sweep.cell` runs a single cell.
"""

import contextlib
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.results.checksums import CELL
from experiments.run.ceiling import check_ceiling
from experiments.run.directory import new_directory
from experiments.run.identity import Identity
from experiments.scenario.scenario import Scenario
from experiments.sweep.cell import cell_directory, outcomes, run_cell
from experiments.sweep.differences import differences_of, write_differences
from experiments.sweep.directory import taken
from experiments.sweep.engine import Engine, engine
from experiments.sweep.gaps import gaps_of, write_gaps
from experiments.sweep.notes import notes_of
from experiments.sweep.plan import Cell, Plan, as_text
from experiments.sweep.progress import SweepListener
from experiments.sweep.results import CellRow, read_rows, write_results
from experiments.sweep.watching import watching
from testbed.fabric import FabricName, FabricUnavailable, RunFailed
from testbed.fabrics import FABRICS, missing_of

_FEW = 2


def run_sweep(
    plan: Plan,
    *,
    out: Path | None,
    tables: bool,
    jobs: int | None,
    backend: str,
    progress: SweepListener,
    words: Sequence[str],
) -> tuple[Path, dict[str, Any]]:
    """Run what is left of `plan`; return its directory and the content of its `sweep.json`.

    `out` defaults to `runs/<date>-<time>-<scenario>-sweep`. `words` are the command line. If the sweep is
    interrupted, a note on the exception gives the command that continues it: `words` with `--out`.

    Before anything runs, raises `UserError` for a point that cannot be resolved, a backend that is not
    available or a directory that does not belong to this sweep, and `FabricUnavailable` for a fabric that
    cannot run. Raises what `run_cells` raises, after writing the results of the cells that have finished.
    """
    jobs = jobs_for(plan.fabric, jobs=jobs, backend=backend)
    if plan.ceiling:
        check_ceiling(plan.fabric, has_requests=not any(c.scenario.workload.is_micro for c in plan.cells))
    check_points(plan)
    command = shlex.join(words)
    with engine(backend):
        directory = new_directory(f"{plan.scenario}-sweep") if out is None else out
        with taken(directory, plan, tables, command) as made_with:
            try:
                run_cells(plan, directory, made_with, tables=tables, jobs=jobs, progress=progress)
                return directory, _write(directory, plan, read_rows(directory, plan), command, page=True)
            except BaseException as error:
                rows = read_rows(directory, plan)
                finished = sum(row["error"] is None for row in rows)
                again = shlex.join([*words, *([] if out else ["--out", str(directory)])])
                error.add_note(f"{finished} of {len(plan.cells)} cells have finished; to go on: {again}")
                with contextlib.suppress(OSError):  # a full disk must not hide what ended the sweep
                    _write(directory, plan, rows, command)
                raise


def _write(
    directory: Path, plan: Plan, rows: Sequence[CellRow], command: str, *, page: bool = False
) -> dict[str, Any]:
    differences, notes = differences_of(plan, rows), notes_of(directory, plan, rows)
    gaps = gaps_of(plan, rows)
    if page:
        from experiments.sweep.page import write_page  # only now: it loads matplotlib

        write_page(directory, plan, rows, command=command, differences=differences, gaps=gaps, notes=notes)
    write_differences(directory, plan, differences)
    if plan.ceiling:
        write_gaps(directory, plan, gaps)
    return write_results(
        directory, plan, rows, command=command, differences=differences, gaps=gaps, notes=notes
    )


def check_points(plan: Plan) -> None:
    """Resolve every point with little work, once for all its seeds.

    Ranks that cannot be placed, and traces that are missing or too short, are thus found before anything
    runs. Raises `UserError`, naming the point.
    """
    seen: set[str] = set()
    for cell in plan.cells:
        probe = _with_little_work(cell.scenario)
        text = probe.model_dump_json()
        if text in seen:
            continue
        seen.add(text)
        try:
            resolve(probe, most_requests=_FEW)
        except UserError as error:
            options = " ".join(f"--over {key}={as_text(value)}" for key, value in cell.values.items())
            raise UserError(f"{options}: {error}" if options else str(error)) from None


def _with_little_work(scenario: Scenario) -> Scenario:
    """Return the scenario with few requests if they are generated.

    A trace is left as it is. With fewer rows of it than the scenario takes, the check would miss what is
    wrong with the others, and refuse rows that are wrong only without the others (all at one instant).
    """
    workload = scenario.workload
    if workload.path is None and not workload.is_micro:
        workload = workload.model_copy(update={"requests": min(workload.requests, _FEW), "warmup": 0})
    return scenario.model_copy(update={"workload": workload, "seed": 0, "policies": scenario.policies[:1]})


def jobs_for(fabric: str, *, jobs: int | None, backend: str) -> int:
    """Return how many cells run at once, in joblib's terms (-1: as many as there are cores).

    Raises `UserError` if the emulated fabric would run several cells at once or on another machine, and
    `FabricUnavailable` if the fabric cannot run here and `backend` is `loky`.
    """
    made = FABRICS[fabric]()
    missing = missing_of(made)
    if fabric == FabricName.CLUSTER:
        raise UserError(
            "--fabric cluster: agents are started for one scenario, and the cells of a sweep are many; run"
            " each with `mfs run`, or use --fabric sim"
        )
    if missing and backend == Engine.LOKY:
        raise FabricUnavailable(made.name, missing)
    if fabric != FabricName.MININET:
        return jobs or -1
    if (jobs or 1) != 1 or backend != Engine.LOKY:
        raise UserError(
            "--fabric mininet: one cell at a time, on this machine only, or results would be wrong;"
            " leave out --jobs and --backend, or use --fabric sim"
        )
    return 1


def run_cells(
    plan: Plan, directory: Path, made_with: Identity, *, tables: bool, jobs: int, progress: SweepListener
) -> None:
    """Run every cell that has not finished. If one fails, that is recorded and the others go on.

    Raises `RunFailed` if a worker process dies, `OSError` for a full disk. On any exception, Ctrl-C
    included, the workers are stopped; the results of finished cells stay.
    """
    # A worker that is left from an earlier sweep of this process may be in another working directory.
    directory = directory.absolute()
    before = outcomes(directory, plan)
    todo = [cell for cell in plan.cells if cell.name not in before or before[cell.name].error is not None]
    for cell in todo:  # a failed cell must not count as over, nor one that ended early as running
        shutil.rmtree(cell_directory(directory, cell), ignore_errors=True)
    with watching(plan, directory, todo, progress):
        try:
            joblib.Parallel(n_jobs=jobs, batch_size=1, max_nbytes=None)(
                joblib.delayed(run_cell)(
                    cell,
                    cell_directory(directory, cell),
                    tables,
                    os.getpid(),
                    made_with,
                    ceiling=plan.ceiling and cell.policy == plan.policies[0],
                )
                for cell in todo
            )
        except BrokenProcessPool as error:
            raise RunFailed(
                f"a worker process died{_while_running(directory, todo)}; if it was killed for lack of"
                " memory, use fewer --jobs"
            ) from error
        except OSError as error:
            error.filename = error.filename or str(directory)
            raise


def _while_running(directory: Path, todo: Sequence[Cell]) -> str:
    """Name the cells that had begun and not ended, in one of which a worker died."""
    begun = [cell for cell in todo if cell_directory(directory, cell).is_dir()]
    running = [cell.name for cell in begun if not (cell_directory(directory, cell) / CELL).exists()]
    if not running:
        return ""
    more = f" and {len(running) - _FEW} more" if len(running) > _FEW else ""
    return f" while these cells ran: {', '.join(running[:_FEW])}{more}"

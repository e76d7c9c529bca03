"""Running a sweep: which cells are left to do, on which cores, and how far it is.

Cells are spread by joblib: over this machine's cores (its backend `loky`), or over a cluster that its
`ray` or `dask` backend is connected to. What a cell leaves behind is in `experiments.sweep.cell`.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import shlex
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from experiments.atomic_file import write_text
from experiments.cli.progress_display import SweepProgress
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.run.directory import new_directory
from experiments.scenario.scenario import Scenario
from experiments.sweep.cell import cell_directory, outcome_of, outcomes, run_cell
from experiments.sweep.plan import Cell, Plan, as_text
from experiments.sweep.results import Row, read_rows, write_results
from testbed.fabric import FabricUnavailable, RunFailed
from testbed.fabrics import FABRICS, missing_of

LOCAL = "loky"
_LOOK_S = 0.5
_FEW = 2


Listener = Callable[[SweepProgress], None]


def run_sweep(
    plan: Plan,
    *,
    out: Path | None,
    tables: bool,
    jobs: int | None,
    backend: str,
    progress: Listener,
    words: Sequence[str],
) -> tuple[Path, Row]:
    """Run what is left of `plan`; returns its directory and the content of its `sweep.json`.

    `out` defaults to `runs/<date>-<time>-<scenario>-sweep`. `words` are the command line: with `out` added
    they go on with a sweep that did not get to its end; a note of the exception says so.

    Raises `UserError` for what can be told before anything runs: a point that cannot be resolved, an
    engine or a fabric that is not there (`FabricUnavailable`), a directory that is not this sweep's.
    Raises what `_run_cells` does; the results of the cells that have finished are written then, too.
    """
    jobs = _jobs_for(plan.fabric, jobs=jobs, backend=backend)
    _check_points(plan)
    command = shlex.join(words)
    with _engine(backend):
        directory = new_directory(f"{plan.scenario}-sweep") if out is None else out
        with _taken(directory, plan, tables, command):
            try:
                _run_cells(plan, directory, tables=tables, jobs=jobs, progress=progress)
            except BaseException as error:
                rows = read_rows(directory, plan)
                finished = sum(row["error"] is None for row in rows)
                again = shlex.join([*words, *([] if out else ["--out", str(directory)])])
                error.add_note(f"{finished} of {len(plan.cells)} cells have finished; to go on: {again}")
                with contextlib.suppress(OSError):  # of a full disk: what ended the sweep is what is told
                    write_results(directory, plan, rows, command=command)
                raise
            from experiments.sweep.page import write_page  # only now: it loads matplotlib

            rows = read_rows(directory, plan)
            write_page(directory, plan, rows, command=command)
            return directory, write_results(directory, plan, rows, command=command)


def _check_points(plan: Plan) -> None:
    """Resolve every point but for its seed with as little work as it can have.

    So that ranks that cannot be placed and a trace that is not there are refused before anything runs.
    Raises `UserError`, naming the point.
    """
    seen: set[str] = set()
    for cell in plan.cells:
        probe = _with_little_work(cell.scenario)
        text = probe.model_dump_json()
        if text in seen:
            continue
        seen.add(text)
        try:
            resolve(probe)
        except UserError as error:
            options = " ".join(f"--over {key}={as_text(value)}" for key, value in cell.values.items())
            raise UserError(f"{options}: {error}" if options else str(error)) from None


def _with_little_work(scenario: Scenario) -> Scenario:
    workload = scenario.workload.model_copy(update={"requests": _FEW, "coflows": _FEW})
    return scenario.model_copy(update={"workload": workload, "seed": 0, "policies": scenario.policies[:1]})


def _jobs_for(fabric: str, *, jobs: int | None, backend: str) -> int:
    """How many cells run at once, in joblib's terms (-1: as many as there are cores).

    Raises `UserError` for the emulated fabric with more than one, `FabricUnavailable` where the fabric
    cannot run here.
    """
    made = FABRICS[fabric]()
    missing = missing_of(made)
    if missing and backend == LOCAL:
        raise FabricUnavailable(made.name, missing)
    if fabric != "mininet":
        return jobs or -1
    if (jobs or 1) != 1 or backend != LOCAL:
        raise UserError(
            "--fabric mininet: one cell at a time on this machine is all that measures right;"
            " leave out --jobs and --backend, or use --fabric sim"
        )
    return 1


@contextlib.contextmanager
def _taken(directory: Path, plan: Plan, tables: bool, command: str) -> Iterator[None]:
    """Take `directory` for the sweep: a new or empty one, or one that holds this very sweep, to go on.

    Raises `UserError` for a directory of another sweep or of something else, or that another `mfs`
    works in.
    """
    identity = {
        "mfs": importlib.metadata.version("mfs-testbed"),
        "tables": tables,
        "cells": [cell.name for cell in plan.cells],
    }
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--out {directory}: is a file; name a directory that is new or empty")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--out {directory}: cannot write results there: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--out {directory}: another `mfs sweep` is at work there") from None
        known = _known_plan(directory)
        if known is None and any(directory.iterdir()):
            raise UserError(f"--out {directory}: is not empty and holds no sweep; name one that is")
        if known is not None and {key: known.get(key) for key in identity} != identity:
            raise UserError(
                f"--out {directory}: holds another sweep ({known.get('command')}); to go on with that one,"
                " use the same options and version, else name another directory"
            )
        if known is None:
            write_text(directory / "plan.json", json.dumps(identity | {"command": command}, indent=2) + "\n")
        yield
    finally:
        os.close(lock)


def _known_plan(directory: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"--out {directory}: plan.json cannot be read: {error}") from None
    return plan if isinstance(plan, dict) else {}


def _run_cells(plan: Plan, directory: Path, *, tables: bool, jobs: int, progress: Listener) -> None:
    """Run every cell that has not finished. One that fails is recorded, and the others go on.

    Raises `RunFailed` when a worker process dies, `OSError` for a full disk. On any exception, Ctrl-C
    included, the workers are stopped; cells that have finished stay.
    """
    before = outcomes(directory, plan)
    todo = [cell for cell in plan.cells if cell.name not in before or before[cell.name].error is not None]
    for cell in todo:  # of those that failed, so that they do not count as over
        (cell_directory(directory, cell) / "cell.json").unlink(missing_ok=True)
    with _watching(plan, directory, todo, progress):
        try:
            joblib.Parallel(n_jobs=jobs, batch_size=1, max_nbytes=None)(
                joblib.delayed(run_cell)(cell, cell_directory(directory, cell), tables, os.getpid())
                for cell in todo
            )
        except BrokenProcessPool as error:
            raise RunFailed(
                "a worker process died; if it was killed for want of memory, use fewer --jobs"
            ) from error
        except OSError as error:
            error.filename = error.filename or str(directory)
            raise


@contextlib.contextmanager
def _engine(backend: str) -> Iterator[None]:
    """joblib with `backend`, connected. A cluster is found where its own tools look for it, in `RAY_ADDRESS`
    or `DASK_SCHEDULER_ADDRESS`. Raises `UserError` for an engine that is not there."""
    options: dict[str, Any] = {}
    try:
        if backend == "ray":
            from ray.util.joblib import register_ray

            register_ray()
        if backend == "dask":
            import distributed  # noqa: F401  # joblib's own message would name neither package nor option

            if "DASK_SCHEDULER_ADDRESS" not in os.environ:
                raise UserError(
                    "--backend dask: set DASK_SCHEDULER_ADDRESS to the scheduler's, as in tcp://HOST:8786"
                )
            options["scheduler_host"] = os.environ["DASK_SCHEDULER_ADDRESS"]
        configured = joblib.parallel_config(backend=backend, **options)
    except ImportError as error:
        package = _PACKAGES.get(backend, backend)
        raise UserError(f"--backend {backend}: {error}; to get it: pip install {package}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"--backend {backend}: {error}") from None
    with configured, warnings.catch_warnings():
        # Of workers that are restarted because they had grown: nothing a user could act on.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        yield


_PACKAGES = {"ray": '"ray[default]"', "dask": '"dask[distributed]"'}


@contextlib.contextmanager
def _watching(plan: Plan, directory: Path, todo: Sequence[Cell], progress: Listener) -> Iterator[None]:
    """Tell `progress` while cells end. What they leave is looked at: no engine needs to tell."""
    ended = threading.Event()
    watched = (plan, directory, list(todo), progress, ended)
    watcher = threading.Thread(target=_watch, args=watched, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(
    plan: Plan, directory: Path, running: list[Cell], progress: Listener, ended: threading.Event
) -> None:
    began = newest = time.monotonic()
    over_before, failed, over = len(plan.cells) - len(running), 0, 0
    while True:
        last_look = ended.is_set()
        still: list[Cell] = []
        for cell in running:
            outcome = outcome_of(cell_directory(directory, cell))
            if outcome is None:
                still.append(cell)
            else:
                over, failed, newest = over + 1, failed + (outcome.error is not None), time.monotonic()
        running = still
        now = time.monotonic()
        left_s = max(0.0, (newest - began) / over * len(running) - (now - newest)) if over else None
        progress(
            SweepProgress(
                over=over_before + over,
                failed=failed,
                total=len(plan.cells),
                wall_s=now - began,
                left_s=left_s,
            )
        )
        if last_look:
            return
        ended.wait(_LOOK_S)

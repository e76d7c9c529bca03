"""Windows of a trace: parts of it that share no request, each a replicate of an experiment.

Window i is the scenario with `workload.skip` raised by i times `workload.requests`.
"""

import json
from functools import lru_cache
from pathlib import Path

from experiments.errors import UserError
from experiments.results.paired import WINDOW
from experiments.scenario.reading import Override
from experiments.scenario.scenario import Scenario
from experiments.scenario.workload import TRACES, Arrivals, WorkloadKind
from experiments.trace_formats.formats import reader_of


def skip_to(scenario: Scenario, window: int, windows: int) -> Override:
    """Return the override that makes `scenario` window `window` of `windows`.

    Raises `UserError` if there is no trace of requests, and if it has too few rows for all windows.
    """
    workload, option = scenario.workload, f"--over {WINDOW}={windows}"
    if workload.is_micro:
        raise UserError(f"{option}: takes windows of a trace of requests, and kind {workload.kind} has none")
    if workload.path is None:
        raise UserError(
            f"{option}: a generated workload has no windows; every seed is another one:"
            f" --over seed=1:{windows}"
        )
    status = Path(workload.path).stat() if Path(workload.path).is_file() else None
    changed = (status.st_mtime_ns, status.st_size) if status else (0, 0)
    rows = _rows(workload.path, workload.kind, *changed)
    fit = max(0, rows - workload.skip) // workload.requests
    if fit < windows:
        after = f" after workload.skip, {workload.skip}" if workload.skip else ""
        raise UserError(
            f"{option}: {fit} windows of {workload.requests} requests fit into the {rows} rows of"
            f" {workload.path}{after}; ask for fewer, or for fewer workload.requests"
        )
    skip = workload.skip + window * workload.requests
    return Override("workload.skip", json.dumps(skip), option)


@lru_cache(maxsize=16)
def _rows(path: str, kind: WorkloadKind, mtime_ns: int, size: int) -> int:
    """A trace can be large, and every window asks."""
    return sum(1 for _ in reader_of(Path(path), TRACES[kind]).rows(Path(path)))


def seed_warning(scenario: Scenario, seeds: int) -> str | None:
    """Say so if `seeds` seeds of `scenario` are no replicates; None if they are."""
    workload = scenario.workload
    if seeds < 2 or workload.is_micro or workload.path is None or workload.arrivals is not Arrivals.TRACE:
        return None
    return (
        f"{seeds} seeds are no replicates here: all replay the same requests of the trace, and move arrivals "
        "only inside the ticks of its clock, if at all. Intervals over them say nothing of other requests: "
        f"--over {WINDOW}={seeds} takes {seeds} windows of the trace instead"
    )

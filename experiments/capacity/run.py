"""Running the search: the cells of a grid of rates, and then those of each round of bisection.

Cells, their processes and their directory are those of a sweep, so an interrupted search can be continued.
A search for another attainment, or with another precision, takes the cells that are there.
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.capacity.answer import Attained, mean_curve
from experiments.capacity.question import RATE, Question, replicate_of
from experiments.capacity.results import content_of, write_answer
from experiments.capacity.search import bracket, grid, rounded
from experiments.run.directory import new_directory
from experiments.run.identity import Identity
from experiments.sweep.directory import taken
from experiments.sweep.engine import Engine, engine
from experiments.sweep.plan import Cell, Plan
from experiments.sweep.progress import SweepListener
from experiments.sweep.results import CellRow, read_rows
from experiments.sweep.run import check_points, jobs_for, run_cells
from testbed.fabric import FabricName


def find_capacities(
    question: Question,
    *,
    out: Path | None,
    jobs: int | None,
    progress: SweepListener,
    words: Sequence[str],
) -> tuple[Path, dict[str, Any]]:
    """Answer `question`; return the directory and the content of its `capacity.json`.

    `out` defaults to `runs/<date>-<time>-<scenario>-capacity`. `words` are the command line. If the search is
    interrupted, a note on the exception gives the command that continues it.

    Before anything runs, raises `UserError` for a question that makes no sense and for a directory of another
    one. Raises what `run_cells` raises. If a cell fails, the others go on; the content names it.
    """
    question.check()
    jobs = jobs_for(FabricName.SIM, jobs=jobs, backend=Engine.LOKY)
    estimate = question.estimate()
    rates = grid(rounded(question.low * estimate.rps), rounded(question.high * estimate.rps))
    plan = question.plan(rates)
    check_points(plan)
    command = shlex.join(words)
    with engine(Engine.LOKY):
        directory = new_directory(f"{plan.scenario}-capacity") if out is None else out
        with taken(directory, plan, False, command) as made_with:
            search = _Search(question, plan, directory, made_with, jobs, progress)
            try:
                search.run()
                rows = search.rows()
                content = content_of(
                    question, plan, rates, estimate, rows, attained=search.attained(rows), command=command
                )
                write_answer(directory, content)
                return directory, content
            except BaseException as error:
                again = shlex.join([*words, *([] if out else ["--out", str(directory)])])
                with contextlib.suppress(OSError):
                    error.add_note(f"{len(search.rows())} cells have ended; to go on: {again}")
                raise


class _Search:
    """All cells so far, and the rounds that add to them."""

    def __init__(
        self,
        question: Question,
        plan: Plan,
        directory: Path,
        made_with: Identity,
        jobs: int,
        progress: SweepListener,
    ) -> None:
        self._question, self._plan, self._directory = question, plan, directory
        self._made_with, self._jobs, self._progress = made_with, jobs, progress

    def run(self) -> None:
        while True:
            run_cells(
                self._plan,
                self._directory,
                self._made_with,
                tables=False,
                jobs=self._jobs,
                progress=self._progress,
            )
            more = self._next_cells(self.attained(self.rows()))
            if not more:
                return
            self._plan = replace(self._plan, cells=(*self._plan.cells, *more))

    def rows(self) -> list[CellRow]:
        return read_rows(self._directory, self._plan)

    def attained(self, rows: Sequence[CellRow]) -> dict[str, dict[Any, dict[float, float]]]:
        """Return the attainments, without replicates of which a cell failed: policies stay paired."""
        names = {f"cells/{cell.name}": cell for cell in self._plan.cells}
        found: dict[str, dict[Any, dict[float, float]]] = {policy: {} for policy in self._plan.policies}
        failed: set[Any] = set()
        for row in rows:
            cell = names[row["cell"]]
            replicate = replicate_of(cell)
            if row["error"] is not None or row["slo_attainment"] is None:
                failed.add(replicate)
            else:
                found[cell.policy].setdefault(replicate, {})[cell.values[RATE]] = row["slo_attainment"]
        for by_replicate in found.values():
            for replicate in failed:
                by_replicate.pop(replicate, None)
        return found

    def _next_cells(self, attained: Mapping[str, Attained]) -> list[Cell]:
        wanted: dict[str, float] = {}
        for policy, of_policy in attained.items():
            found = bracket(mean_curve(of_policy), self._question.attain)
            rate = found.next_rate(self._question.within)
            if rate is not None:
                wanted[policy] = rate
        if not wanted:
            return []
        plan = self._question.plan(sorted(set(wanted.values())))
        return [cell for cell in plan.cells if wanted.get(cell.policy) == cell.values[RATE]]

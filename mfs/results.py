"""The results of runs and sweeps: Arrow tables and words, read from their directories."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console, RenderableType

from experiments.compare.replicates import read_sweep
from experiments.errors import UserError
from experiments.results.checksums import SUMMARY, check_files, read_json
from experiments.results.gap import gap_lines
from experiments.results.limit_words import alike_lines, limit_lines
from experiments.results.terminal import fidelity_lines, render_summary
from experiments.sweep.results import measures_of_run

Source = str | Path

_COLUMNS = 100


class _Directory:
    """What runs and sweeps have in common: a directory."""

    def __init__(self, path: Source) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"mfs.load({str(self.path)!r})"


class Run(_Directory):
    """The results of a scenario under each of its policies, in a run directory.

    Tables are read when they are first used, and hold all policies: their first column is `policy`.
    `docs/reference/results.md` explains every column.
    """

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return _summary(self.path)

    @property
    def policies(self) -> list[str]:
        """The policies that have finished, in the order in which they ran."""
        return [run["policy"] for run in self.summary["runs"]]

    @property
    def faithful(self) -> bool:
        """Whether every check is within its bounds under every policy."""
        return bool(self.summary["faithful"])

    @property
    def limits(self) -> dict[str, dict[str, Any] | None]:
        """What limits the run under each policy (`limits` in `summary.json`); None where it is not known."""
        return {run["policy"]: run.get("limits") for run in self.summary["runs"]}

    @property
    def verdict(self) -> str:
        """What to know before the numbers, in sentences.

        That is what limits each run, policies that made no difference, what a network that takes no time
        would reach, and each check that failed.
        """
        summary = self.summary
        lines = [*limit_lines(summary), *alike_lines(summary), *gap_lines(summary), *fidelity_lines(summary)]
        if self.faithful:
            lines.append("faithful: every check is within its bounds")
        return "\n".join(lines)

    @cached_property
    def measures(self) -> pa.Table:
        """A row per policy: `policy` and the measures of a sweep's cell, times in seconds of model time."""
        return _table([{"policy": run["policy"]} | measures_of_run(run) for run in self.summary["runs"]])

    @cached_property
    def requests(self) -> pa.Table:
        return self._rows("requests")

    @cached_property
    def flows(self) -> pa.Table:
        return self._rows("flows")

    @cached_property
    def decisions(self) -> pa.Table:
        return self._rows("decisions")

    @cached_property
    def spans(self) -> pa.Table:
        return self._rows("spans")

    @cached_property
    def links(self) -> pa.Table:
        return self._rows("links")

    @cached_property
    def progress(self) -> pa.Table:
        return self._rows("progress")

    def report(self, path: Source | None = None) -> Path:
        """Write the HTML report to `path` (default: `report.html` in the directory); return where it is."""
        from experiments.report.run_report import write_report  # imported late: it loads matplotlib

        return write_report([self.path], self.path / "report.html" if path is None else Path(path))

    def __str__(self) -> str:
        return as_text(render_summary(self.summary))

    def _rows(self, name: str) -> pa.Table:
        file = self.path / f"{name}.parquet"
        if not file.is_file():
            raise UserError(f"{self.path}: has no table {name!r}: it keeps summaries only")
        check_files(self.path, [file.name])
        return pq.read_table(file)


class Sweep(_Directory):
    """The results of a scenario at every combination of values, in a sweep directory."""

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `sweep.json`."""
        return read_sweep(self.path)

    @property
    def policies(self) -> list[str]:
        return list(self.summary["policies"])

    @property
    def complete(self) -> bool:
        """Whether every cell has finished."""
        return bool(self.summary["complete"])

    @property
    def faithful(self) -> bool:
        """Whether all cells that have finished are faithful, and at least one has finished."""
        ended = [cell["faithful"] for cell in self.summary["cells"] if cell["error"] is None]
        return bool(ended) and all(ended)

    @property
    def failed(self) -> dict[str, str]:
        """The error of each cell that failed, by the cell's folder."""
        cells = self.summary["cells"]
        return {cell["cell"]: cell["error"] for cell in cells if cell["error"] is not None}

    @property
    def notes(self) -> list[str]:
        """What to know before the numbers."""
        return list(self.summary["notes"])

    @cached_property
    def cells(self) -> pa.Table:
        """A row per cell, as in `sweep.csv`: swept keys, `policy`, `seed`, measures, `wall_s` and `error`."""
        return _table(self.summary["cells"])

    @cached_property
    def differences(self) -> pa.Table:
        """How each policy differs from the first at each point, as in `differences.csv`."""
        return _table(self.summary["differences"])

    @property
    def gaps(self) -> pa.Table:
        """What each policy closes of the gap to its ceiling, as in `gaps.csv`; empty without ceilings."""
        return _table(self.summary.get("gaps", []))


def load(path: Source) -> Run | Sweep:
    """Return the results in the directory of a run or of a sweep.

    Raises `UserError` if `path` is neither.
    """
    directory = Path(path)
    if (directory / "sweep.json").is_file():
        sweep = Sweep(directory)
        sweep.summary  # noqa: B018 - read now, so that a wrong directory is told here
        return sweep
    run = Run(directory)
    if not {"runs", "faithful"} <= run.summary.keys():
        raise UserError(f"{directory / 'summary.json'}: not a summary of ours")
    return run


def directory_of(source: "Run | Sweep | Source") -> Path:
    """Return where the results of `source` are."""
    return Path(source) if isinstance(source, str | Path) else source.path


def as_text(shown: RenderableType) -> str:
    """Return what a command would print, without colours."""
    console = Console(width=_COLUMNS, force_terminal=False, no_color=True)
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows with the same keys as a table. Values that are no plain numbers or text become JSON."""
    names = list(rows[0]) if rows else []
    return pa.table({name: _column([row[name] for row in rows]) for name in names})


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) <= 1 and not kinds & {list, dict}):
        return pa.array(values)
    return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])


def _summary(directory: Path) -> dict[str, Any]:
    path = directory / SUMMARY
    if not path.exists():
        raise UserError(f"{directory}: holds no finished run or sweep")
    check_files(directory, [SUMMARY])
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a summary of ours")
    return content

"""A line in the report's figures and tables: a policy's run in one directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.chart import COLOURS
from experiments.report.markup import Markup, keyed
from experiments.results.distributions import Distributions
from experiments.results.faults import FaultEntry, entries_of
from experiments.results.parquet import Tables
from experiments.results.reading import RunDirectory
from experiments.results.requests import counted
from testbed.record import RequestRow

MOST_FLOWS = 200
"""Most flows of a micro workload that a page shows; each has a line of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A policy's run to compare. `run` is its entry in `summary.json`; every series has its own `label`."""

    label: str
    colour: str
    directory: RunDirectory
    run: dict[str, Any]

    @property
    def tables(self) -> Tables:
        return self.directory.tables[self.run["policy"]]

    @property
    def distributions(self) -> Distributions:
        return self.directory.distributions[self.run["policy"]]

    @property
    def bytes_scale(self) -> float:
        scale: float = self.directory.summary["scale"]["bytes_scale"]
        return scale

    @property
    def link_gbps(self) -> dict[str, float]:
        """The nominal model rates of links; empty in the results of an older run."""
        rates: dict[str, float] = self.directory.summary.get("link_gbps", {})
        return rates

    @property
    def faults(self) -> list[FaultEntry]:
        """The faults that the run had before it ended."""
        return [entry for entry in entries_of(self.run) if entry.began]

    @property
    def named(self) -> Markup:
        """The label, after a patch of the series' colour."""
        return keyed(self.colour, self.label)

    @property
    def is_micro(self) -> bool:
        return not self.tables.requests

    @property
    def requests(self) -> list[RequestRow]:
        """The measured requests: all but the warm-up."""
        return counted(self.tables.requests)

    @property
    def is_coflows(self) -> bool:
        """Whether the run is of coflows. A report shows their completion times rather than all flows, of
        which there may be very many."""
        return bool(self.run.get("coflows"))


def series_of(directories: Sequence[RunDirectory]) -> list[Series]:
    """Return the runs of all directories, in order. If a policy occurs twice, its labels name the
    directory."""
    found = [(directory, run) for directory in directories for run in directory.summary["runs"]]
    policies = [run["policy"] for _, run in found]
    labels: list[str] = []
    for directory, run in found:
        label = run["policy"]
        if policies.count(label) > 1:
            label = f"{label} ({directory.path.resolve().name})"
        while label in labels:
            label += "'"
        labels.append(label)
    return [
        Series(
            label=label,
            colour=COLOURS[i % len(COLOURS)],
            directory=directory,
            run=run,
        )
        for i, ((directory, run), label) in enumerate(zip(found, labels, strict=True))
    ]

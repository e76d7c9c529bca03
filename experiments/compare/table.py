"""A comparison as a table and sentences, for a terminal (rich renderables)."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.compare.comparison import OverReplicates, OverRequests
from experiments.compare.replicates import MEASURES, ReplicateDifference
from experiments.compare.runs import means, words
from experiments.fitted_table import FittedTable
from experiments.results.readable_numbers import duration, share


def render_comparison(found: OverRequests | OverReplicates) -> RenderableType:
    """Return what `mfs compare` prints: notes, the differences, and what their intervals are over."""
    if isinstance(found, OverRequests):
        table, lines = _requests_table(found), _requests_lines(found)
    else:
        table, lines = _replicates_table(found), _replicates_lines(found)
    notes = [Text(f"note: {note}") for note in found.notes]
    return Group(*notes, table, *map(Text, lines))


def _requests_table(found: OverRequests) -> Table:
    table = _table(["run", "requests", "SLO met", "TTFT mean"])
    met, ttft = means(found.first)
    table.add_row(found.first.label, str(len(found.first.requests)), share(met), duration(ttft))
    for one in found.differences:
        table.add_row(one.side, str(one.requests), *words(one))
    return table


def _requests_lines(found: OverRequests) -> Iterator[str]:
    yield (
        f"against {found.first.label}: mean difference, and 95 % bootstrap interval over the requests."
        " Requests of a run share its batches, so this says nothing about other seeds: for these, use"
        " mfs sweep --over seed=1:8, or --replicates for runs that you have."
    )
    for one in found.differences:
        if one.alone:
            yield f"{one.side}: {one.alone} requests have a first token under one of the two only"


def _replicates_table(found: OverReplicates) -> Table:
    measures = list(dict.fromkeys(one.measure for one in found.differences))
    keys = list(dict.fromkeys(key for one in found.differences for key in one.values))
    table = _table([*(key.rpartition(".")[2] for key in keys), "policy", "n"], left=len(keys) + 1)
    for name in measures:
        table.add_column(MEASURES[name][0], justify="right", no_wrap=True)
    by_side: dict[tuple[str, ...], dict[str, ReplicateDifference]] = {}
    for one in found.differences:
        place = (*(str(one.values.get(key, "-")) for key in keys), one.side)
        by_side.setdefault(place, {})[one.measure] = one
    for place, cells in by_side.items():
        count = max(cell.difference.count for cell in cells.values())
        told = ["\n".join(cells[name].words) if name in cells else "-" for name in measures]
        table.add_row(*place, str(count), *told)
    return table


def _replicates_lines(found: OverReplicates) -> Iterator[str]:
    yield (
        f"against {found.reference}, on the same work: mean difference, and 95 % interval over n replicates"
    )


def _table(headings: Sequence[str], *, left: int = 1) -> Table:
    table = FittedTable(keys=left)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < left else "right", overflow="fold")
    return table

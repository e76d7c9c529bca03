"""The table that `mfs sweep` prints at its end."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from experiments.compare.replicates import MEASURES
from experiments.fitted_table import FittedTable
from experiments.results.readable_numbers import NOTHING
from experiments.sweep.differences import words_of
from experiments.sweep.gaps import gap_words
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.replicates import TITLES, Replicates, Spread, measures_of, written
from experiments.sweep.results import CEILINGS, Measure

_IN_TABLE = (
    Measure.ARRIVAL_RPS,
    Measure.SLO_ATTAINMENT,
    Measure.TTFT_MEAN_S,
    Measure.CCT_MEAN_S,
    Measure.COFLOW_MEAN_S,
    Measure.PRUNED,
    Measure.DURATION_S,
)
"""The measures that fit into a terminal of 80 columns."""


def results_table(plan: Plan, replicates: Sequence[Replicates]) -> RenderableType:
    """Return a row per point and policy: the mean over replicates, and below it the least and the most."""
    count, are = plan.replicates or 1, plan.replicates_are
    title = f"{plan.scenario} on {plan.fabric}"
    if count > 1:
        title += f"; mean over {count} {are}, least .. most below"
    table = FittedTable(keys=len(plan.keys) + 1)
    for key in plan.keys:
        table.add_column(key.rpartition(".")[2].replace("_", "_\n"))
    table.add_column("policy", overflow="fold")
    measures = [name for name in measures_of(replicates) if name in _IN_TABLE]
    for name in measures:
        table.add_column(_broken(TITLES[name]), justify="right", no_wrap=True)
    for one in replicates:
        texts = [as_text(one.values[key]) for key in plan.keys]
        policy = one.policy if one.count == count else f"{one.policy} ({one.count} of {count} {are})"
        table.add_row(
            *map(Text, texts), Text(policy), *(_cell(name, one.spreads.get(name)) for name in measures)
        )
    return Group(Text(title), table) if replicates else Text(f"{title}: no cell has finished")


def differences_table(plan: Plan, differences: Sequence[dict[str, Any]]) -> RenderableType:
    """Return a row per point and policy: how it differs from the first policy, with intervals.

    Without replicates, a sentence on how to get some. Empty for a single policy.
    """
    if not differences:
        return Group()
    against = plan.policies[0]
    if all(row["replicates"] < 2 for row in differences):
        from_trace = plan.cells[0].scenario.workload.path is not None
        eight = "window=8 takes eight windows of the trace" if from_trace else "seed=1:8 makes eight"
        return Text(f"One replicate cannot show a difference from {against}; --over {eight}.")
    table = FittedTable(keys=len(plan.keys) + 1)
    for key in plan.keys:
        table.add_column(key.rpartition(".")[2].replace("_", "_\n"))
    table.add_column("policy", overflow="fold")
    told, over = {row["measure"] for row in differences}, plan.replicates_are
    measures = [name for name in MEASURES if name in told and name in _IN_TABLE]
    for name in measures:
        table.add_column(MEASURES[name][0], justify="right", no_wrap=True)
    by_place: dict[tuple[str, ...], dict[str, str]] = {}
    for row in differences:
        place = (*(as_text(row[key]) for key in plan.keys), row["policy"])
        by_place.setdefault(place, {})[row["measure"]] = "\n".join(words_of(row))
    for place, cells in by_place.items():
        table.add_row(*map(Text, place), *(Text(cells.get(name, NOTHING)) for name in measures))
    return Group(
        Text(f"against {against}, on the same work: mean difference, 95% interval over {over}"),
        table,
    )


def gaps_table(plan: Plan, gaps: Sequence[dict[str, Any]]) -> RenderableType:
    """Return a row per point and policy: the share of the gap to the ceiling that it closes, with intervals.

    Before the policies of a point comes the gap itself. Empty without ceilings.
    """
    if not gaps:
        return Group()
    table = FittedTable(keys=len(plan.keys) + 1)
    for key in plan.keys:
        table.add_column(key.rpartition(".")[2].replace("_", "_\n"))
    table.add_column("policy", overflow="fold")
    for measure in CEILINGS:
        table.add_column(MEASURES[measure][0], justify="right", no_wrap=True)
    by_place: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in gaps:
        point = tuple(as_text(row[key]) for key in plan.keys)
        by_place.setdefault((*point, row["policy"]), {})[row["measure"]] = row
    seen = set()
    for place, found in by_place.items():
        if place[:-1] not in seen:
            seen.add(place[:-1])
            table.add_row(*map(Text, place[:-1]), "the gap", *(_ends(m, found.get(m)) for m in CEILINGS))
        cells = ("\n".join(gap_words(found[m])) if m in found else NOTHING for m in CEILINGS)
        table.add_row(*map(Text, place), *map(Text, cells))
    reference = gaps[0]["reference"]
    return Group(
        Text(
            f"share of the gap from {reference} to a network that takes no time that a policy closes, 95%"
            f" interval over {plan.replicates_are}"
        ),
        table,
    )


def _ends(measure: Measure, row: dict[str, Any] | None) -> Text:
    """The ends of a gap: "269 ms to 193 ms"."""
    if row is None:
        return Text(NOTHING)
    return Text(f"{written(measure, row['reference_mean'])} to {written(measure, row['ceiling_mean'])}")


def _broken(title: str) -> str:
    return title.replace(" ", "\n").replace("/", "\n/")


def _cell(measure: Measure, spread: Spread | None) -> str:
    if spread is None:
        return NOTHING
    mean, least, most = (
        written(measure, value).replace(" ", "") for value in (spread.mean, spread.least, spread.most)
    )
    return mean if least == most else f"{mean}\n[dim]{least}..{most}[/dim]"

"""The table that `mfs sweep` prints at its end."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.results.readable_numbers import NOTHING
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.replicates import TITLES, Replicates, Spread, measures_of, written
from experiments.sweep.results import Measure

_IN_TABLE = (
    Measure.SLO_ATTAINMENT,
    Measure.TTFT_MEAN_S,
    Measure.CCT_MEAN_S,
    Measure.COFLOW_MEAN_S,
    Measure.PRUNED,
    Measure.DURATION_S,
)
"""The measures that fit into a terminal of 80 columns."""


def results_table(plan: Plan, replicates: Sequence[Replicates]) -> RenderableType:
    """Return a row per point and policy: the mean over seeds, and below it the least and the most."""
    seeds = plan.seeds or 1
    title = f"{plan.scenario} on {plan.fabric}"
    if seeds > 1:
        title += f"; mean over {seeds} seeds, least .. most below"
    table = Table(box=None, padding=(0, 1, 0, 0))
    for key in plan.keys:
        table.add_column(key.rpartition(".")[2].replace("_", "_\n"))
    table.add_column("policy", overflow="fold")
    measures = [name for name in measures_of(replicates) if name in _IN_TABLE]
    for name in measures:
        table.add_column(TITLES[name].replace(" ", "\n"), justify="right", no_wrap=True)
    for one in replicates:
        texts = [as_text(one.values[key]) for key in plan.keys]
        policy = one.policy if one.seeds == seeds else f"{one.policy} ({one.seeds} of {seeds} seeds)"
        table.add_row(
            *map(Text, texts), Text(policy), *(_cell(name, one.spreads.get(name)) for name in measures)
        )
    return Group(Text(title), table) if replicates else Text(f"{title}: no cell has finished")


def _cell(measure: Measure, spread: Spread | None) -> str:
    if spread is None:
        return NOTHING
    mean, least, most = (
        written(measure, value).replace(" ", "") for value in (spread.mean, spread.least, spread.most)
    )
    return mean if least == most else f"{mean}\n[dim]{least}..{most}[/dim]"

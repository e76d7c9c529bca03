"""The tables of `mfs bench scheduler`."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.bench.scheduler import Cost, PolicyCost, circumstances
from experiments.bench.scheduler_events import EventKind
from experiments.results.readable_numbers import NOTHING


def render(cells: Sequence[PolicyCost]) -> Group:
    """Return the tables for a terminal: the costs, and how they grow from the fewest flows to the most."""
    facts = circumstances()
    parts: list[RenderableType] = [_cost_table(cells)]
    growth = growth_table(cells)
    if growth is not None:
        parts += [Text(), growth]
    parts.append(Text(f"{facts['python']} on {facts['cpu']}, garbage collector {facts['gc']}"))
    return Group(*parts)


def _cost_table(cells: Sequence[PolicyCost]) -> Table:
    table = _table("Events and decisions per second; microseconds and flows touched by each event")
    table.add_column("policy")
    for heading in ("flows", "events", "deci- sions", "p50", "p99", "flows each"):
        table.add_column(heading, justify="right")
    table.add_column("worst kind", min_width=10)
    for heading in ("its p99", "tick p99"):
        table.add_column(heading, justify="right")
    for cell in cells:
        kind, worst = cell.worst
        tick = cell.by_kind.get(EventKind.TICK)
        table.add_row(
            Text(cell.policy),
            str(cell.flows),
            f"{cell.events_per_s:.0f}",
            f"{cell.decisions_per_s:.0f}",
            _figure(cell.all.p50_us),
            _figure(cell.all.p99_us),
            _figure(cell.all.flows_touched),
            kind.value,
            _figure(worst.p99_us),
            _figure(tick.p99_us) if tick else NOTHING,
        )
    return table


def growth_table(cells: Sequence[PolicyCost]) -> Table | None:
    """Return how mean cost and flows touched grow from the fewest flows to the most, by kind of event.

    Covers the policies that were measured with both; None if there are none, or only one number of flows.
    """
    counts = {cell.flows for cell in cells}
    few, many = min(counts, default=0), max(counts, default=0)
    by_policy: dict[str, dict[int, PolicyCost]] = {}
    for cell in cells:
        by_policy.setdefault(cell.policy, {})[cell.flows] = cell
    grown = [(mine[few], mine[many]) for mine in by_policy.values() if {few, many} <= mine.keys()]
    if few == many or not grown:
        return None
    table = _table(f"From {few} to {many} flows: times the mean cost / times the flows touched")
    table.add_column("policy")
    for heading in ("all", *EventKind):
        table.add_column(heading, justify="right")
    for before, after in grown:
        kinds = [(before.by_kind.get(kind), after.by_kind.get(kind)) for kind in EventKind]
        table.add_row(Text(before.policy), *(_growth(*pair) for pair in [(before.all, after.all), *kinds]))
    return table


def _growth(before: Cost | None, after: Cost | None) -> str:
    if before is None or after is None:
        return NOTHING
    cost, touched = after.mean_us / before.mean_us, after.flows_touched / before.flows_touched
    return f"{_figure(cost)} / {_figure(touched)}"


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0))

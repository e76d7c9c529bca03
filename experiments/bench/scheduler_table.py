"""The tables of `mfs bench scheduler`."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.bench.scheduler import GOAL_FLOWS, GOAL_P99_US, Cost, Costs, PolicyCost, circumstances
from experiments.bench.scheduler_events import EventKind
from experiments.results.readable_numbers import NOTHING

COLUMNS: Final = 104
"""Width of the table of costs on a terminal, in characters."""


def render(cells: Sequence[PolicyCost]) -> Group:
    """Return the tables for a terminal: the costs, and how they grow from the fewest flows to the most."""
    facts = circumstances()
    parts: list[RenderableType] = [_cost_table(cells)]
    same = dict.fromkeys(cell.policy for cell in cells if cell.grouped is None)
    if same:
        parts.append(Text(f"no grouped row, since every event reaches the policy: {', '.join(same)}"))
    parts += [Text(line) for line in goal_lines(cells)]
    growth = growth_table(cells)
    if growth is not None:
        parts += [Text(), growth]
    parts.append(Text(f"{facts['python']} on {facts['cpu']}, garbage collector {facts['gc']}"))
    return Group(*parts)


def goal_lines(cells: Sequence[PolicyCost]) -> list[str]:
    """Say which policies meet the goal and which miss it. Without cells of that many flows, say nothing.

    Where less than one event in a hundred is a tick, the p99 of all events says little about ticks. So theirs
    are told beside it.
    """
    met: list[str] = []
    missed: list[str] = []
    ticks: list[str] = []
    for cell in cells:
        if cell.flows != GOAL_FLOWS:
            continue
        for name, costs in _rows(cell):
            p99_us = costs.all.p99_us
            (met if p99_us <= GOAL_P99_US else missed).append(f"{name} {_figure(p99_us)}")
            tick = costs.by_kind.get(EventKind.TICK)
            if tick is not None:
                of_all = f"{tick.events / costs.all.events:.1%} of its events"
                ticks.append(f"{name} {_figure(tick.p99_us)} ({of_all})")
    if not met and not missed:
        return []
    goal = f"goal with {GOAL_FLOWS} flows: p99 of all events, ticks included, at most {GOAL_P99_US:.0f} us"
    lines = [goal, f"  met: {', '.join(met) or 'none'}", f"  missed: {', '.join(missed) or 'none'}"]
    return [*lines, f"  p99 of ticks alone: {', '.join(ticks)}"] if ticks else lines


def _rows(cell: PolicyCost) -> list[tuple[str, Costs]]:
    """The rows of a cell, by name."""
    rows: list[tuple[str, Costs]] = [(cell.policy, cell)]
    return rows if cell.grouped is None else [*rows, (f"{cell.policy} grouped", cell.grouped)]


def _cost_table(cells: Sequence[PolicyCost]) -> Table:
    table = _table("Events and decisions per second; microseconds and flows touched by each event")
    table.add_column("policy")
    for heading in ("flows", "asked", "events", "decisions", "p50", "p99", "max", "flows each"):
        table.add_column(heading, justify="right")
    table.add_column("worst kind", min_width=10)
    for heading in ("its p99", "tick p99"):
        table.add_column(heading, justify="right")
    for cell in cells:
        for name, costs in _rows(cell):
            kind, worst = costs.worst
            tick = costs.by_kind.get(EventKind.TICK)
            table.add_row(
                Text(name),
                str(cell.flows),
                f"{costs.asked:.1%}",
                f"{costs.events_per_s:.0f}",
                f"{costs.decisions_per_s:.0f}",
                _figure(costs.all.p50_us),
                _figure(costs.all.p99_us),
                _figure(costs.all.max_us),
                _figure(costs.all.flows_touched),
                kind.value,
                _figure(worst.p99_us),
                _figure(tick.p99_us) if tick else NOTHING,
            )
    return table


def growth_table(cells: Sequence[PolicyCost]) -> Table | None:
    """Return how mean cost and flows touched grow from the fewest flows to the most, by kind of event.

    Covers the policies that were measured with both, and not their grouped rows. None if there are none, or
    only one number of flows.
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

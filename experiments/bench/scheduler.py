"""`mfs bench scheduler`: what one event costs a policy, with how many flows active.

Only the call of the scheduler is timed, by `time.perf_counter_ns` before and after; what makes the
events up (`experiments.bench.scheduler_events`) is not. docs/benchmarks.md says what the columns mean.
"""

import itertools
import platform
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.flow import Assignment
from controller.policies import PolicyError, policy_names
from controller.scheduler import Scheduler
from controller.spec import read_spec
from experiments.bench.prefill_batch import cluster
from experiments.bench.scheduler_events import BenchLoad, Event, EventKind
from experiments.errors import UserError
from experiments.results.readable_numbers import NOTHING
from experiments.results.statistics import mean, percentile
from experiments.units import NS_PER_S, NS_PER_US

DEFAULT_FLOWS: Final = (100, 1_000, 10_000)
MIN_EVENTS: Final = 1_000


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What events cost, in wall microseconds each. `flows_touched` is the mean over the events."""

    events: int
    mean_us: float
    p50_us: float
    p99_us: float
    max_us: float
    flows_touched: float


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One policy with `flows` active flows. Rates are per second spent in the scheduler."""

    policy: str
    flows: int
    events_per_s: float
    decisions_per_s: float
    all: Cost
    by_kind: dict[EventKind, Cost]

    @property
    def worst(self) -> tuple[EventKind, Cost]:
        """The kind of event with the highest p99."""
        return max(self.by_kind.items(), key=lambda item: item[1].p99_us)


class _Timed:
    """A scheduler under load, and what its calls have cost so far."""

    def __init__(self, policy: str, flows: int, *, seed: int, exact: bool) -> None:
        spec = read_spec(policy)
        self._scheduler = Scheduler(
            spec.policy,
            ports={link.id: link.bps for link in cluster().links},
            exact=exact,
            control=spec.control,
        )
        self._calls: dict[EventKind, Callable[..., list[Assignment]]] = {
            EventKind.BATCH: self._scheduler.batch_started,
            EventKind.LAYER: self._scheduler.layer_advanced,
            EventKind.SUBMIT: self._scheduler.submit,
            EventKind.PROGRESS: self._scheduler.progress,
            EventKind.COMPLETION: self._scheduler.completion,
            EventKind.TICK: self._scheduler.tick,
        }
        self._load = BenchLoad(flows, seed=seed)
        self._events = self._load.events()
        self._policy, self._flows = policy, flows
        self._forget()
        while not self._load.filled:
            self._one_more()
        self._forget()

    def _forget(self) -> None:
        self._cost_ns = {kind: array("q") for kind in EventKind}
        self._touched = dict.fromkeys(EventKind, 0)
        self._decisions = 0

    def run_for(self, seconds: float) -> None:
        """Let events come for `seconds` of wall time, and not fewer than `MIN_EVENTS`."""
        until = time.perf_counter() + seconds
        for count in itertools.count():
            if count >= MIN_EVENTS and time.perf_counter() >= until:
                return
            self._one_more()

    def _one_more(self) -> None:
        """The next event, and the tick if one is due by then."""
        event = next(self._events)
        self._time(event)
        due_ns = self._scheduler.next_tick_ns()
        if due_ns is not None and due_ns <= event.at_ns:
            self._time(Event(EventKind.TICK, event.at_ns, (), self._load.active))

    def _time(self, event: Event) -> None:
        call = self._calls[event.kind]
        before = time.perf_counter_ns()
        assignments = call(event.at_ns, *event.arguments)
        after = time.perf_counter_ns()
        self._cost_ns[event.kind].append(after - before)
        self._touched[event.kind] += event.flows
        self._decisions += len(assignments)

    def cell(self) -> Cell:
        kinds = [kind for kind in EventKind if self._cost_ns[kind]]
        everything = _cost(
            [cost for kind in kinds for cost in self._cost_ns[kind]], sum(self._touched.values())
        )
        spent_s = everything.events * everything.mean_us * NS_PER_US / NS_PER_S
        return Cell(
            policy=self._policy,
            flows=self._flows,
            events_per_s=everything.events / spent_s,
            decisions_per_s=self._decisions / spent_s,
            all=everything,
            by_kind={kind: _cost(self._cost_ns[kind], self._touched[kind]) for kind in kinds},
        )


def _cost(cost_ns: Sequence[int], touched: int) -> Cost:
    return Cost(
        events=len(cost_ns),
        mean_us=(mean(cost_ns) or 0.0) / NS_PER_US,
        p50_us=(percentile(cost_ns, 50) or 0.0) / NS_PER_US,
        p99_us=(percentile(cost_ns, 99) or 0.0) / NS_PER_US,
        max_us=max(cost_ns) / NS_PER_US,
        flows_touched=touched / len(cost_ns),
    )


def chosen_policies(specs: Sequence[str]) -> list[str]:
    """`specs`, or all policies there are. Raises `UserError` for one that cannot be made."""
    policies = list(dict.fromkeys(specs)) or policy_names()
    for policy in policies:
        try:
            read_spec(policy)
        except PolicyError as error:
            raise UserError(f"--policy {policy}: {error}") from None
    return policies


def measure(
    policies: Iterable[str],
    flows: Iterable[int],
    *,
    seconds: float,
    seed: int = 1,
    exact: bool = False,
    on_start: Callable[[str, int], None] = lambda policy, count: None,
) -> Iterator[Cell]:
    """One cell after the other, each timed for `seconds` of wall time (and `MIN_EVENTS` at least)
    once its flows are active.

    `on_start` hears of each cell before it is filled. The events of a cell depend on `seed` and its
    number of flows only; a quicker policy gets further in them.
    """
    counts = sorted(set(flows))
    for policy in policies:
        for count in counts:
            on_start(policy, count)
            timed = _Timed(policy, count, seed=seed, exact=exact)
            timed.run_for(seconds)
            yield timed.cell()


def circumstances() -> dict[str, str]:
    """What the numbers depend on: Python, the CPU, the garbage collector."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cpu": _cpu(),
        "gc": "on",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def as_json(cells: Sequence[Cell], *, seconds: float, seed: int, exact: bool, complete: bool) -> Any:
    """All that was measured, as plain data."""
    return {
        **circumstances(),
        "seconds_per_cell": seconds,
        "seed": seed,
        "exact": exact,
        "complete": complete,
        "cells": msgspec.to_builtins(cells, str_keys=True),
    }


def render(cells: Sequence[Cell]) -> Group:
    """The tables for a terminal: costs, then how they grow from the fewest flows to the most."""
    facts = circumstances()
    parts: list[RenderableType] = [_cost_table(cells)]
    growth = growth_table(cells)
    if growth is not None:
        parts += [Text(), growth]
    parts.append(Text(f"{facts['python']} on {facts['cpu']}, garbage collector {facts['gc']}"))
    return Group(*parts)


def _cost_table(cells: Sequence[Cell]) -> Table:
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


def growth_table(cells: Sequence[Cell]) -> Table | None:
    """Mean cost and flows touched with the most flows over those with the fewest, by kind of event.

    Has the policies that were measured with both; `None` where there is none.
    """
    counts = {cell.flows for cell in cells}
    few, many = min(counts, default=0), max(counts, default=0)
    by_policy: dict[str, dict[int, Cell]] = {}
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

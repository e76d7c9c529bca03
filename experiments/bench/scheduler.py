"""`mfs bench scheduler`: the cost of one event under a policy, by the number of active flows.

Only the delivery of events (`scheduler_delivery`) is timed, by `time.perf_counter_ns` before and after;
making them up (`scheduler_events`) is not. docs/measured/benchmarks.md says what the columns mean.
"""

import itertools
import platform
import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from controller.policies import PolicyError, policy_names
from controller.policy import Verdict
from controller.scheduler import Scheduler
from controller.spec import read_spec
from controller.units import NS_PER_S, NS_PER_US
from experiments.bench.prefill_batch import BenchBatch, cluster
from experiments.bench.scheduler_delivery import EveryEvent, Grouped, asks_less
from experiments.bench.scheduler_events import BenchLoad, Event, EventKind
from experiments.errors import UserError
from experiments.results.statistics import mean, percentile

DEFAULT_FLOWS: Final = (100, 1_000, 10_000)
MIN_EVENTS: Final = 1_000
GOAL_FLOWS: Final = 1_000
GOAL_P99_US: Final = 200.0
"""With `GOAL_FLOWS`, the p99 of all events, ticks included, should be at most this."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of events, each in wall microseconds. `flows_touched` is a mean over the events."""

    events: int
    mean_us: float
    p50_us: float
    p99_us: float
    max_us: float
    flows_touched: float


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What events cost. Rates are per second spent in the scheduler and in what delivers events to it.

    `asked` is the share of the events in which a hook of the policy is called.
    """

    events_per_s: float
    decisions_per_s: float
    asked: float
    all: Cost
    by_kind: dict[EventKind, Cost]

    @property
    def worst(self) -> tuple[EventKind, Cost]:
        """The kind of event with the highest p99."""
        return max(self.by_kind.items(), key=lambda item: item[1].p99_us)


class PolicyCost(Costs, frozen=True, kw_only=True):
    """The costs of one policy with `flows` active flows.

    `grouped` are those with the events delivered as the simulated fabric does it. It is None if that is no
    different for the policy.
    """

    policy: str
    flows: int
    grouped: Costs | None = None


class _UnderLoad:
    """A scheduler under load, and the costs of its events so far."""

    def __init__(
        self, scheduler: Scheduler, flows: int, *, seed: int, deliver: Callable[[Scheduler], EveryEvent]
    ) -> None:
        self._scheduler = scheduler
        self._delivery = deliver(scheduler)
        self._load = BenchLoad(flows, seed=seed)
        self._events = self._load.events()
        self._forget()
        while not self._load.filled:
            self._one_more()
        self._forget()

    def _forget(self) -> None:
        self._cost_ns = {kind: array("q") for kind in EventKind}
        self._touched = dict.fromkeys(EventKind, 0)
        self._decisions = 0
        self._asked = 0

    def run_for(self, seconds: float) -> None:
        """Run events for `seconds` of wall time, and at least `MIN_EVENTS` of them."""
        until = time.perf_counter() + seconds
        for count in itertools.count():
            if count >= MIN_EVENTS and time.perf_counter() >= until:
                return
            self._one_more()

    def _one_more(self) -> None:
        """Run the next event, and a tick if one is due by then."""
        event = next(self._events)
        self._time(event)
        due_ns = self._scheduler.next_tick_ns()
        if due_ns is not None and due_ns <= event.at_ns:
            self._time(Event(EventKind.TICK, event.at_ns, (), self._load.active))

    def _time(self, event: Event) -> None:
        self._asked += self._delivery.reaches_a_hook(event)
        call = self._delivery.calls[event.kind]
        before = time.perf_counter_ns()
        answer = call(event.at_ns, *event.arguments)
        after = time.perf_counter_ns()
        self._cost_ns[event.kind].append(after - before)
        self._touched[event.kind] += event.flows
        self._decisions += 1 if isinstance(answer, Verdict) else len(answer)

    def costs(self) -> Costs:
        kinds = [kind for kind in EventKind if self._cost_ns[kind]]
        everything = _cost(
            [cost for kind in kinds for cost in self._cost_ns[kind]], sum(self._touched.values())
        )
        spent_s = everything.events * everything.mean_us * NS_PER_US / NS_PER_S
        return Costs(
            events_per_s=everything.events / spent_s,
            decisions_per_s=self._decisions / spent_s,
            asked=self._asked / everything.events,
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
    """Return `specs`, or all policies if there are none. Raises `UserError` for an invalid spec."""
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
) -> Iterator[PolicyCost]:
    """Measure each policy with each number of flows, one after the other, and grouped where that differs.

    Once its flows are active, a policy is timed for `seconds` of wall time, and for at least `MIN_EVENTS`;
    and again for as long with grouped events. `on_start` is called before the flows of each cell are
    submitted. Except for ticks, the events of a cell depend only on `seed` and the number of flows; a quicker
    policy gets further in them.
    """

    def timed(policy: str, count: int, deliver: Callable[[Scheduler], EveryEvent]) -> Costs:
        under_load = _UnderLoad(_scheduler(policy, exact=exact), count, seed=seed, deliver=deliver)
        under_load.run_for(seconds)
        return under_load.costs()

    counts = sorted(set(flows))
    for policy in policies:
        for count in counts:
            on_start(policy, count)
            each = timed(policy, count, EveryEvent)
            grouped = timed(policy, count, Grouped) if is_asked_less(policy) else None
            yield PolicyCost(policy=policy, flows=count, grouped=grouped, **msgspec.structs.asdict(each))


def is_asked_less(policy: str) -> bool:
    """Whether the simulated fabric asks the policy of this spec less than once an event."""
    scheduler = _scheduler(policy, exact=False)
    batch = BenchBatch.drawn(random.Random(0), "b", unit=0, now_ns=0, at_once=1)
    scheduler.batch_started(0, batch.told())
    return asks_less(scheduler, batch.id)


def _scheduler(policy: str, *, exact: bool) -> Scheduler:
    spec = read_spec(policy)
    ports = {link.id: link.bps for link in cluster().links}
    return Scheduler(spec.policy, ports=ports, exact=exact, control=spec.control)


def circumstances() -> dict[str, str]:
    """Return what the numbers depend on: Python, the CPU, the garbage collector."""
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


def as_json(cells: Sequence[PolicyCost], *, seconds: float, seed: int, exact: bool, complete: bool) -> Any:
    """Return everything that was measured, as plain data."""
    return {
        **circumstances(),
        "seconds_per_cell": seconds,
        "seed": seed,
        "exact": exact,
        "goal": {"flows": GOAL_FLOWS, "p99_us": GOAL_P99_US},
        "complete": complete,
        "cells": msgspec.to_builtins(cells, str_keys=True),
    }

"""`mfs bench scheduler`: which events reach the policy, and what it sees if some do not."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from controller.flow import SERVING_STAGES, Flow, Level, Stage
from controller.policies import make_policy
from controller.policy import Policy, Verdict
from controller.scheduler import Scheduler
from experiments.bench.prefill_batch import cluster
from experiments.bench.scheduler import is_asked_less, measure
from experiments.bench.scheduler_delivery import EveryEvent, Grouped
from experiments.bench.scheduler_events import BenchLoad, Event, EventKind

Deliver = Callable[[Scheduler], EveryEvent]

HOOKS = ("on_submit", "on_batch", "on_layer", "on_progress", "on_completion", "on_departure", "on_tick")


def scheduler_of(policy: Policy) -> Scheduler:
    return Scheduler(policy, ports={link.id: link.bps for link in cluster().links})


def made_up(count: int) -> list[Event]:
    return list(itertools.islice(BenchLoad(200).events(), count))


class Hooked:
    """A policy whose calls of hooks are counted, and a way to deliver events to it."""

    def __init__(self, spec: str, deliver: Deliver) -> None:
        policy = make_policy(spec)
        self.calls = 0
        for hook in HOOKS:
            setattr(policy, hook, self._counted(getattr(policy, hook)))
        self.scheduler = scheduler_of(policy)
        self.delivery = deliver(self.scheduler)
        self.levels: dict[str, Level] = {}

    def _counted(self, hook: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            self.calls += 1
            return hook(*arguments)

        return counted

    def run(self, event: Event) -> None:
        answer = self.delivery.calls[event.kind](event.at_ns, *event.arguments)
        if isinstance(answer, Verdict):
            (flow,) = event.arguments
            assert isinstance(flow, Flow)
            self.levels[flow.id] = answer.level
        else:
            self.levels |= {assignment.flow: assignment.level for assignment in answer}


def with_ticks(hooked: Hooked, events: list[Event]) -> list[Event]:
    """Run `events`, each with a tick after it; return them all."""
    everything = []
    for event in events:
        for one in (event, Event(EventKind.TICK, event.at_ns, (), 1)):
            hooked.run(one)
            everything.append(one)
    return everything


@pytest.mark.parametrize("deliver", [EveryEvent, Grouped])
@pytest.mark.parametrize("spec", ["fair", "mfs", "mfs(demand=own)", "sjf", "pias"])
def test_the_events_that_are_said_to_reach_a_hook_are_those_that_do(spec: str, deliver: Deliver) -> None:
    hooked = Hooked(spec, deliver)
    for event in made_up(6_000):
        before = hooked.calls
        expected = hooked.delivery.reaches_a_hook(event)
        hooked.run(event)
        assert (hooked.calls > before) == expected, event


@pytest.mark.parametrize("deliver", [EveryEvent, Grouped])
def test_a_report_of_progress_that_is_not_lower_reaches_no_hook(deliver: Deliver) -> None:
    hooked = Hooked("pias", deliver)
    for event in made_up(2_000):
        hooked.run(event)
    flow = next(iter(hooked.scheduler.view.flows.values()))
    again = Event(EventKind.PROGRESS, event.at_ns, (flow.flow.id, flow.bytes_left), 1)
    lower = Event(EventKind.PROGRESS, event.at_ns, (flow.flow.id, flow.bytes_left - 1), 1)
    assert not hooked.delivery.reaches_a_hook(again)
    assert hooked.delivery.reaches_a_hook(lower)


@pytest.mark.parametrize("spec", ["mfs", "mfs(demand=own)", "mfs(rho_window_ms=5)", "stage", "sjf", "pias"])
def test_flows_get_the_levels_that_they_get_if_every_event_is_a_call(spec: str) -> None:
    each, grouped = Hooked(spec, EveryEvent), Hooked(spec, Grouped)
    events = made_up(8_000)
    assert with_ticks(each, events) == with_ticks(grouped, events)
    assert len(set(each.levels.values())) > 1
    assert grouped.levels == each.levels


@pytest.mark.parametrize("spec", ["mfs", "mfs(demand=own)", "sjf"])
def test_ports_have_the_loads_that_they_have_if_every_event_is_a_call(spec: str) -> None:
    each, grouped = Hooked(spec, EveryEvent), Hooked(spec, Grouped)
    events = made_up(8_000)
    for hooked in (each, grouped):
        for event in events:
            hooked.run(event)
    now_ns = events[-1].at_ns
    expected, counted = each.scheduler.view.ports, grouped.scheduler.view.ports
    ports = [link.id for link in cluster().links]
    assert [counted.rho(port, now_ns) for port in ports] == [expected.rho(port, now_ns) for port in ports]
    assert [counted.due(port, 2 * 10**9) for port in ports] == [
        expected.due(port, 2 * 10**9) for port in ports
    ]
    assert any(expected.rho(port, now_ns) > 0 for port in ports)
    assert any(expected.due(port, 2 * 10**9).bytes > 0 for port in ports)


def test_a_standing_verdict_is_asked_for_once_for_a_stage_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[tuple[Stage, str | None]] = Counter()
    honest = Scheduler.standing

    def standing(self: Scheduler, stage: Stage, batch: str | None) -> Verdict | None:
        asked[stage, batch] += 1
        return honest(self, stage, batch)

    monkeypatch.setattr(Scheduler, "standing", standing)
    hooked = Hooked("mfs", Grouped)
    for event in made_up(6_000):
        hooked.run(event)
    assert {stage for stage, _ in asked} == set(SERVING_STAGES)
    assert set(asked.values()) == {1}


def test_of_mfs_all_but_collectives_is_submitted_and_of_fair_nothing() -> None:
    events = made_up(6_000)
    seen = {}
    for spec in ("mfs", "fair"):
        hooked = Hooked(spec, Grouped)
        stages: set[Stage] = set()
        for event in events:
            hooked.run(event)
            stages |= {flow.flow.stage for flow in hooked.scheduler.view.flows.values()}
        seen[spec] = stages
    assert seen == {"mfs": {Stage.KV_REUSE, Stage.P2D}, "fair": set()}


@pytest.mark.parametrize(
    ("spec", "less"),
    [
        ("fair", True),  # standing verdicts
        ("sjf", True),  # reads no progress
        ("mfs(demand=own)", True),  # reads progress, but S2 has a standing verdict
        ("pias", False),
        ("mfs + requests", False),  # request control may overrule a standing verdict, and reads progress
    ],
)
def test_a_policy_is_measured_grouped_if_the_simulated_fabric_asks_it_less(spec: str, less: bool) -> None:
    assert is_asked_less(spec) == less
    (cell,) = measure([spec], [100], seconds=0)
    assert (cell.grouped is not None) == less


def test_a_grouped_cell_counts_all_its_events_and_says_how_few_reach_the_policy() -> None:
    """`fair` is asked about batches and layers alone. Each submit is a decision all the same."""
    (cell,) = measure(["fair"], [500], seconds=0)
    grouped = cell.grouped
    assert grouped is not None
    assert sum(cost.events for cost in grouped.by_kind.values()) == grouped.all.events
    few = sum(
        grouped.by_kind[kind].events for kind in (EventKind.BATCH, EventKind.LAYER) if kind in grouped.by_kind
    )
    assert 0 < grouped.asked <= few / grouped.all.events < 0.1
    assert cell.asked > 0.99
    decisions = grouped.decisions_per_s / grouped.events_per_s * grouped.all.events
    assert round(decisions) == grouped.by_kind[EventKind.SUBMIT].events

"""`mfs bench scheduler`: the events that it makes up, counts and prints."""

import io
import itertools
import json
import sys

import msgspec
import pytest
from rich.console import Console

from controller.flow import Flow
from controller.policies import make_policy
from controller.scheduler import Scheduler
from experiments.bench import scheduler as bench_scheduler
from experiments.bench.prefill_batch import cluster
from experiments.bench.scheduler import Cost, PolicyCost, chosen_policies, measure
from experiments.bench.scheduler_events import BenchLoad, Event, EventKind
from experiments.bench.scheduler_table import COLUMNS, goal_lines, growth_table, render
from experiments.cli import app as cli
from experiments.errors import UserError


def first_events(count: int, *, flows: int = 100, seed: int = 1) -> list[Event]:
    return list(itertools.islice(BenchLoad(flows, seed=seed).events(), count))


def test_equal_seeds_make_equal_events_and_others_do_not() -> None:
    assert first_events(2_000) == first_events(2_000)
    assert first_events(2_000) != first_events(2_000, seed=2)


def test_once_filled_the_number_of_active_flows_stays() -> None:
    """Nothing is submitted while there are 100. With fewer, each of the two batches may be completing a
    collective of 8 and the two S1 flows that its layer waits for: 100 - 2 * (8 + 2)."""
    load = BenchLoad(100)
    seen = []
    for _ in itertools.islice(load.events(), 5_000):
        if seen or load.filled:
            seen.append(load.active)
    assert max(seen) == 100
    assert min(seen) >= 80


def test_a_scheduler_takes_every_event_and_ends_up_with_the_same_flows() -> None:
    load = BenchLoad(200, seed=3)
    scheduler = Scheduler(make_policy("mfs"), ports={link.id: link.bps for link in cluster().links})
    calls = {
        EventKind.BATCH: scheduler.batch_started,
        EventKind.LAYER: scheduler.layer_advanced,
        EventKind.SUBMIT: scheduler.submit,
        EventKind.PROGRESS: scheduler.progress,
        EventKind.COMPLETION: scheduler.completion,
    }
    for event in itertools.islice(load.events(), 8_000):
        calls[event.kind](event.at_ns, *event.arguments)  # type: ignore[operator]
    assert len(scheduler.view.flows) == load.active


def test_every_stage_and_every_kind_of_event_takes_part() -> None:
    events = first_events(5_000)
    flows = [event.arguments[0] for event in events if event.kind is EventKind.SUBMIT]
    assert {flow.stage.value for flow in flows if isinstance(flow, Flow)} == {"S1", "S2", "S3"}
    assert {event.kind for event in events} == set(EventKind) - {EventKind.TICK}


def test_events_come_at_the_rate_that_is_stated() -> None:
    """Two batches at once with 4,000 events/s each: event n is at n / 8,000 s."""
    load = BenchLoad(100)
    assert load.events_per_s == 8_000
    assert [event.at_ns for event in itertools.islice(load.events(), 3)] == [125_000, 250_000, 375_000]


def test_a_layer_event_is_about_the_flows_of_its_batch() -> None:
    """Counted here again: the flows that were submitted for the batch and are not complete."""
    batch_of: dict[object, str | None] = {}
    for event in first_events(5_000):
        match event.kind, event.arguments:
            case EventKind.SUBMIT, (Flow() as flow,):
                batch_of[flow.id] = flow.batch
            case EventKind.COMPLETION, (flow_id,):
                del batch_of[flow_id]
            case EventKind.LAYER, (batch, _):
                assert event.flows == max(1, list(batch_of.values()).count(str(batch)))


def test_fewer_flows_than_two_batches_need_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 100 flows, not 99"):
        BenchLoad(99)


def test_each_policy_is_measured_with_each_number_of_flows() -> None:
    cells = list(measure(["stage", "mfs(rho=off)"], [200, 100, 100], seconds=0))
    assert [(cell.policy, cell.flows) for cell in cells] == [
        ("stage", 100),
        ("stage", 200),
        ("mfs(rho=off)", 100),
        ("mfs(rho=off)", 200),
    ]


def test_the_kinds_of_a_cell_add_up_to_all_its_events() -> None:
    (cell,) = measure(["mfs"], [500], seconds=0)
    assert sum(cost.events for cost in cell.by_kind.values()) == cell.all.events
    assert cell.by_kind[EventKind.SUBMIT].flows_touched == 1
    assert 450 <= cell.by_kind[EventKind.TICK].flows_touched <= 500


def test_a_policy_that_wants_no_ticks_gets_none() -> None:
    (cell,) = measure(["fair"], [100], seconds=0)
    assert EventKind.TICK not in cell.by_kind


def cost(p99_us: float, *, mean_us: float = 1.0, touched: float = 1.0) -> Cost:
    return Cost(
        events=10, mean_us=mean_us, p50_us=mean_us, p99_us=p99_us, max_us=p99_us, flows_touched=touched
    )


def cell(flows: int, **kinds: Cost) -> PolicyCost:
    by_kind = {EventKind(name): value for name, value in kinds.items()}
    whole = next(iter(by_kind.values()))
    return PolicyCost(
        policy="p", flows=flows, events_per_s=1.0, decisions_per_s=1.0, asked=1.0, all=whole, by_kind=by_kind
    )


def test_the_worst_kind_is_the_one_with_the_highest_p99() -> None:
    kind, worst = cell(100, submit=cost(5), layer=cost(70), tick=cost(60)).worst
    assert (kind, worst.p99_us) == (EventKind.LAYER, 70)


def test_growth_compares_the_most_flows_with_the_fewest() -> None:
    """The cost grows from 2 to 9 us, 4.5 times; the flows touched from 100 to 1,000, 10 times."""
    table = growth_table(
        [
            cell(100, tick=cost(1, mean_us=2, touched=100)),
            cell(500, tick=cost(1, mean_us=3, touched=500)),
            cell(1_000, tick=cost(1, mean_us=9, touched=1_000)),
        ]
    )
    assert table is not None
    ticks = next(column for column in table.columns if column.header == "tick")
    assert list(ticks.cells) == ["4.5 / 10.0"]


def test_the_goal_is_for_the_p99_of_all_events_with_1000_flows() -> None:
    met = cell(1_000, submit=cost(200))
    missed = msgspec.structs.replace(met, policy="q", all=cost(200.1), grouped=met)
    assert goal_lines([cell(100, submit=cost(300)), met, missed])[1:] == [
        "  met: p 200, q grouped 200",
        "  missed: q 200",
    ]
    assert goal_lines([cell(100, submit=cost(300))]) == []


def test_ticks_are_told_beside_the_goal_because_they_are_too_rare_for_its_p99() -> None:
    ticks = msgspec.structs.replace(cost(484), events=6)
    whole = msgspec.structs.replace(cost(190), events=1_000)
    assert goal_lines([cell(1_000, submit=whole, tick=ticks)])[1:] == [
        "  met: p 190",
        "  missed: none",
        "  p99 of ticks alone: p 484 (0.6% of its events)",
    ]


def printed(*cells: PolicyCost) -> list[str]:
    console = Console(width=COLUMNS, file=io.StringIO())
    console.print(render(cells))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_the_grouped_row_follows_the_row_of_its_policy() -> None:
    each = cell(500, submit=cost(7))
    grouped = msgspec.structs.replace(each, asked=0.25, all=cost(3))
    lines = printed(msgspec.structs.replace(each, grouped=grouped))
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["p", "500", "100.0%", "1"],
        ["p", "grouped", "500", "25.0%"],
    ]
    assert not any("no grouped row" in line for line in lines)


def test_a_policy_without_a_grouped_row_is_named() -> None:
    lines = printed(cell(100, submit=cost(7)), cell(500, submit=cost(7)))
    assert "no grouped row, since every event reaches the policy: p" in [line.rstrip() for line in lines]


def test_there_is_no_growth_with_one_number_of_flows() -> None:
    assert growth_table([cell(100, submit=cost(1))]) is None


def test_a_policy_there_is_not_is_refused_before_anything_is_timed() -> None:
    with pytest.raises(UserError, match="--policy fare: "):
        chosen_policies(["mfs", "fare"])


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mfs", "bench", "scheduler", "--seconds", "0.01", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_json_says_what_the_numbers_depend_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "--policy", "fair", "--flows", "100", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gc"] == "on"
    assert told["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert (told["complete"], [c["policy"] for c in told["cells"]]) == (True, ["fair"])
    assert told["goal"] == {"flows": 1000, "p99_us": 200}


def test_json_has_grouped_events_where_they_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "--policy", "fair", "--policy", "pias", "--flows", "100", "--json") == 0
    fair, pias = json.loads(capsys.readouterr().out)["cells"]
    assert fair["grouped"]["asked"] < 0.1 < 0.9 < fair["asked"]
    assert fair["grouped"]["by_kind"]["submit"]["events"] > 0
    assert pias["grouped"] is None


def test_an_interrupt_prints_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> object:
        yield cell(100, submit=cost(5))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_scheduler, "measure", interrupted)
    assert run_command(monkeypatch, "--policy", "fair", "--json") == 130
    told = json.loads(capsys.readouterr().out)
    assert (told["complete"], len(told["cells"])) == (False, 1)

"""The levels at which a flow was sent."""

import random

import pyarrow as pa
import pytest
from result_rows import flow_row

from controller.flow import Decision, Level
from experiments.results.levels import (
    DECISION_COLUMNS,
    FLOW_COLUMNS,
    STEADY_COLUMNS,
    level_periods,
    periods_of,
    steady,
    steady_periods,
)
from testbed.columns import batches_of
from testbed.record import FlowRow


def decision(time_ns: int, level: Level, previous: Level | None = None, flow: str = "f") -> Decision:
    return Decision(time_ns=time_ns, flow=flow, level_from=previous, level_to=level, reason="why")


def test_level_periods_cover_a_flow_from_permit_to_finish() -> None:
    flow = flow_row(submit_ns=0, permit_ns=10, finish_ns=100)
    history = [
        decision(0, Level.P6),
        decision(5, Level.P5, Level.P6),  # before the permit: nothing was sent at P6
        decision(60, Level.P1, Level.P5),
        decision(120, Level.SCAVENGER, Level.P1),  # after the end
    ]
    periods = level_periods(flow, history)
    assert [(p.start_ns, p.end_ns, p.level) for p in periods] == [
        (10, 60, Level.P5),
        (60, 100, Level.P1),
    ]


def test_a_flow_without_decisions_stays_at_its_first_level() -> None:
    (period,) = level_periods(flow_row(permit_ns=3, finish_ns=9), [])
    assert (period.start_ns, period.end_ns, period.level) == (3, 9, Level.P3)


def columns(rows: list[FlowRow] | list[Decision], names: tuple[str, ...]) -> pa.Table:
    """The rows as a table of a run directory has them, with plain strings."""
    return pa.Table.from_pylist([one for batch in batches_of(rows, names) for one in batch.to_pylist()])


@pytest.mark.parametrize("seed", range(20))
def test_the_periods_of_many_flows_are_those_of_each(seed: int) -> None:
    """Among them flows without decisions, with some before the permit, at the same moment or after the end,
    and flows that took no time. Half of the tables lack the decisions that gave flows their first level."""
    draw = random.Random(seed)
    flows = [
        flow_row(
            id=f"f{i}",
            submit_ns=0,
            permit_ns=(permit := draw.randrange(10)),
            finish_ns=permit + draw.randrange(10),
            level_first=Level(draw.randrange(8)),
        )
        for i in range(30)
    ]
    firsts = [decision(0, flow.level_first, flow=flow.id) for flow in flows[::2]]
    changes = [
        decision(draw.randrange(20), Level(draw.randrange(8)), Level.P6, flow=f"f{2 * draw.randrange(20)}")
        for _ in range(60)
    ]
    decisions = sorted([*firsts, *changes], key=lambda one: one.time_ns)
    told = decisions if seed % 2 else [one for one in decisions if one.level_from is not None]
    parts = [columns(told[i : i + 25], DECISION_COLUMNS) for i in range(0, len(told), 25)]
    found = periods_of(columns(flows, FLOW_COLUMNS), parts)
    one_by_one = [
        (period.start_ns, period.end_ns, period.level)
        for flow in flows
        for period in level_periods(flow, [one for one in decisions if one.flow == flow.id])
    ]
    assert list(zip(found.start_ns, found.end_ns, found.level, strict=True)) == one_by_one


def test_a_flow_is_steady_if_it_had_one_level_all_the_time() -> None:
    flows = [
        flow_row(id="same", level_first=Level.P3, level_last=Level.P3, permit_ns=2, finish_ns=7),
        flow_row(id="down", level_first=Level.P3, level_last=Level.P5),
        flow_row(id="up", level_first=Level.P3, level_last=Level.P1, promotions=1),
        flow_row(id="down and up", level_first=Level.P3, level_last=Level.P3, promotions=1),
        flow_row(id="no time", level_first=Level.P3, level_last=Level.P3, permit_ns=4, finish_ns=4),
    ]
    table = columns(flows, STEADY_COLUMNS)
    assert steady(table).tolist() == [True, False, False, False, True]
    periods = steady_periods(table.take([0, 4]))
    assert (periods.start_ns.tolist(), periods.end_ns.tolist(), periods.level.tolist()) == ([2], [7], [3])

"""The levels at which a flow was sent."""

from result_rows import flow_row

from controller.flow import Decision, Level
from experiments.results.levels import level_periods


def decision(time_ns: int, level: Level, previous: Level | None = None) -> Decision:
    return Decision(time_ns=time_ns, flow="f", level_from=previous, level_to=level, reason="why")


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

"""The levels at which flows were sent, and when."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from controller.flow import Decision, Level
from testbed.record import FlowRow


class LevelPeriod(msgspec.Struct, frozen=True):
    """A flow was sent at `level` from `start_ns` to `end_ns`. `reason` is why it had that level."""

    start_ns: int
    end_ns: int
    level: Level
    reason: str


def level_periods(flow: FlowRow, decisions: Sequence[Decision]) -> list[LevelPeriod]:
    """Return the levels at which `flow` was sent, in order, from its permit to its finish.

    `decisions` are those of the flow, sorted by time. A level that it had only before the permit or after
    the finish has no period. A flow without decisions was at `level_first` all the time.
    """
    changes = [(d.time_ns, d.level_to, d.reason) for d in decisions]
    if not changes:
        changes = [(flow.submit_ns, flow.level_first, "")]
    ends = [time for time, _, _ in changes[1:]] + [flow.finish_ns]
    periods: list[LevelPeriod] = []
    for (time, level, reason), end in zip(changes, ends, strict=True):
        start, stop = max(time, flow.permit_ns), min(end, flow.finish_ns)
        if not periods:
            start = flow.permit_ns
        if stop > start:
            periods.append(LevelPeriod(start, stop, level, reason))
    return periods


def decisions_by_flow(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """Return the decisions of each flow, in order of time."""
    grouped: dict[str, list[Decision]] = defaultdict(list)
    for decision in sorted(decisions, key=lambda d: d.time_ns):
        grouped[decision.flow].append(decision)
    return grouped

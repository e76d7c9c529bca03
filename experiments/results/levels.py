"""The levels at which flows were sent, and when."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controller.flow import Decision, Level
from experiments.results.parquet import in_groups
from testbed.record import FlowRow

IntArray = npt.NDArray[np.int64]


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


FLOW_COLUMNS: Final = ("id", "submit_ns", "permit_ns", "finish_ns", "level_first")
DECISION_COLUMNS: Final = ("time_ns", "flow", "level_to")
_ROWS_AT_ONCE: Final = 100_000
"""To look ids up among others, Arrow takes as long to prepare as for some ten thousand look-ups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """The periods of many flows: arrays with an entry for each."""

    start_ns: IntArray
    end_ns: IntArray
    level: IntArray


def periods_of(flows: pa.Table, decisions: Iterable[pa.Table]) -> Periods:
    """Return what `level_periods` returns for each of `flows`, without the reasons, in order of flows.

    `flows` has at least `FLOW_COLUMNS`, each id once. `decisions` has tables with `DECISION_COLUMNS` of these
    and maybe other flows.
    """
    ids = flows["id"].combine_chunks()
    submit, permit, finish, first = (flows[name].to_numpy() for name in FLOW_COLUMNS[1:])
    whose, times, levels = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in in_groups(decisions, _ROWS_AT_ONCE):
        found = pc.index_in(part["flow"], value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
        whose.append(found[found >= 0])
        times.append(part["time_ns"].to_numpy()[found >= 0])
        levels.append(part["level_to"].to_numpy()[found >= 0])
    without = np.setdiff1d(np.arange(flows.num_rows), np.concatenate(whose))
    whose.append(without)
    times.append(submit[without])
    levels.append(first[without])
    flow, time, level = np.concatenate(whose), np.concatenate(times), np.concatenate(levels)
    order = np.lexsort((time, flow))
    flow, time, level = flow[order], time[order], level[order]
    is_first = np.diff(flow, prepend=-1) > 0
    is_last = np.append(is_first[1:], True)[: len(flow)]
    start = np.where(is_first, permit[flow], np.maximum(time, permit[flow]))
    end = np.minimum(np.where(is_last, finish[flow], np.append(time[1:], 0)[: len(flow)]), finish[flow])
    lasts = end > start
    return Periods(start_ns=start[lasts], end_ns=end[lasts], level=level[lasts].astype(np.int64))


def decisions_by_flow(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """Return the decisions of each flow, in order of time."""
    grouped: dict[str, list[Decision]] = defaultdict(list)
    for decision in sorted(decisions, key=lambda d: d.time_ns):
        grouped[decision.flow].append(decision)
    return grouped

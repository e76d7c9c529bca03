"""The levels at which flows were sent, and when."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controller.flow import Decision, Level
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


STEADY_COLUMNS: Final = ("permit_ns", "finish_ns", "level_first", "level_last", "promotions")
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


def steady(flows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which of `flows`, which has at least `STEADY_COLUMNS`, had one level all the time."""
    first, last, promotions = (flows[name].to_numpy() for name in ("level_first", "level_last", "promotions"))
    one: npt.NDArray[np.bool_] = (first == last) & (promotions == 0)
    return one


def steady_periods(flows: pa.Table) -> Periods:
    """Return the periods of flows that had one level all the time. `flows` has at least `STEADY_COLUMNS`."""
    permit, finish, level = (flows[name].to_numpy() for name in ("permit_ns", "finish_ns", "level_first"))
    lasts = finish > permit
    return Periods(start_ns=permit[lasts], end_ns=finish[lasts], level=level[lasts].astype(np.int64))


def periods_of(flows: pa.Table, decisions: Iterable[pa.Table]) -> Periods:
    """Return what `level_periods` returns for each of `flows`, without the reasons, in order of flows.

    `flows` has at least `FLOW_COLUMNS`, each id once. `decisions` has tables with `DECISION_COLUMNS` of these
    and maybe other flows. It may lack those that gave a flow its first level.
    """
    ids = flows["id"].combine_chunks()
    submit, permit, finish, first = (flows[name].to_numpy() for name in FLOW_COLUMNS[1:])
    whose, times, levels = [np.arange(flows.num_rows)], [submit], [first]
    for part in _in_groups(decisions, _ROWS_AT_ONCE):
        found = pc.index_in(part["flow"], value_set=ids).fill_null(-1).to_numpy().astype(np.int64)
        whose.append(found[found >= 0])
        times.append(part["time_ns"].to_numpy()[found >= 0])
        levels.append(part["level_to"].to_numpy()[found >= 0])
    flow, time, level = np.concatenate(whose), np.concatenate(times), np.concatenate(levels)
    order = np.lexsort((time, flow))
    flow, time, level = flow[order], time[order], level[order]
    is_last = np.append(np.diff(flow) > 0, True)[: len(flow)]
    start = np.maximum(time, permit[flow])
    end = np.minimum(np.where(is_last, finish[flow], np.append(time[1:], 0)[: len(flow)]), finish[flow])
    lasts = end > start
    return Periods(start_ns=start[lasts], end_ns=end[lasts], level=level[lasts].astype(np.int64))


def _in_groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of `tables` in tables of at least `rows` rows. The last may have fewer."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= rows:
            yield pa.concat_tables(waiting)
            waiting, count = [], 0
    if count:
        yield pa.concat_tables(waiting)


def decisions_by_flow(decisions: Iterable[Decision]) -> dict[str, list[Decision]]:
    """Return the decisions of each flow, in order of time."""
    grouped: dict[str, list[Decision]] = defaultdict(list)
    for decision in sorted(decisions, key=lambda d: d.time_ns):
        grouped[decision.flow].append(decision)
    return grouped

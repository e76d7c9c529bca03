"""The processes and threads of a Chrome trace, and slices on them."""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

Event = dict[str, Any]

REQUESTS_PID: Final = 1
RANKS_PID: Final = 2
LINKS_PID: Final = 3
RATES_PID: Final = 4
FAULTS_PID: Final = 5
FIRST_TID: Final = 10
"""Above the numbers of processes: a thread with the number of its process would be its main thread."""

_PROCESSES: Final = {
    FAULTS_PID: "faults",
    REQUESTS_PID: "requests",
    RANKS_PID: "ranks",
    LINKS_PID: "links",
    RATES_PID: "rates of links",
}
"""In the order in which a viewer shows them."""


class Slice(NamedTuple):
    """A slice of thread `tid` of process `pid`."""

    pid: int
    tid: int
    start_ns: int
    end_ns: int


def us(time_ns: int) -> float:
    return time_ns / 1000


def name_process(pid: int) -> Iterator[Event]:
    common = {"ph": "M", "pid": pid, "tid": pid}
    yield {**common, "name": "process_name", "args": {"name": _PROCESSES[pid]}}
    yield {**common, "name": "process_sort_index", "args": {"sort_index": list(_PROCESSES).index(pid)}}


def name_thread(pid: int, tid: int, name: str) -> Iterator[Event]:
    common = {"ph": "M", "pid": pid, "tid": tid}
    yield {**common, "name": "thread_name", "args": {"name": name}}
    yield {**common, "name": "thread_sort_index", "args": {"sort_index": tid}}


def numbered(name: str, i: int) -> str:
    """Return the name of the thread `i`, counted from 0, of those that stand for one thing."""
    return f"{name} ({i + 1})" if i else name


def slice_event(at: Slice, category: str, name: str) -> Event:
    return {
        "ph": "X",
        "cat": category,
        "pid": at.pid,
        "tid": at.tid,
        "name": name,
        "ts": us(at.start_ns),
        "dur": us(at.end_ns - at.start_ns),
    }


def free_lanes(times: Sequence[tuple[int, int]]) -> list[int]:
    """Return a lane for each (start, end), which are sorted, so that those of a lane follow each other.

    It is always the first lane that is free.
    """
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    lanes = []
    for start, end in times:
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lane))
        lanes.append(lane)
    return lanes

"""The faults of a run in a Chrome trace: a thread for each thing that faults strike, above all others.

A slice is as long as the scenario asks for. A viewer zooms to what there is, so in a window of the run,
slices begin and end with the window.
"""

from collections.abc import Iterator
from typing import Any

from controller.units import NS_PER_S
from experiments.results.excerpt import Excerpt
from experiments.results.trace_places import (
    FAULTS_PID,
    Event,
    Slice,
    free_lanes,
    name_process,
    name_thread,
    numbered,
    slice_event,
)
from testbed.faults import Fault, LinkFault


def fault_events(shown: Excerpt, tids: Iterator[int]) -> Iterator[Event]:
    """Yield the slices of the faults that were in force in what is shown, and the names of their threads."""
    if not shown.faults:
        return
    yield from name_process(FAULTS_PID)
    by_place: dict[str, list[Fault]] = {}
    for fault in shown.faults:
        by_place.setdefault(fault.place, []).append(fault)
    for place, faults in by_place.items():
        faults.sort(key=lambda fault: fault.from_ns)
        times = [_clipped(fault, shown) for fault in faults]
        lanes = free_lanes(times)
        of_place = [next(tids) for _ in range(max(lanes) + 1)]
        for i, tid in enumerate(of_place):
            yield from name_thread(FAULTS_PID, tid, numbered(place, i))
        for fault, (start_ns, end_ns), lane in zip(faults, times, lanes, strict=True):
            at = Slice(FAULTS_PID, of_place[lane], start_ns, end_ns)
            yield {**slice_event(at, "fault", fault.words), "args": _args(fault)}


def _clipped(fault: Fault, shown: Excerpt) -> tuple[int, int]:
    end_ns = shown.ends_ns if fault.to_ns is None else min(fault.to_ns, shown.ends_ns)
    return max(fault.from_ns, shown.window.from_ns), end_ns


def _args(fault: Fault) -> dict[str, Any]:
    args: dict[str, Any] = {"from_s": fault.from_ns / NS_PER_S}
    if fault.to_ns is not None:
        args["to_s"] = fault.to_ns / NS_PER_S
    if isinstance(fault, LinkFault):
        args["ports"] = ", ".join(fault.ports)
    return args

"""A reader of Chrome traces that does not know how ours are made: it goes by the rules of the format alone.

It does what a viewer does: it sorts events by time, keeps the order of those of one moment, and attaches
each end of an arrow to the innermost slice that its thread is in. It raises `BrokenTrace` where a viewer
would drop something or show it in a wrong place.
"""

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]

_KINDS = {"M", "X", "i", "C", "s", "t", "f"}


class BrokenTrace(Exception):
    pass


@dataclass(frozen=True)
class Seen:
    """A slice as a viewer shows it. Times are in nanoseconds."""

    process: str
    thread: str
    name: str
    start_ns: int
    end_ns: int
    depth: int
    args: dict[str, Any] = field(compare=False, hash=False)


@dataclass
class View:
    """What a viewer shows: slices, arrows (each the slices that it touches, in order), counters by name."""

    slices: list[Seen]
    arrows: list[list[Seen]]
    counters: dict[str, list[tuple[int, dict[str, float]]]]
    about: dict[str, Any]


def opened(path: Path) -> View:
    """Open a compressed trace."""
    trace = json.loads(gzip.decompress(path.read_bytes()))
    return viewed(trace["traceEvents"], trace.get("otherData", {}))


def viewed(events: list[Event], about: dict[str, Any] | None = None) -> View:
    processes: dict[int, str] = {}
    threads: dict[tuple[int, int], str] = {}
    for event in events:
        if event["ph"] not in _KINDS:
            raise BrokenTrace(f"unknown kind {event['ph']}")
        if event["ph"] == "M" and event["name"] == "process_name":
            _once(processes, event["pid"], event["args"]["name"])
        if event["ph"] == "M" and event["name"] == "thread_name":
            _once(threads, (event["pid"], event["tid"]), event["args"]["name"])
    if len({tid for _, tid in threads}) < len(threads):
        raise BrokenTrace("two processes have a thread of the same number")
    view = View([], [], defaultdict(list), about or {})
    open_slices: dict[tuple[int, int], list[Seen]] = defaultdict(list)
    arrows: dict[tuple[str, str, int], list[Seen]] = {}
    timed = [event for event in events if event["ph"] != "M"]
    for event in sorted(timed, key=lambda event: _ns(event["ts"])):
        now_ns, place = _ns(event["ts"]), (event["pid"], event["tid"])
        if event["pid"] not in processes:
            raise BrokenTrace(f"process {event['pid']} has no name")
        if event["ph"] == "C":
            view.counters[event["name"]].append((now_ns, event["args"]))
            continue
        if place not in threads:
            raise BrokenTrace(f"thread {place} has no name")
        stack = open_slices[place]
        while stack and stack[-1].end_ns <= now_ns and event["ph"] == "X":
            stack.pop()
        if event["ph"] == "X":
            end_ns = now_ns + _ns(event["dur"])
            if stack and end_ns > stack[-1].end_ns:
                raise BrokenTrace(f"{event['name']} overlaps {stack[-1].name} in part")
            names = processes[event["pid"]], threads[place]
            args = event.get("args", {})
            stack.append(Seen(*names, event["name"], now_ns, end_ns, len(stack), args))
            view.slices.append(stack[-1])
        elif event["ph"] in "stf":
            inside = [slice for slice in stack if slice.end_ns > now_ns]
            if not inside:
                raise BrokenTrace(f"an arrow of {event['name']} ends in no slice at {now_ns} ns")
            key = (event["cat"], event["name"], event["id"])
            if event["ph"] == "s":
                if key in arrows:
                    raise BrokenTrace(f"arrow {key} begins twice")
                arrows[key] = []
            if event["ph"] == "f" and event.get("bp") != "e":
                raise BrokenTrace("an arrow would end at the next slice")
            arrows[key].append(inside[-1])
            if event["ph"] == "f":
                view.arrows.append(arrows.pop(key))
    if arrows:
        raise BrokenTrace(f"arrows without an end: {sorted(arrows)}")
    return view


def _once(names: dict[Any, str], key: Any, name: str) -> None:
    if key in names:
        raise BrokenTrace(f"{key} has two names")
    names[key] = name


def _ns(us: float) -> int:
    if us < 0:
        raise BrokenTrace("a time before the run")
    return round(us * 1000)

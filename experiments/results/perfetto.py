"""A run as a Chrome trace (JSON), for ui.perfetto.dev or chrome://tracing.

The trace has a process "requests" (one row per request: queue, prefill, S3 tail, decode step, and an
instant at the deadline), a process "ranks" (one thread per rank, more if spans overlap), and one process
per link (a slice per level period of each flow that crosses it, and a counter of the rate at each level).
`ts` and `dur` are microseconds of model time.

Reference: "Trace Event Format", Google, the de facto description of this JSON.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from controller.flow import Decision, Level
from experiments.results.excerpt import Excerpt
from experiments.results.levels import level_periods
from experiments.results.link_rates import LinkRate
from experiments.results.requests import meets_slo
from testbed.record import FlowRow, RequestRow, SpanRow
from workers.spans import SpanKind

Event = dict[str, Any]

REQUESTS_PID: Final = 1
RANKS_PID: Final = 2
FIRST_LINK_PID: Final = 10

_BETWEEN: Final = b",\n"
_WRITTEN_AT_ONCE: Final = 4096
_PLACE: Final = b'"id":0,"pid":0,"tid":0'
"""Stands in the slices of a flow for their place, which differs on each of its links."""
_JSON: Final = msgspec.json.Encoder()

# Perfetto ignores `cname` and colours a slice by its name without digits, so the names have words beside
# "P1". chrome://tracing uses `cname`, which must be one of its reserved names.
LEVEL_NAMES: Final = {
    Level.CONTROL: "control",
    Level.P1: "P1 most urgent",
    Level.P2: "P2 urgent",
    Level.P3: "P3 soon",
    Level.P4: "P4 later",
    Level.P5: "P5 low",
    Level.P6: "P6 lowest",
    Level.SCAVENGER: "scavenger",
}
LEVEL_COLOURS: Final = {
    Level.CONTROL: "white",
    Level.P1: "terrible",
    Level.P2: "bad",
    Level.P3: "yellow",
    Level.P4: "good",
    Level.P5: "thread_state_running",
    Level.P6: "thread_state_runnable",
    Level.SCAVENGER: "grey",
}
SPAN_NAMES: Final[dict[str, str]] = {
    SpanKind.S1_WAIT: "S1 wait",
    SpanKind.DECODE_STEP: "decode step",
}
SPAN_COLOURS: Final[dict[str, str]] = {
    SpanKind.S1_WAIT: "bad",
    SpanKind.COMPUTE: "good",
    SpanKind.COLLECTIVE: "thread_state_iowait",
    SpanKind.DECODE_STEP: "rail_response",
}


def trace_events(shown: Excerpt) -> Iterator[bytes]:
    """Yield all events of an excerpt as JSON: one at a time, or several with `_BETWEEN` between them.

    Slices are `X` (ranks) or pairs of `b` and `e` (requests, links).
    """
    yield from map(_JSON.encode, _request_events(shown.requests))
    yield from map(_JSON.encode, _rank_events(shown.spans, _servers(shown.flows)))
    yield from _link_events(shown)


def write_timeline(path: Path, events: Iterable[bytes], *, title: str, only: str | None = None) -> None:
    """Write the trace, one event per line: a trace can have 100,000, and `grep` should work on it."""
    about = {"title": title, "time": "model time"}
    if only is not None:
        about["only"] = only
    left = iter(events)
    with path.open("wb") as file:
        head = json.dumps(about)
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {head}, "traceEvents": ['.encode())
        separator = b"\n"
        while part := list(islice(left, _WRITTEN_AT_ONCE)):
            file.write(separator + _BETWEEN.join(part))
            separator = _BETWEEN
        file.write(b"\n]}\n")


def _us(time_ns: int) -> float:
    return time_ns / 1000


def _process(pid: int, name: str, order: int) -> Iterator[Event]:
    yield {"ph": "M", "pid": pid, "tid": pid, "name": "process_name", "args": {"name": name}}
    yield {
        "ph": "M",
        "pid": pid,
        "tid": pid,
        "name": "process_sort_index",
        "args": {"sort_index": order},
    }


def _slice(
    *,
    pid: int,
    id: str,
    category: str,
    name: str,
    start_ns: int,
    end_ns: int,
    args: dict[str, Any] | None = None,
) -> tuple[Event, Event]:
    """Return the begin and the end of an asynchronous slice. Only slices of the same id have to nest."""
    common = {"cat": category, "id": id, "pid": pid, "tid": pid, "name": name}
    begin: Event = {**common, "ph": "b", "ts": _us(start_ns)}
    if args:
        begin["args"] = args
    return begin, {**common, "ph": "e", "ts": _us(end_ns)}


def _request_events(rows: Sequence[RequestRow]) -> Iterator[Event]:
    if not rows:
        return
    yield from _process(REQUESTS_PID, "requests", 0)
    for row in rows:
        marks = [
            ("queue", row.arrival_ns),
            ("prefill", row.start_ns),
            ("S3 tail", row.prefill_end_ns),
            ("decode step", _p2d_done(row)),
            ("", row.first_token_ns),
        ]
        reached = [(name, time) for name, time in marks if time is not None]
        id = f"request-{row.request}"
        begin, end = _slice(
            pid=REQUESTS_PID,
            id=id,
            category="request",
            name=f"request {row.request}" + ("" if meets_slo(row) else " (SLO missed)"),
            start_ns=row.arrival_ns,
            end_ns=reached[-1][1],
            args={
                "status": row.status,
                "slo_class": row.slo_class,
                "prompt_tokens": row.prompt_tokens,
                "unit": row.unit,
                "batch": row.batch,
            },
        )
        yield begin
        for (name, since), (_, until) in pairwise(reached):
            yield from _slice(
                pid=REQUESTS_PID, id=id, category="request", name=name, start_ns=since, end_ns=until
            )
        yield end
        yield {
            "ph": "n",
            "cat": "request",
            "id": id,
            "pid": REQUESTS_PID,
            "tid": REQUESTS_PID,
            "name": "deadline",
            "ts": _us(row.arrival_ns + row.slo_ns),
        }


def _p2d_done(row: RequestRow) -> int | None:
    """Return when all KV was at the decode worker, or the end of prefill if that is later."""
    if row.p2d_end_ns is None or row.prefill_end_ns is None:
        return None
    return max(row.p2d_end_ns, row.prefill_end_ns)


def _servers(flows: Sequence[FlowRow]) -> dict[int, str]:
    servers = {flow.src: flow.src_server for flow in flows}
    for flow in flows:
        if flow.dst_server is not None:
            servers.setdefault(flow.dst, flow.dst_server)
    return servers


def _rank_events(spans: Sequence[SpanRow], servers: dict[int, str]) -> Iterator[Event]:
    if not spans:
        return
    yield from _process(RANKS_PID, "ranks", 1)
    by_rank: dict[int, list[SpanRow]] = {}
    for span in spans:
        by_rank.setdefault(span.rank, []).append(span)
    tid = 0
    for rank in sorted(by_rank):
        for i, lane in enumerate(nesting_lanes(by_rank[rank])):
            tid += 1
            name = f"rank {rank}" + (f" on {servers[rank]}" if rank in servers else "")
            yield {
                "ph": "M",
                "pid": RANKS_PID,
                "tid": tid,
                "name": "thread_name",
                "args": {"name": name + (f" ({i + 1})" if i else "")},
            }
            yield {
                "ph": "M",
                "pid": RANKS_PID,
                "tid": tid,
                "name": "thread_sort_index",
                "args": {"sort_index": tid},
            }
            for span in lane:
                yield _span_event(span, tid)


def _span_event(span: SpanRow, tid: int) -> Event:
    name = SPAN_NAMES.get(span.kind, span.kind)
    event: Event = {
        "ph": "X",
        "cat": span.kind,
        "pid": RANKS_PID,
        "tid": tid,
        "name": f"{name}: {span.label}" if span.label else name,
        "ts": _us(span.start_ns),
        "dur": _us(span.end_ns - span.start_ns),
        "args": {"batch": span.batch, "layer": span.layer},
    }
    if span.kind in SPAN_COLOURS:
        event["cname"] = SPAN_COLOURS[span.kind]
    return event


def nesting_lanes(spans: Iterable[SpanRow]) -> list[list[SpanRow]]:
    """Distribute spans over lanes, first fit, so that those of a lane follow each other or nest.

    The slices of a thread must not overlap partially, but the decode steps of a decode worker may.
    """
    lanes: list[list[SpanRow]] = []
    open_ends: list[list[int]] = []
    for span in sorted(spans, key=lambda s: (s.start_ns, -s.end_ns)):
        for lane, ends in zip(lanes, open_ends, strict=True):
            while ends and ends[-1] <= span.start_ns:
                ends.pop()
            if not ends or span.end_ns <= ends[-1]:
                lane.append(span)
                ends.append(span.end_ns)
                break
        else:
            lanes.append([span])
            open_ends.append([span.end_ns])
    return lanes


def _link_events(shown: Excerpt) -> Iterator[bytes]:
    crossing: dict[str, list[int]] = {}
    for number, flow in enumerate(shown.flows):
        for port in flow.path:
            crossing.setdefault(port, []).append(number)
    slices = [_flow_slices(flow, shown.decisions.get(flow.id, ())) for flow in shown.flows]
    ports = sorted(crossing.keys() | shown.rates.keys())
    for pid, port in enumerate(ports, start=FIRST_LINK_PID):
        yield from map(_JSON.encode, _process(pid, f"link {port}", pid))
        for i, number in enumerate(crossing.get(port, ())):
            place = b'"id":"%d.%d","pid":%d,"tid":%d' % (pid, i, pid, pid)
            if slices[number]:
                yield slices[number].replace(_PLACE, place)
        if port in shown.rates:
            yield from map(_JSON.encode, _counter_events(pid, shown.rates[port]))


def _flow_slices(flow: FlowRow, decisions: Sequence[Decision]) -> bytes:
    """Return the begin and the end of each period of a flow, which is empty without periods.

    They are at `_PLACE`. No text in them can look like it, because JSON escapes its quotation marks.
    """
    before = b'{"cat":%b,%b,' % (_JSON.encode(flow.stage.value), _PLACE)
    events = []
    for period in level_periods(flow, decisions):
        name = f"{flow.stage.value} {LEVEL_NAMES[period.level]}"
        begin = {
            "name": name,
            "ph": "b",
            "ts": _us(period.start_ns),
            "args": _flow_args(flow, period.reason),
            "cname": LEVEL_COLOURS[period.level],
        }
        end = {"name": name, "ph": "e", "ts": _us(period.end_ns)}
        events += [before + _JSON.encode(event)[1:] for event in (begin, end)]
    return _BETWEEN.join(events)


def _flow_args(flow: FlowRow, reason: str) -> dict[str, Any]:
    args = {
        "flow": flow.id,
        "bytes": flow.size_bytes,
        "request": flow.request,
        "layer": flow.layer,
        "reason": reason,
    }
    return {name: value for name, value in args.items() if value not in (None, "")}


def _counter_events(pid: int, rate: LinkRate) -> Iterator[Event]:
    if not np.isfinite(rate.bps).all():
        raise ValueError("a link has a rate that is not a number")  # JSON has none
    used = [level for level in Level if rate.bps[:, level].any()]
    names = [level.name for level in used]
    *times, last_ns = rate.time_ns.tolist()
    for time_ns, gbps in zip(times, (rate.bps[:, used] / 1e9).tolist(), strict=True):
        yield _counter(pid, time_ns, dict(zip(names, gbps, strict=True)))
    # A counter keeps its last value, so without this the link would look busy for ever.
    yield _counter(pid, last_ns, dict.fromkeys(names, 0.0))


def _counter(pid: int, time_ns: int, gbps: dict[str, float]) -> Event:
    return {
        "ph": "C",
        "pid": pid,
        "tid": pid,
        "name": "Gb/s",
        "ts": _us(time_ns),
        "args": {name: round(value, 6) for name, value in gbps.items()},
    }

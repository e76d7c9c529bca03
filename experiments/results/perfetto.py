"""A run as a Chrome trace (JSON), for Perfetto.

The trace has four processes: "requests" (a thread per request, with its queue time, prefill, S3 tail, decode
step, and an instant at its deadline), "ranks" (a thread per rank, more if spans overlap), "links" (a thread
per link, more if flows overlap, with a slice per period of a flow at a level), and "rates of links" (a
counter per link, with the rate at each level). If the scenario has faults, "faults" comes before them. Arrows
lead from a request over its flows to a rank. `ts` and `dur` are microseconds of model time.

Reference: "Trace Event Format", Google, the de facto description of this JSON.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from controller.flow import Decision, Level
from experiments.results.excerpt import Excerpt
from experiments.results.levels import level_periods
from experiments.results.link_rates import LinkRate
from experiments.results.requests import meets_slo
from experiments.results.trace_arrows import Slices, arrow_events
from experiments.results.trace_faults import fault_events
from experiments.results.trace_places import (
    FIRST_TID,
    LINKS_PID,
    RANKS_PID,
    RATES_PID,
    REQUESTS_PID,
    Event,
    Slice,
    free_lanes,
    name_process,
    name_thread,
    numbered,
    slice_event,
    us,
)
from testbed.record import FlowRow, RequestRow, SpanRow
from workers.spans import SpanKind

_BETWEEN: Final = b",\n"
_WRITTEN_AT_ONCE: Final = 4096
_PLACE: Final = b'"pid":0,"tid":0'
"""Stands in the slices of a flow for their place, which differs on each of its links."""
_LEVEL_OF_COMPRESSION: Final = 1
"""The trace becomes about a tenth. At level 6 it would be a third smaller, and take several times as long."""
_JSON: Final = msgspec.json.Encoder()

# Perfetto ignores `cname` and colours a slice by its name without digits, so the names have words beside
# "P1". Its legacy view uses `cname`, which must be one of its reserved names.
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

    Arrows come last. Viewers sort events by time and keep the order of those of one moment, so a slice is
    open when an arrow of its first moment comes.
    """
    tids, slices = count(FIRST_TID), Slices()
    yield from map(_JSON.encode, _request_events(shown.requests, tids, slices))
    yield from map(_JSON.encode, _rank_events(shown.spans, _servers(shown.flows), tids, slices))
    yield from _link_events(shown, tids, slices)
    yield from map(_JSON.encode, fault_events(shown, tids))
    yield from map(_JSON.encode, _rate_events(shown))
    yield from map(_JSON.encode, arrow_events(shown.flows, slices))


def write_timeline(path: Path, events: Iterable[bytes], *, title: str, only: str | None = None) -> None:
    """Write the trace, compressed, one event per line: `zgrep` should work on it.

    The same events give the same bytes, so the file has no time and no name in its head.
    """
    about = {"title": title, "time": "model time"}
    if only is not None:
        about["only"] = only
    left = iter(events)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL_OF_COMPRESSION, raw, mtime=0) as file:
        head = json.dumps(about)
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {head}, "traceEvents": ['.encode())
        separator = b"\n"
        while part := list(islice(left, _WRITTEN_AT_ONCE)):
            file.write(separator + _BETWEEN.join(part))
            separator = _BETWEEN
        file.write(b"\n]}\n")


def _request_events(rows: Sequence[RequestRow], tids: Iterator[int], slices: Slices) -> Iterator[Event]:
    if not rows:
        return
    yield from name_process(REQUESTS_PID)
    for row, tid in zip(rows, tids, strict=False):
        name = f"request {row.request}" + ("" if meets_slo(row) else " (SLO missed)")
        yield from name_thread(REQUESTS_PID, tid, name)
        marks = [
            ("queue", row.arrival_ns),
            ("prefill", row.start_ns),
            ("S3 tail", row.prefill_end_ns),
            ("decode step", _p2d_done(row)),
            ("", row.first_token_ns),
        ]
        reached = [(name, time) for name, time in marks if time is not None]
        whole = Slice(REQUESTS_PID, tid, row.arrival_ns, reached[-1][1])
        slices.note_request(row, whole)
        yield {
            **slice_event(whole, "request", name),
            "args": {
                "status": row.status,
                "slo_class": row.slo_class,
                "prompt_tokens": row.prompt_tokens,
                "unit": row.unit,
                "batch": row.batch,
            },
        }
        for (phase, since), (_, until) in pairwise(reached):
            yield slice_event(Slice(REQUESTS_PID, tid, since, until), "request", phase)
        yield {
            "ph": "i",
            "s": "t",
            "cat": "request",
            "pid": REQUESTS_PID,
            "tid": tid,
            "name": "deadline",
            "ts": us(row.arrival_ns + row.slo_ns),
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


def _rank_events(
    spans: Sequence[SpanRow], servers: dict[int, str], tids: Iterator[int], slices: Slices
) -> Iterator[Event]:
    if not spans:
        return
    yield from name_process(RANKS_PID)
    by_rank: dict[int, list[SpanRow]] = {}
    for span in spans:
        by_rank.setdefault(span.rank, []).append(span)
    for rank in sorted(by_rank):
        name = f"rank {rank}" + (f" on {servers[rank]}" if rank in servers else "")
        for i, lane in enumerate(nesting_lanes(by_rank[rank])):
            tid = next(tids)
            yield from name_thread(RANKS_PID, tid, numbered(name, i))
            for span in lane:
                at = Slice(RANKS_PID, tid, span.start_ns, span.end_ns)
                slices.note_span(span, at)
                yield _span_event(span, at)


def _span_event(span: SpanRow, at: Slice) -> Event:
    name = SPAN_NAMES.get(span.kind, span.kind)
    event = slice_event(at, span.kind, f"{name}: {span.label}" if span.label else name)
    event["args"] = {"batch": span.batch, "layer": span.layer}
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


def _link_events(shown: Excerpt, tids: Iterator[int], slices: Slices) -> Iterator[bytes]:
    crossing: dict[str, list[tuple[FlowRow, bytes]]] = {}
    for flow in sorted(shown.flows, key=attrgetter("permit_ns", "id")):
        if made := _flow_slices(flow, shown.decisions.get(flow.id, ())):
            for port in flow.path:
                crossing.setdefault(port, []).append((flow, made))
    if crossing:
        yield from map(_JSON.encode, name_process(LINKS_PID))
    for port in sorted(crossing):
        flows = crossing[port]
        lanes = free_lanes([(flow.permit_ns, flow.finish_ns) for flow, _ in flows])
        of_port = [next(tids) for _ in range(max(lanes) + 1)]
        for i, tid in enumerate(of_port):
            yield from map(_JSON.encode, name_thread(LINKS_PID, tid, numbered(port, i)))
        places = [b'"pid":%d,"tid":%d' % (LINKS_PID, tid) for tid in of_port]
        for (flow, _), lane in zip(flows, lanes, strict=True):
            if flow.request is not None:
                slices.note_link(flow, Slice(LINKS_PID, of_port[lane], flow.permit_ns, flow.finish_ns))
        yield _BETWEEN.join(
            made.replace(_PLACE, places[lane]) for (_, made), lane in zip(flows, lanes, strict=True)
        )


def _flow_slices(flow: FlowRow, decisions: Sequence[Decision]) -> bytes:
    """Return a slice for each period of a flow, which is empty without periods.

    They are at `_PLACE`. No text in them can look like it, because JSON escapes its quotation marks.
    """
    before = b'{"ph":"X","cat":%b,%b,' % (_JSON.encode(flow.stage.value), _PLACE)
    events = [
        {
            "name": f"{flow.stage.value} {LEVEL_NAMES[period.level]}",
            "ts": us(period.start_ns),
            "dur": us(period.end_ns - period.start_ns),
            "args": _flow_args(flow, period.reason),
            "cname": LEVEL_COLOURS[period.level],
        }
        for period in level_periods(flow, decisions)
    ]
    return _BETWEEN.join(before + _JSON.encode(event)[1:] for event in events)


def _flow_args(flow: FlowRow, reason: str) -> dict[str, Any]:
    args = {
        "flow": flow.id,
        "bytes": flow.size_bytes,
        "request": flow.request,
        "layer": flow.layer,
        "reason": reason,
    }
    return {name: value for name, value in args.items() if value not in (None, "")}


def _rate_events(shown: Excerpt) -> Iterator[Event]:
    if shown.rates:
        yield from name_process(RATES_PID)
    for port in sorted(shown.rates):
        yield from _counter_events(port, shown.rates[port])


def _counter_events(port: str, rate: LinkRate) -> Iterator[Event]:
    if not np.isfinite(rate.bps).all():
        raise ValueError("a link has a rate that is not a number")  # JSON has none
    used = np.flatnonzero(rate.bps.any(axis=0)).tolist()
    if not used:
        return
    names = [Level(level).name for level in used]
    *times, last_ns = rate.time_ns.tolist()
    for time_ns, gbps in zip(times, (rate.bps[:, used] / 1e9).tolist(), strict=True):
        yield _counter(port, time_ns, dict(zip(names, gbps, strict=True)))
    # A counter keeps its last value, so without this the link would look busy for ever.
    yield _counter(port, last_ns, dict.fromkeys(names, 0.0))


def _counter(port: str, time_ns: int, gbps: dict[str, float]) -> Event:
    return {
        "ph": "C",
        "pid": RATES_PID,
        "tid": RATES_PID,
        "name": f"{port} Gb/s",
        "ts": us(time_ns),
        "args": {name: round(value, 6) for name, value in gbps.items()},
    }

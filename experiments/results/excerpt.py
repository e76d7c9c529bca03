"""The rows that the Chrome trace of a run shows: all of them, or those of a window of a long run.

A viewer in a browser can show some hundred thousand events. A run on thousands of GPUs has millions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from controller.flow import Decision, PortId
from controller.units import NS_PER_S
from experiments.results.levels import decisions_by_flow
from experiments.results.link_rates import Counters, LinkRate, counters, link_rates
from experiments.results.requests import end_of, meets_slo
from experiments.results.trace_window import Density, Window
from testbed.arrow_rows import rows_of
from testbed.columns import batches_of, by_word, chosen_of, numbers, present
from testbed.faults import Fault, meets
from testbed.job import Scale
from testbed.record import FlowRow, RequestRow, RunRecord, SpanRow

Row = TypeVar("Row", bound=msgspec.Struct)
IntArray = npt.NDArray[np.int64]

MOST_EVENTS: Final = 100_000
"""Most events of a trace, without the names of processes and threads. A flow counts as if it had as many
demotions as promotions, plus one if it ended lower, so the trace of a policy that only demotes may have
more."""

_EVENTS_OF_A_REQUEST: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The rows that a trace shows, each kind in the order of the record.

    `decisions` are the first assignments and level changes of each flow, by flow, in order of time. `rates`
    are by port. `faults` were in force in it at some time. `window` is what part of the run it is, and
    `ends_ns` when that part ends. `only` says in words what the rows are; it is None if they are all rows of
    the run.
    """

    requests: Sequence[RequestRow]
    flows: Sequence[FlowRow]
    spans: Sequence[SpanRow]
    decisions: Mapping[str, Sequence[Decision]]
    rates: Mapping[PortId, LinkRate]
    faults: Sequence[Fault]
    window: Window
    ends_ns: int
    only: str | None


def excerpt(
    record: RunRecord, scale: Scale, window: Window | None = None, most: int = MOST_EVENTS
) -> Excerpt:
    """Return the rows of `record` that are under way in `window` and fit into `most` events.

    Without a window, it is the one that holds most of the requests that missed their SLO, if not everything
    fits. If a window has more than `most` events, it ends earlier. If links have more samples in it than a
    quarter of `most`, only the rates of the links that carried most are shown. What is shown is chosen by
    columns, and only rows that are shown are made.
    """
    links = counters(record.links)
    rows_most = most - min(len(links.ports), most // 4)
    asked = window is not None
    chosen = _best_window(record, rows_most) if window is None else window
    if asked or chosen != Window():
        chosen = _cut(record, chosen, rows_most)
    ends_ns = _end_ns(record, chosen)
    requests = [row for row in record.requests if _is_in(chosen, row)]
    flows = _under_way(FlowRow, record.flows, ("submit_ns", "finish_ns"), chosen)
    spans = _under_way(SpanRow, record.spans, ("start_ns", "end_ns"), chosen)
    parts = []
    if chosen != Window():
        links = _around(links, chosen)
        parts.append(_what_is_shown(record, chosen, requests, flows, spans))
    fitting = _ports_that_fit(links, most // 4)
    links = links.where(fitting[links.ports])
    if not fitting.all():
        parts.append(f"the rates of the {fitting.sum()} of {len(fitting)} links that carried most")
    return Excerpt(
        requests=requests,
        flows=flows,
        spans=spans,
        decisions=decisions_by_flow(_decisions(record, [flow.id for flow in flows])),
        rates={port: _clipped(rate, chosen) for port, rate in link_rates(links, scale.bytes_scale).items()},
        faults=[fault for fault in record.faults if meets(fault, chosen.from_ns, ends_ns)],
        window=chosen,
        ends_ns=ends_ns,
        only=" and ".join(parts) or None,
    )


_FLOW_COLUMNS: Final = (
    "submit_ns", "finish_ns", "promotions", "level_first", "level_last", "path", "request",
)  # fmt: skip


def _all_rows(record: RunRecord) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Yield when rows begin and end, and how many events each has (at least one), without making them."""
    starts_ns, ends_ns = _times(record.requests)
    yield starts_ns, ends_ns, np.full(len(starts_ns), _EVENTS_OF_A_REQUEST)
    for batch in batches_of(record.flows, _FLOW_COLUMNS):
        yield numbers(batch, "submit_ns"), numbers(batch, "finish_ns"), _events_of_flows(batch)
    for batch in batches_of(record.spans, ("start_ns", "end_ns")):
        yield numbers(batch, "start_ns"), numbers(batch, "end_ns"), np.ones(batch.num_rows, dtype=np.int64)


def _times(rows: Iterable[RequestRow]) -> tuple[IntArray, IntArray]:
    times = np.array([(row.arrival_ns, end_of(row)) for row in rows], dtype=np.int64).reshape(-1, 2)
    return times[:, 0], times[:, 1]


def _best_window(record: RunRecord, most: int) -> Window:
    """Return where a window of `most` events begins best. It is the whole run if that fits."""
    density = Density(record.duration_ns)
    for starts_ns, ends_ns, events in _all_rows(record):
        density.offer(starts_ns, ends_ns, events)
    if density.events <= most:
        return Window()
    missed = _times(row for row in record.requests if not meets_slo(row))
    return Window(density.start_for(*missed, most), record.duration_ns + 1)


def _cut(record: RunRecord, window: Window, most: int) -> Window:
    """Let `window` end where it has `most` events."""
    earliest = _Earliest(most)
    for starts_ns, ends_ns, events in _all_rows(record):
        shown = window.has(starts_ns, ends_ns)
        earliest.offer(np.maximum(starts_ns[shown], window.from_ns), events[shown])
    until_ns = earliest.until_ns()
    return window if until_ns is None else Window(window.from_ns, until_ns)


def _end_ns(record: RunRecord, window: Window) -> int:
    return record.duration_ns if window.until_ns is None else min(window.until_ns, record.duration_ns)


def _is_in(window: Window, row: RequestRow) -> bool:
    starts_ns, ends_ns = _times((row,))
    return bool(window.has(starts_ns, ends_ns)[0])


def _under_way(row: type[Row], rows: Iterable[Row], times: tuple[str, str], window: Window) -> list[Row]:
    """Make those of `rows` that are under way in `window`. They begin and end at `times`."""
    found = chosen_of(rows, times, lambda batch: window.has(*(numbers(batch, name) for name in times)))
    return [one for batch in found for one in rows_of(row, batch)]


def _what_is_shown(
    record: RunRecord,
    window: Window,
    requests: Sequence[RequestRow],
    flows: Sequence[FlowRow],
    spans: Sequence[SpanRow],
) -> str:
    """Say what the window is, how much of the run it shows, and how many requests that missed it holds."""
    until_ns = _end_ns(record, window)
    shown: dict[str, tuple[Sized, Sized]] = {
        "requests": (requests, record.requests),
        "flows": (flows, record.flows),
        "spans": (spans, record.spans),
    }
    counts = [f"{len(some)} of {len(every)} {name}" for name, (some, every) in shown.items() if len(every)]
    told = (
        f"what was under way from {window.from_ns / NS_PER_S:.6g} s to {until_ns / NS_PER_S:.6g} s of"
        f" {record.duration_ns / NS_PER_S:.6g} s: {', '.join(counts)}"
    )
    missed = [row for row in record.requests if not meets_slo(row)]
    if not missed:
        return told
    under_way = [row for row in requests if not meets_slo(row)]
    whole = sum(row.arrival_ns >= window.from_ns and end_of(row) <= until_ns for row in under_way)
    return (
        f"{told}; of the {len(missed)} requests that missed their SLO, it holds {whole} from arrival to first"
        f" token and {len(under_way) - whole} in part"
    )


def _events_of_flows(flows: pa.RecordBatch) -> IntArray:
    """Return the events of each flow: one for each of its links and for each period at a level, and the
    arrows from its request, over its links, to a rank."""
    paths = flows.column("path")
    links = paths.dictionary.value_lengths().to_numpy()[paths.indices.to_numpy()]
    lower = numbers(flows, "level_last") > numbers(flows, "level_first")
    periods = 1 + 2 * numbers(flows, "promotions") + lower
    events: IntArray = np.maximum(1, links * periods + present(flows, "request") * (links + 2))
    return events


def _decisions(record: RunRecord, flows: Sequence[str]) -> Iterator[Decision]:
    """Yield the decisions about `flows`."""
    among = partial(pc.is_in, value_set=pa.array(flows, pa.string()))
    for batch in chosen_of(record.decisions, ("flow",), lambda batch: by_word(batch, "flow", among)):
        yield from rows_of(Decision, batch)


class _Earliest:
    """Of all rows that are offered, finds those that begin first and have at most `most` events together.

    Rows that begin at the same moment are all among them or all left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._starts: list[IntArray] = []
        self._events: list[IntArray] = []
        self._waiting = 0
        self._until_ns: int | None = None

    def offer(self, starts_ns: IntArray, events: IntArray) -> None:
        """Offer rows that begin at `starts_ns` and have so many `events`, at least one each."""
        self._starts.append(starts_ns)
        self._events.append(events)
        self._waiting += len(starts_ns)
        if self._waiting > 2 * self._most:  # so that memory holds few of the rows of a long run
            self._cut()

    def until_ns(self) -> int | None:
        """Return when the first row that is left out begins. None if no row is left out."""
        self._cut()
        return self._until_ns

    def _cut(self) -> None:
        starts, events = np.concatenate(self._starts), np.concatenate(self._events)
        if self._until_ns is not None:
            kept = starts < self._until_ns
            starts, events = starts[kept], events[kept]
        order = np.argsort(starts, kind="stable")
        starts, events = starts[order], events[order]
        over = np.searchsorted(np.cumsum(events), self._most, side="right")
        if over < len(starts):
            self._until_ns = int(starts[over])
            first = np.searchsorted(starts, self._until_ns)
            starts, events = starts[:first], events[:first]
        self._starts, self._events, self._waiting = [starts], [events], 0


def _ports_that_fit(links: Counters, most: int) -> npt.NDArray[np.bool_]:
    """Return which ports are among those that sent most and have up to `most` samples together."""
    counts = np.bincount(links.ports, minlength=len(links.names))
    first = np.full(len(links.names), np.iinfo(np.int64).max)
    last = np.zeros(len(links.names), dtype=np.int64)
    total = links.sent_bytes.sum(axis=1)
    np.minimum.at(first, links.ports, total)
    np.maximum.at(last, links.ports, total)
    sent = np.where(counts > 0, last - first, 0)
    fitting = np.zeros(len(links.names), dtype=np.bool_)
    for port in sorted(range(len(links.names)), key=lambda port: (-sent[port], links.names[port])):
        most -= int(counts[port])
        if most < 0:
            break
        fitting[port] = True
    return fitting


def _around(links: Counters, window: Window) -> Counters:
    """Return the samples between which some part of the window is."""
    order = np.lexsort((links.time_ns, links.ports))
    now, after = order[:-1], order[1:]
    between = (links.ports[now] == links.ports[after]) & window.has(links.time_ns[now], links.time_ns[after])
    kept = np.zeros(len(order), dtype=np.bool_)
    kept[now[between]] = True
    kept[after[between]] = True
    return links.where(kept)


def _clipped(rate: LinkRate, window: Window) -> LinkRate:
    """Return a rate whose first and last interval end with the window: it is constant between samples."""
    time_ns = np.maximum(rate.time_ns, window.from_ns)  # np.clip takes ten times as long for a few numbers
    return LinkRate(time_ns if window.until_ns is None else np.minimum(time_ns, window.until_ns), rate.bps)

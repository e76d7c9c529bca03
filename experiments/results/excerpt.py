"""The rows that the Chrome trace of a run shows: all of them, or those at the beginning of a long run.

A viewer in a browser can show some hundred thousand events. A run on thousands of GPUs has millions.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controller.flow import Decision, PortId
from controller.units import NS_PER_S
from experiments.results.levels import decisions_by_flow
from experiments.results.link_rates import Counters, LinkRate, counters, link_rates
from testbed.arrow_rows import rows_of
from testbed.columns import batches_of, codes, numbers
from testbed.job import Scale
from testbed.record import FlowRow, RequestRow, RunRecord, SpanRow

Row = TypeVar("Row", bound=msgspec.Struct)
IntArray = npt.NDArray[np.int64]

MOST_EVENTS: Final = 100_000
"""Most events of a trace, without the names of processes and threads. A flow counts as if it had as many
demotions as promotions, plus one if it ended lower, so the trace of a policy that only demotes may have
more."""

_EVENTS_OF_A_REQUEST: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The rows that a trace shows, each kind in the order of the record.

    `decisions` are the first assignments and level changes of each flow, by flow, in order of time. `rates`
    are by port. `only` says in words what the rows are; it is None if they are all rows of the run.
    """

    requests: Sequence[RequestRow]
    flows: Sequence[FlowRow]
    spans: Sequence[SpanRow]
    decisions: Mapping[str, Sequence[Decision]]
    rates: Mapping[PortId, LinkRate]
    only: str | None


def excerpt(record: RunRecord, scale: Scale, most: int = MOST_EVENTS) -> Excerpt:
    """Return the rows of `record` that fit into `most` events: all, or those that began before some moment.

    If links have more samples than a quarter of `most`, only the rates of the links that carried most are
    shown. What is shown is chosen by columns, and only rows that are shown are made.
    """
    links = counters(record.links)
    fitting = _ports_that_fit(links, most // 4)
    earliest = _Earliest(most - min(len(links.ports), most // 4))
    arrivals = np.array([request.arrival_ns for request in record.requests], dtype=np.int64)
    earliest.offer(arrivals, np.full(len(arrivals), _EVENTS_OF_A_REQUEST))
    for batch in batches_of(record.flows, ["submit_ns", "promotions", "level_first", "level_last", "path"]):
        earliest.offer(numbers(batch, "submit_ns"), _events_of_flows(batch))
    for batch in batches_of(record.spans, ["start_ns"]):
        earliest.offer(numbers(batch, "start_ns"), np.ones(batch.num_rows, dtype=np.int64))
    until_ns = earliest.until_ns()
    requests = [row for row in record.requests if until_ns is None or row.arrival_ns < until_ns]
    flows = [
        row for batch in batches_of(record.flows) for row in _before(FlowRow, batch, "submit_ns", until_ns)
    ]
    spans = [
        row for batch in batches_of(record.spans) for row in _before(SpanRow, batch, "start_ns", until_ns)
    ]
    links = links.where(fitting[links.ports])
    parts = []
    if until_ns is not None:
        links = _up_to(links, until_ns)
        shown: dict[str, tuple[Sized, Sized]] = {
            "requests": (requests, record.requests),
            "flows": (flows, record.flows),
            "spans": (spans, record.spans),
        }
        counts = [
            f"{len(some)} of {len(every)} {name}" for name, (some, every) in shown.items() if len(every)
        ]
        parts.append(
            f"what began in the first {until_ns / NS_PER_S:.6g} s of {record.duration_ns / NS_PER_S:.6g} s:"
            f" {', '.join(counts)}"
        )
    if not fitting.all():
        parts.append(f"the rates of the {fitting.sum()} of {len(fitting)} links that carried most")
    return Excerpt(
        requests=requests,
        flows=flows,
        spans=spans,
        decisions=decisions_by_flow(_decisions(record, {flow.id for flow in flows})),
        rates=link_rates(links, scale.bytes_scale),
        only=" and ".join(parts) or None,
    )


def _events_of_flows(flows: pa.RecordBatch) -> IntArray:
    """Return the events of each flow: a pair for each of its links and for each period at a level."""
    paths = flows.column("path")
    links = paths.dictionary.value_lengths().to_numpy()[paths.indices.to_numpy()]
    lower = numbers(flows, "level_last") > numbers(flows, "level_first")
    events: IntArray = np.maximum(1, 2 * links * (1 + 2 * numbers(flows, "promotions") + lower))
    return events


def _before(row: type[Row], batch: pa.RecordBatch, start: str, until_ns: int | None) -> list[Row]:
    """Make the rows of `batch` that start before `until_ns` (None: all)."""
    if until_ns is not None:
        batch = batch.filter(pa.array(numbers(batch, start) < until_ns))
    return rows_of(row, batch)


def _decisions(record: RunRecord, flows: Collection[str]) -> Iterator[Decision]:
    """Yield the decisions about `flows`."""
    for batch in batches_of(record.decisions):
        found, words = codes(batch, "flow")
        wanted = np.array([word in flows for word in words], dtype=np.bool_)
        yield from rows_of(Decision, batch.filter(pa.array(wanted[found])))


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
    sent = np.zeros(len(links.names), dtype=np.int64)
    np.maximum.at(sent, links.ports, links.sent_bytes.sum(axis=1))
    fitting = np.zeros(len(links.names), dtype=np.bool_)
    for port in sorted(range(len(links.names)), key=lambda port: (-sent[port], links.names[port])):
        most -= int(counts[port])
        if most < 0:
            break
        fitting[port] = True
    return fitting


def _up_to(links: Counters, until_ns: int) -> Counters:
    """Return the samples up to `until_ns`, with one at the last of their moments for ports that sent nothing
    around it: such a port may have its next sample only later."""
    kept = links.time_ns <= until_ns
    if kept.all() or not kept.any():
        return links.where(kept)
    last_ns = links.time_ns[kept].max()
    order = np.lexsort((links.time_ns, links.ports))
    now, after = order[:-1], order[1:]
    spans_it = (
        (links.ports[now] == links.ports[after]) & kept[now] & ~kept[after] & (links.time_ns[now] < last_ns)
    )
    still = now[spans_it & (links.sent_bytes[now] == links.sent_bytes[after]).all(axis=1)]
    chosen = np.concatenate((np.flatnonzero(kept), still))
    times = links.time_ns[chosen]
    times[np.count_nonzero(kept) :] = last_ns
    return Counters(
        names=links.names, ports=links.ports[chosen], time_ns=times, sent_bytes=links.sent_bytes[chosen]
    )

"""The rows that the Chrome trace of a run shows: all of them, or those at the beginning of a long run.

A viewer in a browser can show some hundred thousand events. A run on thousands of GPUs has millions.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.flow import Decision, PortId
from controller.units import NS_PER_S
from experiments.results.levels import decisions_by_flow
from experiments.results.link_rates import LinkRate, link_rates
from testbed.job import Scale
from testbed.record import FlowRow, LinkSample, RequestRow, RunRecord, SpanRow

MOST_EVENTS: Final = 200_000
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
    shown. The rows of the record are iterated, and only those that are shown are kept.
    """
    ports, all_ports = _ports_that_fit(record.links, most // 4)
    counters = min(len(record.links), most // 4)
    earliest = _Earliest(most - counters)
    for request in record.requests:
        earliest.offer(request.arrival_ns, _EVENTS_OF_A_REQUEST, request)
    for flow in record.flows:
        periods = 1 + 2 * flow.promotions + (flow.level_last > flow.level_first)
        earliest.offer(flow.submit_ns, max(1, 2 * len(flow.path) * periods), flow)
    for span in record.spans:
        earliest.offer(span.start_ns, 1, span)
    until_ns = earliest.until_ns
    rows = earliest.rows()
    requests = [row for row in rows if isinstance(row, RequestRow)]
    shown = [row for row in rows if isinstance(row, FlowRow)]
    shown_spans = [row for row in rows if isinstance(row, SpanRow)]
    names = {flow.id for flow in shown}
    samples = (
        sample
        for sample in record.links
        if sample.port in ports and (until_ns is None or sample.time_ns <= until_ns)
    )
    parts = []
    if until_ns is not None:
        parts.append(
            f"what began in the first {until_ns / NS_PER_S:.6g} s of {record.duration_ns / NS_PER_S:.6g} s:"
            f" {len(requests)} of {len(record.requests)} requests, {len(shown)} of {len(record.flows)} flows,"
            f" {len(shown_spans)} of {len(record.spans)} spans"
        )
    if len(ports) < all_ports:
        parts.append(f"the rates of the {len(ports)} of {all_ports} links that carried most")
    return Excerpt(
        requests=requests,
        flows=shown,
        spans=shown_spans,
        decisions=decisions_by_flow(row for row in record.decisions if row.flow in names),
        rates=link_rates(samples, scale.bytes_scale),
        only=" and ".join(parts) or None,
    )


class _Earliest:
    """Of all rows that are offered, those that begin first and have at most `most` events together."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._latest_first: list[tuple[int, int, int, Any]] = []
        self._offered = 0
        self.until_ns: int | None = None
        """Rows that begin then or later are left out. None while no row is left out."""

    def offer(self, start_ns: int, events: int, row: Any) -> None:
        if self.until_ns is not None and start_ns >= self.until_ns:
            return
        self._offered += 1
        heapq.heappush(self._latest_first, (-start_ns, self._offered, events, row))
        self._left -= events
        while self._left < 0:
            start, _, freed, _ = heapq.heappop(self._latest_first)
            self._left += freed
            self.until_ns = -start
        # Rows that begin at the same moment are all kept or all left out.
        while self.until_ns is not None and self._latest_first and -self._latest_first[0][0] >= self.until_ns:
            self._left += heapq.heappop(self._latest_first)[2]

    def rows(self) -> list[Any]:
        """Return the kept rows in the order in which they were offered."""
        return [row for _, _, _, row in sorted(self._latest_first, key=lambda item: item[1])]


def _ports_that_fit(samples: Iterable[LinkSample], most: int) -> tuple[set[PortId], int]:
    """Return the ports that sent most, up to `most` samples together, and the number of all ports."""
    counts: dict[PortId, int] = {}
    sent: dict[PortId, int] = {}
    for sample in samples:
        counts[sample.port] = counts.get(sample.port, 0) + 1
        sent[sample.port] = max(sent.get(sample.port, 0), sum(sample.sent_bytes))
    fitting: set[PortId] = set()
    for port in sorted(counts, key=lambda port: (-sent[port], port)):
        most -= counts[port]
        if most < 0:
            break
        fitting.add(port)
    return fitting, len(counts)

"""Which rows of a run its trace shows: all of them, or of a long run those of its beginning.

A viewer in a browser takes some hundred thousand events; a run of thousands of GPUs has millions.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.flow import PortId
from experiments.results.levels import decisions_by_flow
from experiments.results.link_rates import LinkRate, link_rates
from testbed.job import Scale
from testbed.record import DecisionRow, FlowRow, LinkSample, RequestRow, RunRecord, SpanRow

MOST_EVENTS: Final = 200_000
"""Of a trace, besides the names of processes and threads. Flows are charged as if each demotion had been
made good by a promotion, so a policy that only demotes may go beyond."""

_EVENTS_OF_A_REQUEST: Final = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The rows of a run that its trace shows, each kind in the order of the record.

    `decisions` are those that changed a level, by flow, in order of time; `rates` are by port.
    `only` says in words what they are; it is None where they are all.
    """

    requests: Sequence[RequestRow]
    flows: Sequence[FlowRow]
    spans: Sequence[SpanRow]
    decisions: Mapping[str, Sequence[DecisionRow]]
    rates: Mapping[PortId, LinkRate]
    only: str | None


def excerpt(record: RunRecord, scale: Scale, most: int = MOST_EVENTS) -> Excerpt:
    """What of `record` fits into `most` events: everything, or what began before some moment.

    Where the samples of links are more than a quarter of `most`, only the links that carried most have
    their rates shown. Goes over the rows, keeps no more of them than are shown.
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
            f"what began in the first {until_ns / 1e9:.6g} s of {record.duration_ns / 1e9:.6g} s:"
            f" {len(requests)} of {len(record.requests)} requests, {len(shown)} of {len(record.flows)} flows,"
            f" {len(shown_spans)} of {len(record.spans)} spans"
        )
    if len(ports) < all_ports:
        parts.append(f"the rates of the {len(ports)} of {all_ports} links that carried most")
    return Excerpt(
        requests=requests,
        flows=shown,
        spans=shown_spans,
        decisions=decisions_by_flow(
            row for row in record.decisions if row.flow in names and row.level_from is not row.level_to
        ),
        rates=link_rates(samples, scale.bytes_scale),
        only=" and ".join(parts) or None,
    )


class _Earliest:
    """The rows that begin first and have at most `most` events together, of all that are offered."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._latest_first: list[tuple[int, int, int, Any]] = []
        self._offered = 0
        self.until_ns: int | None = None
        """Rows that begin then or later are left out; None while there are none."""

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
        # Of what begins at one moment, all or nothing.
        while self.until_ns is not None and self._latest_first and -self._latest_first[0][0] >= self.until_ns:
            self._left += heapq.heappop(self._latest_first)[2]

    def rows(self) -> list[Any]:
        """In the order in which they were offered."""
        return [row for _, _, _, row in sorted(self._latest_first, key=lambda item: item[1])]


def _ports_that_fit(samples: Iterable[LinkSample], most: int) -> tuple[set[PortId], int]:
    """The ports that sent most, as many as have at most `most` samples together, and how many there are."""
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

"""The arrows of a Chrome trace: from a request to each of its flows, over their links, to a rank.

An arrow is a chain of flow events (`s`, `t` ... `f`) with one id, category and name. Viewers attach each of
them to the slice that its thread is in at that moment, so all ends of arrows are slices of threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from controller.flow import Stage
from experiments.results.trace_places import Event, Slice, us
from testbed.record import FlowRow, RequestRow, SpanRow
from workers.spans import SpanKind


@dataclass(frozen=True, slots=True)
class Slices:
    """The slices that arrows can begin or end at, noted while they are written."""

    requests: dict[int, Slice] = field(default_factory=dict)
    decode_steps: dict[tuple[int, str], Slice] = field(default_factory=dict)
    computes: dict[tuple[int, str | None, int | None], Slice] = field(default_factory=dict)
    """The first compute of a rank for a layer of a batch."""

    links: dict[str, list[Slice]] = field(default_factory=dict)

    def note_request(self, row: RequestRow, slice: Slice) -> None:
        self.requests[row.request] = slice

    def note_span(self, span: SpanRow, slice: Slice) -> None:
        if span.kind == SpanKind.DECODE_STEP:
            self.decode_steps[span.rank, span.label] = slice
        elif span.kind == SpanKind.COMPUTE:
            key = span.rank, span.batch, span.layer
            if key not in self.computes or slice.start_ns < self.computes[key].start_ns:
                self.computes[key] = slice

    def note_link(self, flow: FlowRow, slice: Slice) -> None:
        self.links.setdefault(flow.id, []).append(slice)


def arrow_events(flows: Sequence[FlowRow], slices: Slices) -> Iterator[Event]:
    """Yield the arrows of the flows that belong to a request, each where at least two slices are shown.

    S3 ends at the first decode step of its request on its receiver, and S1 at the receiver's compute of the
    layer that needs it. It does not end at the wait for it, which may begin before the flow does: Perfetto
    would then draw the arrow backwards.
    """
    for number, flow in enumerate(flows):
        if flow.request is None:
            continue
        places = list(_places(flow, slices))
        if len(places) < 2:
            continue
        common = {"cat": "flow", "name": flow.stage.value, "id": number}
        for i, (slice, time_ns) in enumerate(places):
            last = i == len(places) - 1
            event = {**common, "ph": "s" if i == 0 else "f" if last else "t"}
            if last:
                event["bp"] = "e"  # the slice around this moment, not the next one
            yield {**event, "pid": slice.pid, "tid": slice.tid, "ts": us(time_ns)}


def _places(flow: FlowRow, slices: Slices) -> Iterator[tuple[Slice, int]]:
    """Yield the slices of an arrow in order, with the moments at which it touches them."""
    request = slices.requests.get(flow.request) if flow.request is not None else None
    if request is not None and request.start_ns <= flow.submit_ns < request.end_ns:
        yield request, flow.submit_ns
    for link in slices.links.get(flow.id, ()):
        yield link, link.start_ns
    end = _end(flow, slices)
    if end is not None:
        # Up to its last nanosecond: at its end, the thread is already in the next slice.
        yield end, max(end.start_ns, min(flow.finish_ns, end.end_ns - 1))


def _end(flow: FlowRow, slices: Slices) -> Slice | None:
    if flow.stage is Stage.P2D:
        return slices.decode_steps.get((flow.dst, f"request {flow.request}"))
    compute = slices.computes.get((flow.dst, flow.batch, flow.layer))
    return compute if compute is not None and flow.finish_ns <= compute.start_ns else None

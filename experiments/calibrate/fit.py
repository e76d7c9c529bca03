"""Fits the overheads to the rows of the micro experiments. Pure.

Values are medians or lines through medians, so that a moment in which the machine was busy with something
else does not count. Times are wall nanoseconds and sizes are bytes on the wire: in these experiments a
record has no other units. The results are in the units of `simulation.overheads`.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from controller.flow import Stage
from controller.units import NS_PER_US
from experiments.calibrate.micro_jobs import (
    BARRIER_BYTES,
    PAUSE_S,
    TINY_BYTES,
    CollectiveProbe,
    TransferProbe,
)
from experiments.resolve.calibration import Parameter
from experiments.results.statistics import percentile
from testbed.record import FlowRow, RequestRow, SpanRow
from workers.spans import SpanKind


class TooFewSamples(ValueError):
    """A micro experiment left too few samples for a value."""


class Line(msgspec.Struct, frozen=True):
    """`nanoseconds = intercept_ns + slope * bytes`."""

    slope: float
    intercept_ns: float


def through(points: Iterable[tuple[float, float]]) -> Line:
    """Fit a line by least squares to the medians of y at each x.

    Raises `TooFewSamples` for fewer than two different x.
    """
    at: dict[float, list[float]] = defaultdict(list)
    for x, y in points:
        at[x].append(y)
    if len(at) < 2:
        raise TooFewSamples("a line needs samples of at least two sizes")
    slope, intercept = np.polyfit(list(at), [float(np.median(ys)) for ys in at.values()], 1)
    return Line(float(slope), float(intercept))


def parameter(name: str, samples: Sequence[float], *, value: float | None = None) -> Parameter:
    """Return `value` (default: the median of `samples`) with the spread of `samples`.

    Raises `TooFewSamples`, naming the overhead, if there are no samples.
    """
    median, p10, p90 = (percentile(samples, q) for q in (50, 10, 90))
    if median is None or p10 is None or p90 is None:
        raise TooFewSamples(f"{name}: nothing was measured")
    return Parameter(value=median if value is None else value, p10=p10, p90=p90, samples=len(samples))


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """What transfers say about the overheads, as `fit_links` defines them."""

    transfer_us: Parameter
    goodput: Parameter
    burst_bytes: Parameter
    level_share: Parameter
    incast: Parameter


class Port(msgspec.Struct, frozen=True):
    """A port that carries `goodput_bps` of payload, and passes `burst_bytes` at once if it was idle."""

    goodput_bps: float
    burst_bytes: float

    def drain_ns(self, size: float) -> float:
        """How long `size` bytes take if the port was idle."""
        return max(0.0, size - self.burst_bytes) * 8e9 / self.goodput_bps


def fit_links(flows: Iterable[FlowRow], link_bps: float) -> Links:
    """Fit the transfers of `micro_jobs.transfer_job` to links of `link_bps`.

    A transfer no larger than a port's burst takes `transfer_us`. A larger one takes in addition the time of
    its bytes beyond the burst, at the share `goodput` of the link's rate. Several senders to one server
    reach the share `incast` of that goodput: 1 if incast costs nothing. A flow that yields to another gets
    the share `level_share` of the goodput meanwhile; what it has left when the other ends shows how much.
    """
    groups: dict[tuple[str, str], list[FlowRow]] = defaultdict(list)
    for flow in flows:
        probe, number = flow.id.split(".")[:2]
        groups[TransferProbe.HIGH if probe == TransferProbe.LOW else probe, number].append(flow)

    def of(probe: TransferProbe) -> list[list[FlowRow]]:
        return [rows for (name, _), rows in groups.items() if name == probe]

    alone = [(float(rows[0].size_bytes), float(_sent_ns(rows[0]))) for rows in of(TransferProbe.ALONE)]
    tiny = [ns for size, ns in alone if size <= max(TINY_BYTES)]
    transfer = parameter("transfer_us", [ns / NS_PER_US for ns in tiny])
    line = through([(size, ns) for size, ns in alone if size > max(TINY_BYTES)])
    goodput = min(1.0, 8e9 / (line.slope * link_bps))
    burst = max(0.0, (transfer.value * NS_PER_US - line.intercept_ns) / line.slope)
    port = Port(goodput * link_bps, burst)
    long = [(size, ns - transfer.value * NS_PER_US) for size, ns in alone if size > 2 * burst + 1]
    incast = [
        port.drain_ns(sum(row.size_bytes for row in rows)) / (_over_ns(rows) - transfer.value * NS_PER_US)
        for rows in of(TransferProbe.INCAST)
    ]
    shares = [max(0.0, _share_of_the_lower(rows, port.goodput_bps)) for rows in of(TransferProbe.HIGH)]
    return Links(
        transfer_us=transfer,
        goodput=parameter(
            "goodput", [(size - burst) * 8e9 / (ns * link_bps) for size, ns in long if ns > 0], value=goodput
        ),
        burst_bytes=parameter(
            "burst_bytes", [size - ns * port.goodput_bps / 8e9 for size, ns in long], value=burst
        ),
        level_share=parameter("level_share", shares),
        incast=parameter("incast", incast),
    )


def _sent_ns(flow: FlowRow) -> int:
    return flow.finish_ns - flow.permit_ns


def _over_ns(flows: Sequence[FlowRow]) -> int:
    return max(flow.finish_ns for flow in flows) - min(flow.permit_ns for flow in flows)


def _share_of_the_lower(flows: Sequence[FlowRow], goodput_bps: float) -> float:
    high, low = sorted(flows, key=lambda flow: flow.finish_ns)
    begin = min(high.permit_ns, low.permit_ns)
    left_bytes = (low.finish_ns - high.finish_ns) * goodput_bps / 8e9
    return (low.size_bytes - left_bytes) * 8e9 / (goodput_bps * (high.finish_ns - begin))


class Collectives(msgspec.Struct, frozen=True, kw_only=True):
    """What collectives say about the overheads, as `fit_collectives` defines them.

    `all_to_all_goodput` is None for two members: no two of their connections share a port.
    """

    permit_kept_us: Parameter
    permit_us: Parameter
    collective_us: Parameter
    round_us: Parameter
    all_to_all_goodput: Parameter | None
    compute_us: Parameter
    batch_us: Parameter


def fit_collectives(
    kept: Sequence[FlowRow],
    changed: Sequence[FlowRow],
    spans: Iterable[SpanRow],
    requests: Iterable[RequestRow],
    *,
    port: Port,
    members: int,
) -> Collectives:
    """Fit the collectives of two runs of `micro_jobs.collective_job`.

    `kept`, `spans` and `requests` are from the run whose levels stay, `changed` from the one whose levels
    change. From the last submit to the last finish, an all-to-all takes a permit, `collective_us`, and the
    time of the bytes that each member sends beyond the burst, at the share `all_to_all_goodput` of what
    `port` carries. An all-reduce takes a permit, `collective_us`, `round_us` for each round after the
    first, and the time of its bytes.
    """
    permit_us, kept_us = _permits_us(changed)[True], _permits_us(kept)[False]
    permit_kept = parameter("permit_kept_us", kept_us)
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows in _collectives(kept).values():
        kind, size = _what(rows)
        ns = max(r.finish_ns for r in rows) - max(r.submit_ns for r in rows)
        times[kind][size].append(ns - permit_kept.value * NS_PER_US)
    exchanged = [
        (port.drain_ns(size), ns)
        for size, all_ns in times[CollectiveProbe.ALL_TO_ALL].items()
        for ns in all_ns
    ]
    line = through(exchanged)
    shares = members > 2
    slope = max(1.0, line.slope) if shares else 1.0
    fixed = [(ns - slope * drain_ns) / NS_PER_US for drain_ns, ns in exchanged]
    collective = parameter("collective_us", fixed, value=max(0.0, float(np.median(fixed))))
    rounds = 2 * (members - 1) - 1
    reduced = [
        ((ns - port.drain_ns(size)) / NS_PER_US - collective.value) / rounds
        for size, all_ns in times[CollectiveProbe.ALL_REDUCE].items()
        for ns in all_ns
    ]
    return Collectives(
        permit_kept_us=permit_kept,
        permit_us=parameter("permit_us", permit_us),
        collective_us=collective,
        round_us=parameter("round_us", reduced, value=max(0.0, float(np.median(reduced)))),
        all_to_all_goodput=parameter(
            "all_to_all_goodput",
            [
                min(1.0, drain_ns / max(1.0, ns - collective.value * NS_PER_US))
                for drain_ns, ns in exchanged
                if drain_ns > 0
            ],
            value=1 / slope,
        )
        if shares
        else None,
        compute_us=parameter("compute_us", _late_us(spans)),
        batch_us=parameter("batch_us", _batches_us(requests)),
    )


def _permits_us(flows: Iterable[FlowRow]) -> dict[bool, list[float]]:
    """Times from submit to permit, by whether the member's level had to change for the share."""
    found: dict[bool, list[float]] = {True: [], False: []}
    members: dict[int, list[FlowRow]] = defaultdict(list)
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE:
            members[flow.src].append(flow)
    for shares in members.values():
        shares.sort(key=lambda flow: flow.submit_ns)
        for before, flow in itertools.pairwise(shares):
            waited_us = (flow.permit_ns - flow.submit_ns) / NS_PER_US
            found[flow.level_first != before.level_last].append(waited_us)
    return found


def _collectives(flows: Iterable[FlowRow]) -> Mapping[str, list[FlowRow]]:
    found: dict[str, list[FlowRow]] = defaultdict(list)
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE and flow.coflow is not None:
            found[flow.coflow].append(flow)
    return found


_MEASURED = f"{CollectiveProbe.ALL_TO_ALL}|{CollectiveProbe.ALL_REDUCE}"


def _what(shares: Sequence[FlowRow]) -> tuple[str, int]:
    """The kind of a collective, and the bytes that a member sends in it (of a barrier: to each peer)."""
    known = re.search(rf"\.({_MEASURED})\.(\d+)\.", shares[0].coflow or "")
    if known is None:
        return CollectiveProbe.BARRIER, BARRIER_BYTES
    return known[1], int(known[2])


def _late_us(spans: Iterable[SpanRow]) -> list[float]:
    pauses = (span.end_ns - span.start_ns for span in spans if span.kind == SpanKind.COMPUTE)
    return [max(0.0, ns / NS_PER_US - PAUSE_S * 1e6) for ns in pauses]


def _batches_us(requests: Iterable[RequestRow]) -> list[float]:
    """Time from the end of each batch to the start of the next. All batches have been waiting."""
    times = sorted(
        (row.start_ns, row.prefill_end_ns)
        for row in requests
        if row.start_ns is not None and row.prefill_end_ns is not None
    )
    return [max(0, start - end) / NS_PER_US for (_, end), (start, _) in itertools.pairwise(times)]

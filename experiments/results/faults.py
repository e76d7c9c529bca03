"""Which requests and flows met the faults of a run, as `summary.json` has it and as words tell it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from controller.units import NS_PER_S
from experiments.results.requests import batches_of, meets_slo
from testbed import columns
from testbed.columns import codes, numbers
from testbed.faults import (
    ControllerRestart,
    DecodeLoss,
    Fault,
    LinkFault,
    RankPause,
    Straggler,
    UnitLoss,
    meets,
    when,
)
from testbed.record import FlowRow, RequestRow, RunRecord, SpanRow
from workers.spans import SpanKind

_WORKS: Final = (SpanKind.S1_WAIT, SpanKind.COMPUTE, SpanKind.COLLECTIVE, SpanKind.DECODE_STEP)


_MOST_NAMED: Final = 4
_OF_FLOWS: Final = ("batch", "request", "path", "submit_ns", "permit_ns", "finish_ns")


class FaultEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of a run in `summary.json`.

    `began` is false if the run ended before its time. `requests` are those that count and met it: it was in
    force while one of their flows, or of their batch's collectives, had been submitted and had not finished,
    and was to cross the link; or while the rank was at work on them. `missed` of them missed their SLO.
    `flows` met it in the same way, shares of collectives included; 0 for other faults. A loss of a unit or of
    a decode worker is met by the requests that `failed` because of it, and by those that `moved` to another
    unit. A fault that `holds_permits`, a restart of the controller, is met by requests that were under way,
    for whatever begins may wait for it, and by flows that waited for their permits.
    """

    fault: str
    when: str
    from_s: float
    to_s: float | None
    began: bool
    requests: int
    missed: int
    flows: int
    ports: tuple[str, ...] = ()
    rank: int | None = None
    failed: int = 0
    moved: int = 0
    is_loss: bool = False
    holds_permits: bool = False

    @property
    def words(self) -> str:
        return f"{self.fault} {self.when}"

    def lasts(self, start_ns: int, end_ns: int) -> bool:
        """Whether it was in force at some time between two moments."""
        return self.from_s * NS_PER_S < end_ns and (self.to_s is None or start_ns < self.to_s * NS_PER_S)

    def meets_flow(self, flow: FlowRow) -> bool:
        if self.holds_permits:
            return self.lasts(flow.submit_ns, flow.permit_ns)
        crosses = not set(self.ports).isdisjoint(flow.path)
        return crosses and self.lasts(flow.submit_ns, flow.finish_ns)

    def meets_span(self, span: SpanRow) -> bool:
        return span.rank == self.rank and self.lasts(span.start_ns, span.end_ns)


def fault_entries(record: RunRecord, rows: Sequence[RequestRow]) -> list[FaultEntry]:
    """Return an entry for each fault of a run. `rows` are the requests that count."""
    if not record.faults:
        return []
    of_batch: dict[str, list[int]] = {}
    for row in rows:
        for batch in batches_of(row):
            of_batch.setdefault(batch, []).append(row.request)
    in_time = {row.request: meets_slo(row) for row in rows}
    met: list[set[int]] = [set() for _ in record.faults]
    flows = [0] * len(record.faults)
    if any(isinstance(fault, LinkFault | ControllerRestart) for fault in record.faults):
        _meet_by_flows(record, of_batch, met, flows)
    if any(isinstance(fault, Straggler | RankPause) for fault in record.faults):
        _meet_on_ranks(record, of_batch, met)
    for i, fault in enumerate(record.faults):
        if isinstance(fault, ControllerRestart):
            met[i] = {row.request for row in rows if _under_way(row, fault.from_ns, fault.to_ns)}
    failed, moved = _meet_losses(record.faults, rows, met)
    return [
        FaultEntry(
            fault=fault.words,
            when=when(fault),
            from_s=fault.from_ns / NS_PER_S,
            to_s=None if fault.to_ns is None else fault.to_ns / NS_PER_S,
            began=fault.from_ns <= record.duration_ns,
            requests=len(met[i] & in_time.keys()),
            missed=sum(not in_time[request] for request in met[i] & in_time.keys()),
            flows=flows[i],
            ports=fault.ports if isinstance(fault, LinkFault) else (),
            rank=fault.rank if isinstance(fault, Straggler | RankPause) else None,
            failed=failed[i],
            moved=moved[i],
            is_loss=isinstance(fault, UnitLoss | DecodeLoss),
            holds_permits=isinstance(fault, ControllerRestart),
        )
        for i, fault in enumerate(record.faults)
    ]


def _under_way(row: RequestRow, from_ns: float, to_ns: float) -> bool:
    """Whether a request had arrived and had no first token at some time between two moments."""
    return row.arrival_ns < to_ns and (row.first_token_ns is None or row.first_token_ns > from_ns)


def _meet_losses(
    faults: Sequence[Fault], rows: Sequence[RequestRow], met: list[set[int]]
) -> tuple[list[int], list[int]]:
    """How many requests failed because of each fault, and how many moved."""
    number = {f"{fault.words} {when(fault)}": i for i, fault in enumerate(faults)}
    failed, moved = [0] * len(faults), [0] * len(faults)
    for row in rows:
        if row.lost_to is not None:
            met[number[row.lost_to]].add(row.request)
            failed[number[row.lost_to]] += 1
        for loss in row.moved_by:
            met[number[loss]].add(row.request)
            moved[number[loss]] += 1
    return failed, moved


def _meet_by_flows(
    record: RunRecord, of_batch: Mapping[str, Sequence[int]], met: list[set[int]], flows: list[int]
) -> None:
    for part in columns.batches_of(record.flows, _OF_FLOWS):
        path, paths = codes(part, "path")
        batch, batches = codes(part, "batch")
        request = numbers(part, "request", absent=-1)
        submit, permit, finish = (numbers(part, f"{moment}_ns") for moment in ("submit", "permit", "finish"))
        for i, fault in enumerate(record.faults):
            if not isinstance(fault, LinkFault | ControllerRestart):
                continue
            end_ns = np.iinfo(np.int64).max if fault.to_ns is None else fault.to_ns
            if isinstance(fault, ControllerRestart):
                here = (permit > fault.from_ns) & (submit < end_ns)
            else:
                crossing = [
                    code for code, ports in enumerate(paths) if not set(ports).isdisjoint(fault.ports)
                ]
                here = np.isin(path, crossing) & (finish > fault.from_ns) & (submit < end_ns)
            flows[i] += int(np.count_nonzero(here))
            if isinstance(fault, ControllerRestart):
                continue
            met[i].update(np.unique(request[here & (request >= 0)]).tolist())
            for code in np.unique(batch[here & (request < 0) & (batch >= 0)]).tolist():
                met[i].update(of_batch.get(batches[code], ()))


def _meet_on_ranks(record: RunRecord, of_batch: Mapping[str, Sequence[int]], met: list[set[int]]) -> None:
    for span in _computing(record.spans, record.faults):
        for i, fault in enumerate(record.faults):
            if not (isinstance(fault, Straggler | RankPause) and fault.rank == span.rank):
                continue
            if meets(fault, span.start_ns, span.end_ns):
                met[i].update(_served_by(span, of_batch))


def _computing(spans: Iterable[SpanRow], faults: Sequence[Fault]) -> Iterator[SpanRow]:
    ranks = {fault.rank for fault in faults if isinstance(fault, Straggler | RankPause)}
    return (span for span in spans if span.rank in ranks and span.kind in _WORKS)


def _served_by(span: SpanRow, of_batch: Mapping[str, Sequence[int]]) -> Sequence[int]:
    if span.kind == SpanKind.DECODE_STEP:
        return [int(span.label.removeprefix("request "))]
    return () if span.batch is None else of_batch.get(span.batch, ())


# --- reading a summary back -----------------------------------------------------------------------------


def entries_of(run: Mapping[str, Any]) -> list[FaultEntry]:
    """Return the faults of an entry of `runs[]`; none in the results of an older run."""
    return msgspec.convert(run.get("faults", []), list[FaultEntry])


def fault_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each fault: when it was in force, and how many requests met it under each policy."""
    runs = [(run["policy"], entries_of(run)) for run in summary["runs"]]
    for i in range(max((len(entries) for _, entries in runs), default=0)):
        told = [(policy, entries[i]) for policy, entries in runs if i < len(entries)]
        line = f"fault: {told[0][1].words}: {'; '.join(_met(policy, entry) for policy, entry in told)}"
        others = [policy for policy, entries in runs if i >= len(entries)]
        if others:  # a server was lost on the way (mfs run --elastic)
            line += f"; {', '.join(others)} ran without this fault, so do not compare the two"
        yield line


def in_force(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence that names the faults that a run had; none without faults."""
    began = [entry for run in summary["runs"] for entry in entries_of(run) if entry.began]
    names = list(dict.fromkeys(entry.fault for entry in began))
    if not names:
        return []
    more = len(names) - _MOST_NAMED
    told = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return [f"The scenario has faults: {told}"]


def _met(policy: str, entry: FaultEntry) -> str:
    if not entry.began:
        return f"{policy} had ended before"
    if entry.is_loss:
        return f"{policy} {entry.failed} failed, {entry.moved} moved to another unit"
    if not entry.requests:
        return f"{policy} {entry.flows:,} flows met it" if entry.flows else f"{policy} nothing met it"
    met = "1 request" if entry.requests == 1 else f"{entry.requests} requests"
    slo = "its SLO" if entry.missed == 1 else "their SLO"
    missed = f"{entry.missed} of which missed {slo}" if entry.missed else "none of which missed its SLO"
    return f"{policy} {met} met it, {missed}"


def met_by(
    entries: Iterable[FaultEntry],
    row: RequestRow,
    flows: Iterable[FlowRow],
    spans: Iterable[SpanRow],
) -> list[FaultEntry]:
    """Return the faults that a request met. `flows` are its own and those of its batches, `spans` those of
    its batches and of its first decode step."""
    flows, spans = list(flows), [span for span in spans if span.kind in _WORKS]
    label = f"request {row.request}"
    spans = [span for span in spans if span.kind != SpanKind.DECODE_STEP or span.label == label]
    losses = {row.lost_to, *row.moved_by}
    return [
        entry
        for entry in entries
        if entry.words in losses
        or (
            entry.holds_permits
            and _under_way(row, entry.from_s * NS_PER_S, (entry.to_s or math.inf) * NS_PER_S)
        )
        or any(map(entry.meets_flow, flows))
        or any(map(entry.meets_span, spans))
    ]

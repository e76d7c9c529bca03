"""The story of a flow: what it was, when it was sent, and why it had its levels."""

from collections import defaultdict
from collections.abc import Sequence

from controller.flow import Decision, Level, Stage
from experiments.explain.words import against_deadline, enumerated, lasting, moment, number_of, outcome, size
from experiments.results.faults import FaultEntry
from experiments.results.levels import level_periods
from experiments.results.requests import meets_slo
from testbed.record import FlowRow, RequestRow

STAGES = {
    Stage.KV_REUSE: "S1 (reused KV)",
    Stage.COLLECTIVE: "S2 (collective)",
    Stage.P2D: "S3 (P2D)",
    Stage.BACKGROUND: "a background transfer",
}


def flow_story(
    policy: str,
    flow: FlowRow,
    decisions: Sequence[Decision],
    requests: Sequence[RequestRow],
    shares: Sequence[FlowRow],
    faults: Sequence[FaultEntry] = (),
) -> str:
    """Tell what `flow` was, when it was sent, its levels, and whether its requests met their SLO.

    `decisions` are the decisions on it, by time; `requests` the request it belongs to, or those of its
    batch; `shares` all shares of its collective; `faults` those of the run.
    """
    lines = [
        f"{flow.id} under {policy}",
        f"  {_what(flow)}",
        f"  {_path(flow)}",
        f"  It was submitted at {moment(flow.submit_ns)}{_deadline(flow)}.",
        f"  It was permitted at {moment(flow.permit_ns)}{_waits(flow)}.",
        f"  It finished at {moment(flow.finish_ns)}, {lasting(flow.finish_ns - flow.submit_ns)} after it was"
        f" submitted{against_deadline(flow)}.",
    ]
    lines += [f"  It met a fault: {entry.words}." for entry in faults if entry.meets_flow(flow)]
    lines += [f"  {line}" for line in _sent_for_early(flow, requests)]
    if len(shares) > 1:
        lines.append(f"  {_among_shares(flow, shares)}")
    lines += [f"  {line}" for line in _levels(flow, decisions)]
    if flow.request is None and flow.batch is not None:
        lines += [f"  {line}" for line in _batch_outcome(flow.batch, requests)]
    else:
        lines += [f"  {outcome(request)}" for request in requests]
    return "\n".join(lines)


def _what(flow: FlowRow) -> str:
    belongs = []
    if flow.layer is not None:
        belongs.append(f"layer {flow.layer}")
    if flow.request is not None:
        belongs.append(f"request {flow.request}")
    if flow.batch is not None:
        belongs.append(f"batch {flow.batch}")
    of = f", of {', '.join(belongs)}" if belongs else ""
    to = f"rank {flow.dst} on {flow.dst_server}" if flow.dst_server is not None else "the other members"
    return (
        f"It was {STAGES[flow.stage]}, {size(flow.size_bytes)} from rank {flow.src} on {flow.src_server}"
        f" to {to}{of}."
    )


def _path(flow: FlowRow) -> str:
    if not flow.path:
        return "It crossed no link."
    return f"It crossed {', '.join(flow.path)}."


def _deadline(flow: FlowRow) -> str:
    if flow.deadline_ns is None:
        return ", without a deadline of its own"
    left_ns = flow.deadline_ns - flow.submit_ns
    if left_ns < 0:
        return f", {lasting(-left_ns)} after its deadline had passed ({moment(flow.deadline_ns)})"
    return f", with a deadline {lasting(left_ns)} later ({moment(flow.deadline_ns)})"


def _waits(flow: FlowRow) -> str:
    waited_ns = flow.permit_ns - flow.submit_ns
    if waited_ns <= 0:
        return ", at once"
    permit_ns = max(0, waited_ns - flow.lane_wait_ns)
    return (
        f", {lasting(waited_ns)} later: it waited {lasting(flow.lane_wait_ns)} for a free lane"
        f" and {lasting(permit_ns)} for the permit"
    )


def _sent_for_early(flow: FlowRow, requests: Sequence[RequestRow]) -> list[str]:
    """For S1 whose fetch started before the batch of its request began."""
    return [
        f"Its fetch started while request {row.request} was queued, {lasting(row.start_ns - flow.submit_ns)}"
        f" before batch {row.batch} began."
        for row in requests
        if flow.batch == f"{row.unit}.f{row.request}"  # the id that `ServingSystem` gives a `FetchPlan`
        if row.start_ns is not None and flow.submit_ns < row.start_ns
    ]


def _among_shares(flow: FlowRow, shares: Sequence[FlowRow]) -> str:
    end_ns = max(share.finish_ns for share in shares)
    after_ns = end_ns - flow.finish_ns
    place = "with this one" if after_ns == 0 else f"{lasting(after_ns)} after this one"
    return f"It is one of the {len(shares)} shares of {flow.coflow}; the last share finished {place}."


def _levels(flow: FlowRow, decisions: Sequence[Decision]) -> list[str]:
    if not decisions:
        return [f"It was on {flow.level_first.name} the whole time; no decision on it was recorded."]
    lines = ["Its levels:", *(f"  {_change(row)}" for row in decisions)]
    spent: dict[Level, int] = defaultdict(int)
    for period in level_periods(flow, decisions):
        spent[period.level] += period.end_ns - period.start_ns
    if spent:
        parts = enumerated([f"{lasting(time)} on {level.name}" for level, time in spent.items()])
        lines.append(f"From permit to finish it spent {parts}.")
    return lines


def _change(row: Decision) -> str:
    if row.level_from is None:
        moved = f"it was put on {row.level_to.name}"
    else:
        verb = "promoted" if row.level_to < row.level_from else "demoted"
        moved = f"it was {verb} from {row.level_from.name} to {row.level_to.name}"
    return f"At {moment(row.time_ns)} {moved}: {row.reason}."


def _batch_outcome(batch: str, requests: Sequence[RequestRow]) -> list[str]:
    if not requests:
        return []
    met = sum(map(meets_slo, requests))
    lines = [f"Of the {number_of(len(requests), 'request')} of batch {batch}, {met} met the SLO."]
    return lines + [outcome(request) for request in requests if not meets_slo(request)]


def no_flow(near: Sequence[str], policies: Sequence[str], flow: str) -> str:
    hint = f"; the nearest: {', '.join(near)}" if near else ""
    return f"there is no flow {flow!r} under {enumerated(policies)}{hint}"

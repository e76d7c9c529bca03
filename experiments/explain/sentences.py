"""The sentences of `mfs explain`: rows in, English out. All times are model milliseconds."""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from controller.flow import Level, Stage
from experiments.results.levels import level_periods
from experiments.results.requests import batches_of, meets_slo
from experiments.results.ttft_parts import TimeSpent
from testbed.record import DecisionRow, FlowRow, RequestRow

STAGES = {
    Stage.KV_REUSE: "S1 (KV reuse)",
    Stage.COLLECTIVE: "S2 (collective)",
    Stage.P2D: "S3 (prefill to decode)",
}


def moment(time_ns: int) -> str:
    """A time of the run, to the microsecond: "1,234.500 ms"."""
    return f"{time_ns / 1e6:,.3f} ms"


def lasting(duration_ns: int) -> str:
    """A duration, coarser the longer it is: "0.042 ms", "4.21 ms", "214.3 ms"."""
    milliseconds = duration_ns / 1e6
    if duration_ns == 0:
        return "0 ms"
    if abs(duration_ns) < 500:
        return "less than 0.001 ms"
    decimals = 3 if abs(milliseconds) < 1 else 2 if abs(milliseconds) < 100 else 1
    return f"{milliseconds:,.{decimals}f} ms"


def size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes} bytes"


# --- a flow -----------------------------------------------------------------------------------------


def flow_story(
    policy: str,
    flow: FlowRow,
    decisions: Sequence[DecisionRow],
    requests: Sequence[RequestRow],
    shares: Sequence[FlowRow],
) -> str:
    """What `flow` was, when it went, its levels, and what became of the requests it was for.

    `decisions` are its own, by time; `requests` the one it belongs to, or those of its batch;
    `shares` all of its collective.
    """
    lines = [
        f"{flow.id} under {policy}",
        f"  {_what(flow)}",
        f"  {_path(flow)}",
        f"  It was submitted at {moment(flow.submit_ns)}{_deadline(flow)}.",
        f"  It was permitted at {moment(flow.permit_ns)}{_waits(flow)}.",
        f"  It finished at {moment(flow.finish_ns)}, {lasting(flow.finish_ns - flow.submit_ns)} after it was"
        f" submitted{_against_deadline(flow)}.",
    ]
    lines += [f"  {line}" for line in _sent_for_early(flow, requests)]
    if len(shares) > 1:
        lines.append(f"  {_among_shares(flow, shares)}")
    lines += [f"  {line}" for line in _levels(flow, decisions)]
    if flow.request is None and flow.batch is not None:
        lines += [f"  {line}" for line in _batch_outcome(flow.batch, requests)]
    else:
        lines += [f"  {_outcome(request)}" for request in requests]
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


def _against_deadline(flow: FlowRow) -> str:
    if flow.deadline_ns is None:
        return ""
    spare_ns = flow.deadline_ns - flow.finish_ns
    if spare_ns == 0:
        return " and exactly at its deadline"
    return f" and {lasting(abs(spare_ns))} {'before' if spare_ns > 0 else 'after'} its deadline"


def _sent_for_early(flow: FlowRow, requests: Sequence[RequestRow]) -> list[str]:
    """Of S1 that did not wait for the batch of its request."""
    return [
        f"It was sent for while request {row.request} was queued, {lasting(row.start_ns - flow.submit_ns)}"
        f" before batch {row.batch} began."
        for row in requests
        if flow.batch == f"{row.unit}.f{row.request}"  # as `ServingSystem` calls a `FetchPlan`
        if row.start_ns is not None and flow.submit_ns < row.start_ns
    ]


def _among_shares(flow: FlowRow, shares: Sequence[FlowRow]) -> str:
    end_ns = max(share.finish_ns for share in shares)
    after_ns = end_ns - flow.finish_ns
    place = "with this one" if after_ns == 0 else f"{lasting(after_ns)} after this one"
    return f"It is one of the {len(shares)} shares of {flow.coflow}; the last share finished {place}."


def _levels(flow: FlowRow, decisions: Sequence[DecisionRow]) -> list[str]:
    changes = [row for row in decisions if row.level_from is not row.level_to]
    if not changes:
        return [f"It was on {flow.level_first.name} all the time; no decision on it was recorded."]
    lines = ["Its levels:", *(f"  {_change(row)}" for row in changes)]
    reordered = len(decisions) - len(changes)
    if reordered:
        times = "once" if reordered == 1 else f"{reordered} times"
        lines.append(f"  Its place inside a level changed {times}.")
    spent: dict[Level, int] = defaultdict(int)
    for period in level_periods(flow, decisions):
        spent[period.level] += period.end_ns - period.start_ns
    if spent:
        parts = _enumerated([f"{lasting(time)} on {level.name}" for level, time in spent.items()])
        lines.append(f"From permit to finish it spent {parts}.")
    return lines


def _change(row: DecisionRow) -> str:
    if row.level_from is None:
        moved = f"it was put on {row.level_to.name}"
    else:
        verb = "promoted" if row.level_to < row.level_from else "demoted"
        moved = f"it was {verb} from {row.level_from.name} to {row.level_to.name}"
    return f"At {moment(row.time_ns)} {moved}: {row.reason}."


def _outcome(request: RequestRow) -> str:
    who = f"Request {request.request}"
    if request.ttft_ns is None:
        return f"{who} missed its SLO: it was {request.status} and has no first token."
    allowed = f"its TTFT was {lasting(request.ttft_ns)}, {lasting(request.slo_ns)} were allowed"
    if meets_slo(request):
        return f"{who} met its SLO: {allowed}."
    if request.ttft_ns <= request.slo_ns:
        return f"{who} missed its SLO: it was {request.status}, though {allowed}."
    return f"{who} missed its SLO by {lasting(request.ttft_ns - request.slo_ns)}: {allowed}."


def _batch_outcome(batch: str, requests: Sequence[RequestRow]) -> list[str]:
    if not requests:
        return []
    met = sum(map(meets_slo, requests))
    lines = [f"Of the {_count(len(requests), 'request')} of batch {batch}, {met} met the SLO."]
    return lines + [_outcome(request) for request in requests if not meets_slo(request)]


# --- a request --------------------------------------------------------------------------------------


def request_story(
    run: Path,
    policy: str,
    request: RequestRow,
    spent: TimeSpent | None,
    flows: Sequence[FlowRow],
    shares: Sequence[FlowRow],
) -> str:
    """Where the TTFT of `request` went, and its `flows`, worst first. `shares` are its batch's S2.

    Worst: flows after their deadline, the latest first; then the others by submit to finish.
    """
    lines = [f"Request {request.request} under {policy}", f"  {_arrival(request)}", f"  {_outcome(request)}"]
    lines += [f"  {line}" for line in _where_it_went(request, spent)]
    if flows:
        lines.append(f"  {'Its flow' if len(flows) == 1 else f'Its {len(flows)} flows, worst first'}:")
        lines += [f"    {_line(flow)}" for flow in sorted(flows, key=_badness)]
    else:
        lines.append("  It has no flow of its own in this run.")
    if shares:
        worst = max(shares, key=lambda share: share.finish_ns - share.submit_ns)
        lines.append(
            f"  The collectives of its batch {request.batch} are no single request's:"
            f" {_count(len(shares), 'share')}, the longest {_line(worst)}"
        )
    named = sorted(flows, key=_badness)[:1] or list(shares[:1])
    if named:
        command = ["mfs", "explain", str(run), "--flow", named[0].id, "--policy", policy]
        lines.append(f"  More on one of them: {shlex.join(command)}")
    return "\n".join(lines)


def _arrival(request: RequestRow) -> str:
    *earlier, last = batches_of(request) or ("",)
    parts = f"in parts in batches {', '.join(earlier)} and" if earlier else "in batch"
    where = f" and was prefilled {parts} {last}" if last else ""
    unit = f" on unit {request.unit}" if request.batch is not None and request.unit is not None else ""
    return f"It arrived at {moment(request.arrival_ns)}{where}{unit}."


def _where_it_went(request: RequestRow, spent: TimeSpent | None) -> list[str]:
    if spent is None:
        return []
    prefill_ns = spent.s1_wait_ns + spent.compute_ns + spent.collective_ns + spent.other_ns
    alone = f"alone on an idle cluster its TTFT would be {lasting(request.unloaded_ttft_ns)}"
    return [
        f"Its TTFT went: {lasting(spent.queue_ns)} in the queue, {lasting(prefill_ns)} in prefill,"
        f" {lasting(spent.p2d_tail_ns)} in the P2D tail, {lasting(spent.decode_ns)} in the decode step;"
        f" {alone}.",
        f"In prefill, a rank spent on average {lasting(spent.s1_wait_ns)} waiting for S1,"
        f" {lasting(spent.compute_ns)} computing, {lasting(spent.collective_ns)} in collectives,"
        f" {lasting(spent.other_ns)} otherwise.",
    ]


def _badness(flow: FlowRow) -> tuple[int, int, str]:
    late_ns = 0 if flow.deadline_ns is None else max(0, flow.finish_ns - flow.deadline_ns)
    return -late_ns, flow.submit_ns - flow.finish_ns, flow.id


def _line(flow: FlowRow) -> str:
    first, last = flow.level_first, flow.level_last
    level = f"on {first.name}" if first is last else f"from {first.name} to {last.name}"
    deadline = _against_deadline(flow).removeprefix(" and")
    took = lasting(flow.finish_ns - flow.submit_ns)
    return (
        f"{flow.id}: {flow.stage.value}, {size(flow.size_bytes)}, took {took} {level}"
        f"{',' if deadline else ''}{deadline}."
    )


# --- what is not there ------------------------------------------------------------------------------


def no_flow(near: Sequence[str], policies: Sequence[str], flow: str) -> str:
    hint = f"; the nearest: {', '.join(near)}" if near else ""
    return f"there is no flow {flow!r} under {_enumerated(policies)}{hint}"


def no_request(known: Sequence[int], policies: Sequence[str], request: int) -> str:
    hint = f"there are {known[0]} to {known[-1]}" if known else "there are none in a micro workload"
    return f"there is no request {request} under {_enumerated(policies)}; {hint}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _enumerated(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"

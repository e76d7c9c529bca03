"""The story of a request: where its TTFT went, and its flows, worst first."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from controller.flow import Decision, Level
from experiments.explain.request_life import RequestLife
from experiments.explain.words import against_deadline, enumerated, lasting, moment, number_of, outcome, size
from experiments.results.faults import FaultEntry, met_by
from experiments.results.natural_order import natural
from experiments.results.requests import batches_of
from experiments.results.ttft_parts import TimeSpent
from testbed.record import FlowRow, RequestRow


def request_story(
    run: Path,
    policy: str,
    life: RequestLife,
    decisions: Mapping[str, Sequence[Decision]],
    faults: Sequence[FaultEntry] = (),
) -> str:
    """Tell where the TTFT of a request went, which of `faults` it met, and list its flows, worst first.

    Late flows come first, the latest first; then the others, the slowest from submit to finish first. Flows
    that are alike have one line: those of one stage, size, pair of servers and history of levels, if both are
    late or neither is.
    `decisions` are those on its flows, by flow and in order of time.
    """
    request, flows, shares = life.request, life.flows, life.last_shares
    lines = [f"Request {request.request} under {policy}", f"  {_arrival(request)}", f"  {outcome(request)}"]
    lines += [
        f"  {line}"
        for line in (
            *_reused(request),
            *_pruned(request),
            *_where_it_went(request, life.spent),
            *_faults(life, faults),
        )
    ]
    if flows:
        lines.append(f"  {'Its flow' if len(flows) == 1 else f'Its {len(flows)} flows, worst first'}:")
        lines += [f"    {_line(alike, decisions)}" for alike in _alike(flows, decisions)]
    else:
        lines.append("  It has no flow of its own in this run.")
    if shares:
        worst = max(shares, key=lambda share: share.finish_ns - share.submit_ns)
        lines.append(
            f"  The collectives of its batch {request.batch} belong to no single request:"
            f" {number_of(len(shares), 'share')}, the longest {_line([worst], decisions)}"
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


def _reused(request: RequestRow) -> list[str]:
    """Say what it fetched or recomputed of a prefix that other replicas had, and what decided."""
    if request.remote_tokens:
        done = f"It fetched the KV of {request.remote_tokens:,} tokens from another replica"
    elif request.recomputed_tokens:
        done = f"It computed {request.recomputed_tokens:,} tokens again whose KV another replica had"
    else:
        return []
    fetch_ns, compute_ns = request.fetch_estimate_ns, request.recompute_estimate_ns
    if fetch_ns is None or compute_ns is None:
        return [f"{done}."]
    return [
        f"{done}: when its batch was formed, prefill was estimated to take {lasting(fetch_ns)} with the fetch"
        f" and {lasting(compute_ns)} without."
    ]


def _pruned(request: RequestRow) -> list[str]:
    if not request.times_pruned:
        return []
    times = "once" if request.times_pruned == 1 else f"{request.times_pruned} times"
    end = "and stayed so until its end" if request.ended_pruned else "and was freed again"
    return [f"It was pruned {times} for the sake of others, {end}."]


def _faults(life: RequestLife, faults: Sequence[FaultEntry]) -> list[str]:
    """Name the faults that the request met, and say where it moved because of one."""
    flows = (*life.flows, *life.shares)
    moved = [f"It left a unit for another one: {loss}." for loss in life.request.moved_by]
    met = met_by(faults, life.request, flows, life.spans)
    return moved + [f"It met a fault: {entry.words}." for entry in met]


def _where_it_went(request: RequestRow, spent: TimeSpent | None) -> list[str]:
    if spent is None:
        return []
    prefill_ns = spent.s1_wait_ns + spent.compute_ns + spent.collective_ns + spent.other_ns
    alone = f"alone on an idle cluster its TTFT would be {lasting(request.unloaded_ttft_ns)}"
    return [
        f"Where its TTFT went: {lasting(spent.queue_ns)} in the queue, {lasting(prefill_ns)} in prefill,"
        f" {lasting(spent.p2d_tail_ns)} in the S3 tail, {lasting(spent.decode_ns)} in the decode step;"
        f" {alone}.",
        f"In prefill, a rank spent on average {lasting(spent.s1_wait_ns)} waiting for S1,"
        f" {lasting(spent.compute_ns)} computing, {lasting(spent.collective_ns)} in collectives,"
        f" {lasting(spent.other_ns)} otherwise.",
    ]


def _late_ns(flow: FlowRow) -> int:
    return 0 if flow.deadline_ns is None else max(0, flow.finish_ns - flow.deadline_ns)


def _badness(flow: FlowRow) -> tuple[object, ...]:
    return -_late_ns(flow), flow.submit_ns - flow.finish_ns, natural(flow.id)


def _levels(flow: FlowRow, decisions: Mapping[str, Sequence[Decision]]) -> tuple[Level, ...]:
    """The levels of a flow in order; the first and the last one where decisions were not recorded."""
    levels = [decision.level_to for decision in decisions.get(flow.id, ())]
    return tuple(levels) or tuple(dict.fromkeys((flow.level_first, flow.level_last)))


def _alike(
    flows: Sequence[FlowRow], decisions: Mapping[str, Sequence[Decision]]
) -> Iterable[Sequence[FlowRow]]:
    """Group flows that differ in their layer and their times only, worst first."""
    groups: dict[tuple[object, ...], list[FlowRow]] = {}
    for flow in sorted(flows, key=_badness):
        pair = flow.src_server, flow.dst_server
        due = flow.deadline_ns is None, _late_ns(flow) > 0
        like = (flow.stage, flow.size_bytes, pair, due, _levels(flow, decisions))
        groups.setdefault(like, []).append(flow)
    return groups.values()


def _line(alike: Sequence[FlowRow], decisions: Mapping[str, Sequence[Decision]]) -> str:
    first = alike[0]
    levels = [level.name for level in _levels(first, decisions)]
    level = f"on {levels[0]}" if len(levels) == 1 else f"from {' to '.join(levels)}"
    took = _range([flow.finish_ns - flow.submit_ns for flow in alike])
    if len(alike) == 1:
        deadline = against_deadline(first).removeprefix(" and")
        what = f"{first.id}: {first.stage.value}, {size(first.size_bytes)}"
    else:
        deadline = _against_deadlines(alike)
        what = (
            f"{first.id} and {len(alike) - 1} alike: {first.stage.value}, {size(first.size_bytes)} each from"
            f" {first.src_server} to {first.dst_server}"
        )
    return f"{what}, took {took} {level}{',' if deadline else ''}{deadline}."


def _against_deadlines(alike: Sequence[FlowRow]) -> str:
    spare_ns = [flow.deadline_ns - flow.finish_ns for flow in alike if flow.deadline_ns is not None]
    if not spare_ns:
        return ""
    return f" {_range(list(map(abs, spare_ns)))} {'after' if spare_ns[0] < 0 else 'before'} the deadline"


def _range(durations_ns: Sequence[int]) -> str:
    least, most = lasting(min(durations_ns)), lasting(max(durations_ns))
    return least if least == most else f"{least} to {most}"


def no_request(known: Sequence[int], policies: Sequence[str], request: int) -> str:
    hint = f"there are {known[0]} to {known[-1]}" if known else "there are none in a micro workload"
    return f"there is no request {request} under {enumerated(policies)}; {hint}"

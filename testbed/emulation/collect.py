"""Puts together what the ranks, the controller and the monitor saw into one record of the run."""

import itertools
from collections.abc import Sequence

from controller.flow import Level
from controller.protocol import Log
from testbed.emulation import queues
from testbed.emulation.monitor import Sample
from testbed.emulation.network import Network
from testbed.emulation.player import Player
from testbed.fabric import RunFailed
from testbed.job import Job
from testbed.record import (
    DecisionRow,
    Fidelity,
    FlowRow,
    LinkSample,
    Progress,
    RunRecord,
    SpanRow,
)
from testbed.serving.story import request_row
from workers.protocol import Records, SentFlow


def collect(
    *,
    job: Job,
    net: Network,
    player: Player,
    records: Sequence[Records],
    log: Log,
    samples: Sequence[Sample],
    fidelity: Fidelity,
    facts: dict[str, str | int | float],
    wall_s: float,
) -> RunRecord:
    """Raises `RunFailed` if a flow was permitted and never arrived: the record would be a fragment."""
    flows = _flows(job, records, log)
    requests = tuple(request_row(request, player.stories[request.id]) for request in job.requests)
    ends = [flow.finish_ns for flow in flows]
    ends += [r.first_token_ns for r in requests if r.first_token_ns is not None]
    return RunRecord(
        policy=job.policy,
        fabric="mininet",
        requests=requests,
        flows=tuple(flows),
        decisions=tuple(
            DecisionRow(
                time_ns=d.time_ns,
                flow=d.flow,
                level_from=d.level_from,
                level_to=d.level_to,
                reason=d.reason,
            )
            for d in log.decisions
        ),
        spans=_spans(records),
        links=_links(samples),
        progress=tuple(
            Progress(time_ns=mark.time_ns, flow=mark.flow, received_bytes=mark.received_bytes)
            for record in records
            for mark in record.progress
        ),
        permit_latency_ms=tuple(
            sent.permit_latency_wall_ns / 1e6 for record in records for sent in record.sent
        ),
        fidelity=fidelity,
        facts=facts,
        queues={port: queues.read_back([tree])[tree.device] for port, tree in net.trees.items()},
        duration_ns=max(ends, default=0),
        wall_s=wall_s,
        caches=player.caches(),
    )


def _flows(job: Job, records: Sequence[Records], log: Log) -> list[FlowRow]:
    received = {r.id: r for record in records for r in record.received}
    paths = {p.flow: p.ports for p in log.paths}
    levels: dict[str, list[Level]] = {}
    for decision in log.decisions:
        levels.setdefault(decision.flow, []).append(decision.level_to)
    rows = []
    for record in records:
        for sent in record.sent:
            if sent.id not in received:
                raise RunFailed(f"flow {sent.id!r} was sent and never arrived")
            end = received[sent.id]
            rows.append(_flow_row(job, sent, end.finish_ns, end.verified, paths[sent.id], levels[sent.id]))
    return sorted(rows, key=lambda row: (row.submit_ns, row.id))


def _spans(records: Sequence[Records]) -> list[SpanRow]:
    """In order of their ends, so that those of a unit's batches follow each other."""
    rows = [
        SpanRow(
            rank=record.rank,
            kind=span.kind,
            label=span.label,
            batch=span.batch,
            layer=span.layer,
            start_ns=span.start_ns,
            end_ns=span.end_ns,
        )
        for record in records
        for span in record.spans
    ]
    return sorted(rows, key=lambda row: (row.end_ns, row.rank))


def _flow_row(
    job: Job,
    sent: SentFlow,
    finish_ns: int,
    verified: bool | None,
    path: tuple[str, ...],
    levels: list[Level],
) -> FlowRow:
    return FlowRow(
        id=sent.id,
        stage=sent.stage,
        src=sent.src,
        dst=sent.dst,
        src_server=job.placement.server_of(sent.src),
        dst_server=None if sent.dst < 0 else job.placement.server_of(sent.dst),
        size_bytes=sent.size_bytes,
        batch=sent.batch,
        request=sent.request,
        layer=sent.layer,
        coflow=sent.coflow,
        deadline_ns=sent.deadline_ns,
        submit_ns=sent.submit_ns,
        permit_ns=sent.permit_ns,
        lane_wait_ns=sent.lane_wait_ns,
        finish_ns=finish_ns,
        level_first=levels[0],
        level_last=levels[-1],
        promotions=sum(b < a for a, b in itertools.pairwise(levels)),
        path=path,
        verified=verified,
    )


def _links(samples: Sequence[Sample]) -> tuple[LinkSample, ...]:
    """Counters relative to the first sample: what was sent before the clock started does not count."""
    if not samples:
        return ()
    zero = samples[0].ports
    return tuple(
        LinkSample(
            time_ns=sample.time_ns,
            port=port,
            sent_bytes=tuple(n - z for n, z in zip(now.sent_bytes, zero[port].sent_bytes, strict=True)),
            backlog_bytes=now.backlog_bytes,
            drops=tuple(n - z for n, z in zip(now.drops, zero[port].drops, strict=True)),
        )
        for sample in samples
        for port, now in sample.ports.items()
    )

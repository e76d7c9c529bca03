"""Combines what the ranks and the controller recorded into the record of a run."""

from collections import defaultdict
from collections.abc import Sequence

from controller.lanes import LevelTrail
from controller.protocol import Log
from testbed.coordinator.token_checks import with_tokens
from testbed.fabric import FabricName, RunFailed
from testbed.job import Job
from testbed.record import Fidelity, FlowRow, LinkSample, ProgressRow, RunRecord, SpanRow
from testbed.serving.conductor import Conductor
from workers.protocol import Records


def collect(
    *,
    job: Job,
    fabric: FabricName,
    conductor: Conductor,
    records: Sequence[Records],
    flows: Sequence[FlowRow],
    log: Log,
    links: Sequence[LinkSample],
    queues: dict[str, list[dict[str, str | int | float]]],
    fidelity: Fidelity,
    facts: dict[str, str | int | float],
    wall_s: float,
) -> RunRecord:
    """Return the record of a run. `flows` are its `flow_rows`; `links` and `queues` may be empty."""
    tokens = [check for record in records for check in record.tokens]
    requests = with_tokens(conductor.request_rows(log.pruned, log.ended_pruned), tokens)
    ends = [flow.finish_ns for flow in flows]
    ends += [r.first_token_ns for r in requests if r.first_token_ns is not None]
    return RunRecord(
        policy=job.policy,
        fabric=fabric,
        requests=requests,
        flows=tuple(flows),
        decisions=log.decisions,
        spans=_spans(records),
        links=links,
        progress=tuple(
            ProgressRow(time_ns=mark.time_ns, flow=mark.flow, received_bytes=mark.received_bytes)
            for record in records
            for mark in record.progress
        ),
        permit_latency_ms=tuple(
            sent.permit_latency_wall_ns / 1e6 for record in records for sent in record.sent
        ),
        fidelity=fidelity,
        facts=facts,
        queues=queues,
        duration_ns=max(ends, default=0),
        wall_s=wall_s,
        batches_at_once=job.placement.most_stages,
        caches=conductor.caches(),
        faults=job.faults,
    )


def flow_rows(job: Job, records: Sequence[Records], log: Log) -> list[FlowRow]:
    """Return a row for each flow, in the order of submission.

    Raises `RunFailed` if a flow got its permit and never arrived: the record would be incomplete.
    """
    received = {r.id: r for record in records for r in record.received}
    paths = {p.flow: p.ports for p in log.paths}
    trails: dict[str, LevelTrail] = defaultdict(LevelTrail)
    for decision in log.decisions:
        trails[decision.flow].moved_to(decision.level_to)
    rows = []
    for record in records:
        for sent in record.sent:
            flow = sent.transfer.id
            if flow not in received:
                raise RunFailed(f"flow {flow!r} was sent and never arrived")
            end = received[flow]
            rows.append(
                FlowRow.of(
                    sent.transfer,
                    job.placement.server_of,
                    submit_ns=sent.submit_ns,
                    permit_ns=sent.permit_ns,
                    lane_wait_ns=sent.lane_wait_ns,
                    finish_ns=end.finish_ns,
                    trail=trails[flow],
                    path=paths[flow],
                    verified=end.verified,
                )
            )
    return sorted(rows, key=lambda row: (row.submit_ns, row.id))


def _spans(records: Sequence[Records]) -> list[SpanRow]:
    """The spans by their ends, so that those of a unit's batches follow each other (see `RunRecord`)."""
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

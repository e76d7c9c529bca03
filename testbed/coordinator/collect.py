"""Combines what the ranks and the controller recorded into the record of a run."""

from collections.abc import Iterable, Sequence

from controller.protocol import Log
from testbed.columns import ColumnSpool, numbers
from testbed.coordinator.gathered import Gathered
from testbed.coordinator.token_checks import with_tokens
from testbed.fabric import FabricName
from testbed.job import Job
from testbed.record import Fidelity, FlowRow, LinkSample, RunRecord
from testbed.serving.conductor import Conductor
from workers.protocol import TokenCheck


def collect(
    *,
    job: Job,
    fabric: FabricName,
    conductor: Conductor,
    gathered: Gathered,
    flows: ColumnSpool[FlowRow],
    tokens: Iterable[TokenCheck],
    log: Log,
    links: Sequence[LinkSample],
    queues: dict[str, list[dict[str, str | int | float]]],
    fidelity: Fidelity,
    facts: dict[str, str | int | float],
    wall_s: float,
) -> RunRecord:
    """Return the record of a run. `flows` are those that were `gathered`; `links`, `queues` and `tokens` may
    be empty."""
    requests = with_tokens(conductor.request_rows(log.pruned, log.ended_pruned), tokens)
    ends = [int(numbers(batch, "finish_ns").max()) for batch in flows.batches(["finish_ns"])]
    ends += [r.first_token_ns for r in requests if r.first_token_ns is not None]
    return RunRecord(
        policy=job.policy,
        fabric=fabric,
        requests=requests,
        flows=flows,
        decisions=gathered.decisions,
        spans=gathered.spans(),
        links=links,
        progress=gathered.progress,
        permit_latency_ms=gathered.permit_ms,
        fidelity=fidelity,
        facts=facts,
        queues=queues,
        duration_ns=max(ends, default=0),
        wall_s=wall_s,
        batches_at_once=job.placement.most_stages,
        caches=conductor.caches(),
        faults=job.faults,
    )

"""A rehearsal: a few seconds of a scenario's own work, on its own cluster, to see what a machine can do now.

The first requests arrive all at once, so the control plane has more to do than at most moments of the run.
It is of the last policy, because the first one is usually `fair`, which changes no levels.
"""

import msgspec

from controller.units import NS_PER_S
from experiments.resolve.scale import FORWARDING, work_s
from experiments.results.machine import Machine
from testbed.coordinator.delays import percentile
from testbed.job import Job, MicroFlow, Request
from testbed.record import CPU_WAIT_MS, FORWARDED, LATE_P99_MS, RunRecord
from testbed.serving.yardsticks import yardsticks

REHEARSAL = "rehearsal"
"""Under which name its progress is told."""

_WALL_S = 8.0
_FLOWS = 60
_FLOW_WALL_S = 0.2
_EVERY_WALL_S = 0.05


def rehearsal_job(job: Job) -> Job:
    """Return the rehearsal of `job`, at its scale and without its faults.

    Its links are probed at `FORWARDING` times their rate.
    """
    if job.flows:
        return msgspec.structs.replace(job, flows=_short_flows(job), faults=(), probe_faster=FORWARDING)
    first = [request for request in job.requests if request.after is None]
    count = round(len(job.requests) * _WALL_S / (work_s(job) * job.scale.time_dilation))
    count = max(len(job.placement.units), min(count, len(first)))
    at_once = tuple(_at_once(request) for request in first[:count])
    return msgspec.structs.replace(job, requests=at_once, plans=(), faults=(), probe_faster=FORWARDING)


def _at_once(request: Request) -> Request:
    return msgspec.structs.replace(request, arrival_ns=0)


def _short_flows(job: Job) -> tuple[MicroFlow, ...]:
    """The first flows, one after the other, each cut to what a median one sends in a fifth of a second."""
    median = yardsticks(job).whole
    wall_s = 0.0 if median is None else median.seconds * job.scale.time_dilation
    share = min(1.0, _FLOW_WALL_S / wall_s) if wall_s else 1.0
    every_ns = round(_EVERY_WALL_S / job.scale.time_dilation * NS_PER_S)
    return tuple(
        msgspec.structs.replace(
            flow,
            transfer=msgspec.structs.replace(
                flow.transfer, size_bytes=max(1, round(share * flow.transfer.size_bytes))
            ),
            start_ns=number * every_ns,
        )
        for number, flow in enumerate(job.flows[:_FLOWS])
    )


def machine_of(record: RunRecord, job: Job, nic_bps: float) -> Machine:
    """Return what the machine did in the rehearsal `job`. `nic_bps` is the rate of its fastest NIC."""
    forwarded = record.facts.get(FORWARDED)
    offered_mbps = FORWARDING * job.scale.wire_bps(nic_bps) / 1e6
    waited_ms = record.facts.get(CPU_WAIT_MS)
    waited = list(record.permit_latency_ms)
    late_ms = float(record.facts.get(LATE_P99_MS, 0.0))
    return Machine(
        permit_p50_ms=percentile(waited, 50),
        permit_p99_ms=percentile(waited, 99),
        late_p99_ms=late_ms or None,
        cpu_wait_ms=None if waited_ms is None else float(waited_ms),
        forwarded_mbps=None if forwarded is None else float(forwarded) * offered_mbps,
        offered_mbps=offered_mbps,
        cpu_idle=float(record.facts["cpu_idle_mean"]),
        policy=job.policy,
    )

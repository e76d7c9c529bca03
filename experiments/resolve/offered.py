"""Whether more work arrives than a cluster can do, said before the run."""

from collections import Counter
from collections.abc import Sequence

from controller.flow import PortId
from controller.units import NS_PER_S
from experiments.scenario.workload import WorkloadKind, WorkloadSection
from experiments.workloads.arrivals import own_rate_rps
from experiments.workloads.workload import Workload
from testbed.job import Job, MicroFlow, Placement
from testbed.serving.capacity import Demand
from testbed.topology import Topology

_FEWEST = 10
"""Arrivals below which a mean rate says little."""


def offered_notes(
    section: WorkloadSection, job: Job, each: Demand | None, rate_rps: float | None = None
) -> tuple[str, ...]:
    """Say by how much the work of `job` is more than its ports or its units can do, if it is, and which key
    changes that. `each` is what its requests take, if it has any. `rate_rps` is the rate that
    `workload.load` came to."""
    if job.flows:
        return _flows_notes(section, job)
    if each is None or sum(request.after is None for request in job.requests) < _FEWEST:
        return ()
    rate_rps = _rate_rps(section, job, rate_rps)
    if rate_rps is None:
        return ()
    over: list[str] = []
    if each.port is not None and rate_rps * each.port_s > 1:
        line_gbps = job.topology.link(each.port).bps / 1e9
        over.append(
            f"port {each.port} would have to carry {rate_rps * each.port_s * line_gbps:.3g} Gb/s of "
            f"{line_gbps:.3g} ({rate_rps * each.port_s:.2f} times its rate)"
        )
    if rate_rps * each.units_s > 1:
        over.append(f"the prefill units would have to do {rate_rps * each.units_s:.2f} s of work per second")
    if not over and section.load is not None and section.load > 1:
        return (
            f"more arrives than the cluster can do: workload.load is {section.load:g}, and 1 is what an "
            "overloaded run gets done, so TTFT grows for as long as the run lasts: "
            + _knob(section, section.load),
        )
    if not over:
        return ()
    return (
        f"more arrives than the cluster can do, at {rate_rps:.3g} requests/s: {' and '.join(over)}, so TTFT "
        f"grows for as long as the run lasts: {_knob(section, rate_rps / each.capacity_rps)}",
    )


def _rate_rps(section: WorkloadSection, job: Job, of_load_rps: float | None) -> float | None:
    """Return the mean rate of the arrivals: that of the trace as it runs, or the one they are drawn with."""
    if not section.arrives_at_random:
        return own_rate_rps(Workload(requests=job.requests))
    return section.rate if section.load is None else of_load_rps


def _knob(section: WorkloadSection, too_much: float) -> str:
    """Name the key that makes arrivals `too_much` times as rare."""
    if section.arrives_at_random:
        return "workload.load below 1, or a lower workload.rate, makes arrivals rarer"
    if section.load is not None or section.rate is not None:
        return "workload.load below 1, a lower workload.rate or workload.time_scale makes them rarer"
    return f"it takes a workload.time_scale of at least {(section.time_scale or 1.0) * too_much:.3g}"


def _flows_notes(section: WorkloadSection, job: Job) -> tuple[str, ...]:
    span_s = max(flow.start_ns for flow in job.flows) / NS_PER_S
    if len({flow.start_ns for flow in job.flows}) < _FEWEST:
        return ()
    due = flows_port_seconds(job.flows, topology=job.topology, placement=job.placement)
    port = max(due, key=due.__getitem__)
    if due[port] <= span_s:
        return ()
    too_much = due[port] / span_s
    knob = "start them further apart (start_s of workload.flows)"
    if section.kind is WorkloadKind.COFLOWS:
        knob = f"it takes a workload.time_scale of at least {(section.time_scale or 1.0) * too_much:.3g}"
    return (
        f"more arrives than the network can carry: port {port} needs {due[port]:.4g} s for what arrives in "
        f"{span_s:.4g} s ({too_much:.2f} times its rate), so flows wait longer and longer: {knob}",
    )


def flows_port_seconds(
    flows: Sequence[MicroFlow], *, topology: Topology, placement: Placement
) -> dict[PortId, float]:
    """Seconds that each port needs for the bytes of `flows` at line rate, if each takes its first path."""
    between: Counter[tuple[int, int]] = Counter()
    for flow in flows:
        between[flow.transfer.src, flow.transfer.dst] += flow.transfer.size_bytes
    due: dict[PortId, float] = {}
    for (src, dst), size_bytes in between.items():
        for port in topology.paths(placement.node_of(src), placement.node_of(dst))[0]:
            due[port] = due.get(port, 0.0) + size_bytes * 8 / topology.link(port).bps
    return due

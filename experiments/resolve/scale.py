"""How the model is mapped to the machine: time dilation and bytes scale.

If a scenario leaves them open, they are chosen for its work. Bytes are scaled so that the fastest NIC runs
at `link_mbps` on the machine. Time is stretched so that the work takes about `wall_s`, and at least so much
that the control plane can follow the layers of a batch.
"""

import math
import statistics
from collections.abc import Sequence

from controller.units import NS_PER_S
from experiments.resolve.cluster import fastest_nic_bps
from experiments.resolve.offered import flows_port_seconds
from experiments.resolve.work_demand import demand
from experiments.scenario.scenario import Scenario
from testbed.fabric import FabricName
from testbed.job import MODEL_SCALE, Job, MicroFlow, Placement, Request, Scale
from testbed.topology import Topology

LAYER_WALL_S = 0.03
"""A layer of a median request alone should last at least this long: some fifty permit latencies."""

_ATTAINABLE = 0.6  # share of what full, even batches could do; uneven ones reach less


def resolve_scale(scenario: Scenario, job: Job) -> tuple[Scale, tuple[str, ...]]:
    """Return the scale that the scenario gives, or one that fits the work, with a note if it was chosen.

    On the simulated fabric it is 1, because simulated time and bytes are those of the model. On real servers
    it is what the scenario gives, and by default 1: their links have the rates that they have.
    """
    if scenario.fabric == FabricName.SIM:
        return MODEL_SCALE, ()
    if scenario.fabric == FabricName.CLUSTER:
        given = scenario.scale
        return Scale(time_dilation=given.time_dilation or 1.0, bytes_scale=given.bytes_scale or 1.0), ()
    return machine_scale(scenario, job)


def machine_scale(scenario: Scenario, job: Job) -> tuple[Scale, tuple[str, ...]]:
    """Return the scale of the emulated fabric, whatever the scenario's fabric is, with a note if chosen."""
    section = scenario.scale
    dilation = section.time_dilation
    if dilation is None and job.flows:
        dilation = _flows_dilation(
            job.flows, topology=job.topology, placement=job.placement, wall_s=section.wall_s
        )
    elif dilation is None:
        dilation = _serving_dilation(
            job.requests,
            layers=job.model.layers,
            ideal_rps=demand(job, job.requests).capacity_rps,
            wall_s=section.wall_s,
        )
    nic = fastest_nic_bps(scenario.topology)
    scale = _scale_for(dilation, bytes_scale=section.bytes_scale, nic_bps=nic, link_mbps=section.link_mbps)
    if section.time_dilation is not None and section.bytes_scale is not None:
        return scale, ()
    return scale, (
        f"scale chosen for this work: a model second takes {scale.time_dilation:g} wall seconds, a NIC runs"
        f" at {scale.wire_bps(nic) / 1e6:.4g} Mb/s on the machine",
    )


def _serving_dilation(requests: Sequence[Request], *, layers: int, ideal_rps: float, wall_s: float) -> float:
    """Return wall seconds per model second for `requests`, which have their unloaded TTFT."""
    last_s = max(r.arrival_ns for r in requests) / NS_PER_S
    busy_s = len(requests) / (_ATTAINABLE * ideal_rps)
    unloaded_s = statistics.median(r.unloaded_ns for r in requests) / NS_PER_S
    duration_s = max(last_s + 2 * unloaded_s, busy_s)
    return _rounded_up(max(wall_s / duration_s, LAYER_WALL_S * layers / unloaded_s))


def _flows_dilation(
    flows: Sequence[MicroFlow], *, topology: Topology, placement: Placement, wall_s: float
) -> float:
    """Return wall seconds per model second for micro flows: at least 1."""
    due = flows_port_seconds(flows, topology=topology, placement=placement)
    duration_s = max(flow.start_ns for flow in flows) / NS_PER_S + max(due.values())
    return _rounded_up(max(1.0, wall_s / duration_s))


def _scale_for(dilation: float, *, bytes_scale: float | None, nic_bps: int, link_mbps: float) -> Scale:
    """Return the scale at which a NIC of `nic_bps` runs at `link_mbps`, unless `bytes_scale` is given."""
    if bytes_scale is None:
        bytes_scale = float(f"{link_mbps * 1e6 * dilation / nic_bps:.6g}")
    return Scale(time_dilation=dilation, bytes_scale=bytes_scale)


def _rounded_up(value: float) -> float:
    """Round up to two significant digits, so that the value is easy to read and to type."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.6g}")

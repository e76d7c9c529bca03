"""How the model is mapped to the machine: time dilation and bytes scale.

If a scenario leaves them open, they are chosen for its work. Bytes are scaled so that the fastest NIC runs
at `link_mbps` on the machine. Time is stretched so that the work takes about `wall_s`. If the machine was
measured (`experiments.resolve.rehearsal`), time is stretched further until its delays are short next to what
they delay, but not beyond `most_wall_s`, and links are so slow that the machine can forward what they carry.
If it was not, time is stretched at least so much that the control plane of a usual machine can follow the
layers of a batch.

The bytes of real layers are not scaled, because real tensors cross the links. Time is then stretched until
the fastest NIC runs at `link_mbps` or slower.
"""

import statistics
from collections.abc import Iterator, Sequence

from controller.units import NS_PER_S
from experiments.resolve.cluster import fastest_nic_bps
from experiments.resolve.offered import flows_port_seconds
from experiments.resolve.work_demand import demand
from experiments.results.machine import Machine
from experiments.results.readable_numbers import rounded_down, rounded_up
from experiments.scenario.machine import ScaleSection
from experiments.scenario.scenario import Scenario
from testbed.coordinator.delays import CPU_WAIT_BOUND, LATE_P99_BOUND, PERMIT_P50_BOUND, PERMIT_P99_BOUND
from testbed.fabric import FabricName
from testbed.job import MODEL_SCALE, Job, Scale
from testbed.serving.yardsticks import Yardstick, yardsticks
from workers.options import ComputeMode

LINK_MBPS = 15.0
"""Rate of a NIC on the machine, unless the machine forwards too little for that."""

FORWARDING = 5.0
"""A machine has to forward so many times what its NICs carry at line rate: ranks need its CPU, too."""

LAYER_WALL_S = 0.03
"""On a machine that was not measured, a layer of a median request alone lasts at least this long: some fifty
permit latencies."""

MARGIN = 2.0
"""A run lasts longer than its rehearsal, and other work comes and goes (docs/measured/busy-machine.md)."""

_ATTAINABLE = 0.6  # share of what full, even batches could do; uneven ones reach less
_LONGEST = 4.0  # times wall_s, if most_wall_s is null


def is_open(section: ScaleSection) -> bool:
    """Whether something is left to choose from what a machine can do."""
    link_is_open = section.bytes_scale is None and section.link_mbps is None
    return section.time_dilation is None or link_is_open


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


def machine_scale(
    scenario: Scenario, job: Job, machine: Machine | None = None
) -> tuple[Scale, tuple[str, ...]]:
    """Return the scale of the emulated fabric, whatever the scenario's fabric is, with notes if chosen."""
    section = scenario.scale
    nic_bps = fastest_nic_bps(scenario.topology)
    dilation, why = section.time_dilation, ""
    if dilation is None:
        dilation, why = _dilation(section, job, machine)
    link_mbps, why_link = _link(section, machine)
    bytes_scale = section.bytes_scale
    if scenario.workers.compute is ComputeMode.MODEL and job.requests:
        bytes_scale, why_link = bytes_scale or 1.0, ""
        slowest = rounded_up(nic_bps * bytes_scale / (link_mbps * 1e6))
        if section.time_dilation is None and slowest > dilation:
            dilation = slowest
            why = f" (so that a NIC runs at {link_mbps:g} Mb/s at most; {_takes(job, dilation)}"
            if dilation > longest_dilation(section, job):
                why += (
                    f", which is beyond scale.most_wall_s ({_most_wall_s(section):g} s) because the bytes of"
                    " real layers are not scaled: lower topology.nic_gbps or raise scale.link_mbps"
                )
            why += ")"
    scale = _scale_for(dilation, bytes_scale=bytes_scale, nic_bps=nic_bps, link_mbps=link_mbps)
    if section.time_dilation is not None and section.bytes_scale is not None:
        return scale, ()
    if section.time_dilation is not None:
        why = f" (given; {_takes(job, dilation)})"
    return scale, (
        *([] if machine is None else [str(machine)]),
        f"scale chosen for this work: a model second takes {scale.time_dilation:g} wall seconds{why}, a NIC"
        f" runs at {scale.wire_bps(nic_bps) / 1e6:.4g} Mb/s on the machine{why_link}",
    )


def longest_dilation(section: ScaleSection, job: Job) -> float:
    """Return the dilation with which the work takes `most_wall_s`."""
    return rounded_up(_most_wall_s(section) / work_s(job))


def duration_note(jobs: Sequence[Job]) -> str:
    """How long `jobs`, the policies of a scenario, should take on the wall at their scale."""
    dilation = jobs[0].scale.time_dilation
    policies = "a policy" if len(jobs) == 1 else f"{len(jobs)} policies"
    return (
        f"a model second takes {dilation:g} wall seconds: {policies} should take about"
        f" {len(jobs) * dilation * work_s(jobs[0]):.0f} s, without the start of the ranks"
    )


def _takes(job: Job, dilation: float) -> str:
    return f"a policy takes about {dilation * work_s(job):.0f} s"


def _most_wall_s(section: ScaleSection) -> float:
    return _LONGEST * section.wall_s if section.most_wall_s is None else section.most_wall_s


def _dilation(section: ScaleSection, job: Job, machine: Machine | None) -> tuple[float, str]:
    """Return the time dilation, and why it is not a smaller one."""
    usual = rounded_up(section.wall_s / work_s(job))
    floor = 1.0 if job.flows else rounded_up(LAYER_WALL_S * job.model.layers / _unloaded_s(job))
    needs = [(usual, f"so that a policy takes about {section.wall_s:g} s")]
    if job.flows:
        needs.append((floor, "the least for single flows"))
    elif machine is None:
        needs.append((floor, f"so that a layer of a median request takes at least {LAYER_WALL_S:g} s"))
    needs += [] if machine is None else _needs(job, machine)
    needed, why = max(needs, key=lambda need: need[0])
    most = longest_dilation(section, job)
    if machine is not None and needed > max(most, usual):
        return max(most, usual), (
            f" (as many as scale.most_wall_s allows; {needed:g} would be needed {why}, so the run will"
            " hardly be faithful)"
        )
    if needed == usual:
        return needed, f" ({why})"
    return needed, f" ({why}; {_takes(job, needed)})"


def _needs(job: Job, machine: Machine) -> Iterator[tuple[float, str]]:
    """Yield dilations at which a delay of the machine is within its bound, with a margin, and which it is."""
    against = yardsticks(job)
    delays: tuple[tuple[float | None, float, Yardstick | None, str], ...] = (
        (machine.permit_p50_ms, PERMIT_P50_BOUND, against.transfer, "permits (p50)"),
        (machine.permit_p99_ms, PERMIT_P99_BOUND, against.transfer, "permits (p99)"),
        (machine.late_p99_ms, LATE_P99_BOUND, against.compute, "late wake-ups (p99)"),
        (machine.cpu_wait_ms, CPU_WAIT_BOUND, against.transfer, "waits for the CPU (mean)"),
    )
    for delay_ms, bound, of, name in delays:
        if delay_ms and of is not None:
            dilation = MARGIN * delay_ms / 1e3 / (bound * of.seconds)
            yield rounded_up(dilation), f"so that {name} are at most {bound / MARGIN:.2g} of {of.short}"


def _link(section: ScaleSection, machine: Machine | None) -> tuple[float, str]:
    """Return the rate of a NIC on the machine in Mb/s, and why if that was measured."""
    if section.link_mbps is not None or section.bytes_scale is not None:
        return section.link_mbps or LINK_MBPS, ""
    if machine is None or machine.forwarded_mbps is None:
        return LINK_MBPS, ""
    can = rounded_down(machine.forwarded_mbps / FORWARDING)
    if can >= LINK_MBPS:
        return LINK_MBPS, ""
    return max(can, 0.1), f" (a {FORWARDING:g}th of what it forwards)"


def work_s(job: Job) -> float:
    """Return the model seconds that the work of `job` is estimated to take."""
    if job.flows:
        due = flows_port_seconds(job.flows, topology=job.topology, placement=job.placement)
        return max(flow.start_ns for flow in job.flows) / NS_PER_S + max(due.values())
    last_s = max(r.arrival_ns for r in job.requests) / NS_PER_S
    busy_s = len(job.requests) / (_ATTAINABLE * demand(job, job.requests).capacity_rps)
    return max(last_s + 2 * _unloaded_s(job), busy_s)


def _unloaded_s(job: Job) -> float:
    return statistics.median(r.unloaded_ns for r in job.requests) / NS_PER_S


def _scale_for(dilation: float, *, bytes_scale: float | None, nic_bps: int, link_mbps: float) -> Scale:
    """Return the scale at which a NIC of `nic_bps` runs at `link_mbps`, unless `bytes_scale` is given."""
    if bytes_scale is None:
        bytes_scale = float(f"{link_mbps * 1e6 * dilation / nic_bps:.6g}")
    return Scale(time_dilation=dilation, bytes_scale=bytes_scale)

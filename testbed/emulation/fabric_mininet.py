"""Entry point of the emulated fabric: checks that a job fits this machine, and runs it in a sandbox."""

from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from controller.policy import weights_of
from controller.spec import read_spec
from testbed.coordinator.ranks import lanes_of
from testbed.coordinator.real_model import refuse
from testbed.coordinator.refusals import refuse_parts, refuse_simulated_only
from testbed.emulation.queues import LEAST_PART, part_of
from testbed.emulation.requirements import requirements
from testbed.emulation.sandbox import run_in_sandbox
from testbed.fabric import (
    FabricName,
    FabricUnavailable,
    JobRefused,
    NotOnThisMachine,
    Requirement,
    RunProgress,
)
from testbed.faults import LinkFault
from testbed.job import Job
from testbed.record import RunRecord
from testbed.topology import Topology
from workers.options import Device

# Beyond these limits a run would not end, or its numbers would mean nothing. Below them, fidelity decides.
_RANK_MIB = 120
_MOST_LETTERS = 10  # of the 15 that Linux allows in the name of a device
_MOST_SERVERS = 64
_MOST_RANKS = 64
_MOST_LANES = 4000
_MOST_WIRE_BPS = 4e9
_LEAST_LINK_BPS = 1e6


class MininetFabric:
    """Mininet, Open vSwitch and real ranks on this machine."""

    name: str = FabricName.MININET

    def requirements(self) -> Sequence[Requirement]:
        return requirements()

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        missing = [r for r in self.requirements() if r.needed and not r.ok]
        if missing:
            raise FabricUnavailable(self.name, missing)
        _refuse_what_cannot_fit(job)
        return run_in_sandbox(job, progress)


def _refuse_names(topology: Topology) -> None:
    """Refuse switches whose names cannot be those of bridges: a device is called `<bridge>-eth<port>`."""
    taken = {f"n{server}" for server in topology.servers}
    for switch in topology.switches:
        if len(switch) > _MOST_LETTERS or switch in taken:
            raise JobRefused(
                f"topology.path: the emulated fabric cannot call a switch {switch!r}; use at most "
                f"{_MOST_LETTERS} letters, and not the n of a server, as in nh1"
            )


def _refuse_small_weights(job: Job) -> None:
    weights = weights_of(read_spec(job.policy, **job.scheduler.defaults()).policy)
    for level in weights:
        if part_of(level, weights) < LEAST_PART:
            raise JobRefused(
                f"policies: {job.policy!r} leaves {level.name} {part_of(level, weights):.2%} of a port; on"
                f" the emulated fabric, TCP needs at least {LEAST_PART:.1%} to go on"
            )


def _refuse_what_cannot_fit(job: Job) -> None:
    """Raise `JobRefused`, naming the key to change, if the job does not fit this machine."""
    _refuse_small_weights(job)
    refuse_simulated_only(job)
    refuse_parts(
        job.topology,
        servers="emulated servers have one NIC and no links inside",
        latency="emulated links have no latency that can be set; only the simulated fabric has it (0 leaves"
        " it out)",
    )
    _refuse_names(job.topology)
    refuse(job)
    servers = len(job.topology.servers)
    if servers > _MOST_SERVERS:
        raise NotOnThisMachine(
            f"topology: {servers} servers are too many for one machine (at most {_MOST_SERVERS})"
        )
    ranks = len(job.placement.ranks)
    if ranks > _MOST_RANKS:
        raise NotOnThisMachine(f"units: {ranks} ranks are too many for one machine (at most {_MOST_RANKS})")
    if job.workers.device is Device.CUDA and not Path("/dev/nvidiactl").exists():
        raise NotOnThisMachine(
            "workers.device: is cuda, but this machine has no CUDA device (auto needs none)"
        )
    memory_mib = psutil.virtual_memory().available // 2**20
    if ranks * _RANK_MIB > memory_mib:
        raise NotOnThisMachine(
            f"units: {ranks} ranks need about {ranks * _RANK_MIB} MiB, {memory_mib} MiB are available"
        )
    lanes = len(lanes_of(job))
    if lanes > _MOST_LANES:
        raise NotOnThisMachine(
            f"units: {ranks} ranks need {lanes} lanes (at most {_MOST_LANES}): use fewer ranks, or lower"
            " workers.lanes_s1 and workers.lanes_s3"
        )
    shares = {
        port: fault.share
        for fault in job.faults
        if isinstance(fault, LinkFault) and fault.share > 0
        for port in fault.ports
    }
    slowest = min(job.scale.wire_bps(link.bps) * shares.get(link.id, 1.0) for link in job.topology.links)
    if slowest < _LEAST_LINK_BPS:
        raise NotOnThisMachine(
            f"scale: the slowest link would run at {slowest / 1e6:.3f} Mb/s on this machine (at least"
            f" {_LEAST_LINK_BPS / 1e6:g}): raise scale.bytes_scale or lower scale.time_dilation"
        )
    total = sum(
        job.scale.wire_bps(link.bps) for link in job.topology.links if link.src in job.topology.servers
    )
    if total > _MOST_WIRE_BPS:
        raise NotOnThisMachine(
            f"scale: the servers' NICs would carry {total / 1e9:.1f} Gb/s in all on this machine (at most"
            f" {_MOST_WIRE_BPS / 1e9:g}): lower scale.bytes_scale or raise scale.time_dilation"
        )

"""One emulated run: starts network, controller and ranks, plays the job, and collects the records."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from controller.policy import weights_of
from controller.pulse import Pulse, start_beating
from controller.spec import read_spec
from controller.units import NS_PER_S
from testbed.coordinator.collect import collect
from testbed.coordinator.controller import ControllerProcess
from testbed.coordinator.cpu_wait import CpuWaits
from testbed.coordinator.delays import percentile
from testbed.coordinator.gathered import Gathered
from testbed.coordinator.lapses import WallClock
from testbed.coordinator.line_check import line_check
from testbed.coordinator.memory import MemoryKills
from testbed.coordinator.player import Player
from testbed.coordinator.token_checks import token_checks
from testbed.emulation import network, ovs, queues
from testbed.emulation.control import configured, start_process
from testbed.emulation.disturbances import disturbances, pauses_of, restarts, unasked_pause, undisturbed
from testbed.emulation.faults import FaultInjector
from testbed.emulation.fidelity import CpuMeter, delivered_share, judge
from testbed.emulation.links import LinkWatch
from testbed.emulation.monitor import LinkMonitor
from testbed.emulation.nominal import lines_of
from testbed.emulation.processes import StopWatch
from testbed.emulation.ranks import RankProcesses
from testbed.emulation.speeds import faster_than_line
from testbed.emulation.zygote import Zygote
from testbed.fabric import FabricName, RunFailed, RunProgress
from testbed.job import Job
from testbed.record import CPU_WAIT_MS, FASTER_THAN_LINE, FORWARDED, LATE_P99_MS, RunRecord
from testbed.serving.conductors import conductor_of
from testbed.serving.yardsticks import yardsticks

_START_MARGIN_S = 0.2


class _Part(Protocol):
    """Something that runs beside the player."""

    def check(self) -> None:
        """Raise `RunFailed` if it no longer works."""


class EmulatedRun:
    """Runs `job` inside a sandbox. `directory` is on the sandbox's own tmpfs. `watch` gives processes up that
    stay stopped, but for those that a fault stops. `zygote` forks the ranks."""

    def __init__(
        self,
        job: Job,
        directory: Path,
        progress: Callable[[RunProgress], None],
        watch: StopWatch,
        zygote: Zygote,
    ) -> None:
        self._watch = watch
        self._zygote = zygote
        self._job = job
        self._directory = directory
        self._progress = progress
        self._begun = time.monotonic()

    def run(self) -> RunRecord:
        """Run the job and return its record. Raises `RunFailed` if anything makes its numbers worthless."""
        job, directory = self._job, self._directory
        self._say("starting workers, controller and Open vSwitch")
        gathered = Gathered(job)
        ranks = RankProcesses(job, directory, self._zygote)
        ranks.recorded = gathered.take
        process = start_process(directory)
        switch = ovs.OpenVSwitch(directory)
        self._watch.ended = switch.ended
        try:
            switch.start()
        except ovs.OpenVSwitchFailed as error:
            raise RunFailed(str(error)) from error
        self._say("building the fabric")
        kernel = ovs.kernel_datapath_available()
        weights = weights_of(read_spec(job.policy, **job.scheduler.defaults()).policy)
        laid = network.lay_out(job.topology, seed=job.seed, kernel=kernel)
        controller = configured(process, job, laid.wiring, directory)
        controller.logged = gathered.take_logged
        net = network.start(laid, job.topology, job.scale, scratch=directory, weights=weights)
        faults = FaultInjector(job, net)
        self._watch.excused, ranks.excused = faults.stopped, faults.paused
        links = LinkWatch(net, faults.outages)
        links.start()
        faults.controller = controller.pid
        controller.wait_until_it_listens()
        network.connect(net)
        controller.wait_for_switches()
        self._say("connecting lanes")
        ranks.start(net, [links.check, controller.check_idle])
        ranks.wait_until_ready()
        controller.wait_for_registrations(lanes=ranks.lanes, groups=ranks.group_ends)

        if not kernel:
            switch.enlarge_packet_buffers()
        self._say("probing the links")
        forwarded = self._forwarded(net, ranks)
        probes = ranks.probe(net.wiring.paths, net.wiring.port_bps)
        monitor = LinkMonitor(net)
        cpu = CpuMeter()
        waits = CpuWaits({os.getpid(): "process 1", controller.pid: "the controller"})
        daemons = switch.pulses()
        own = Pulse(time.monotonic_ns())
        zero_wall_ns = time.monotonic_ns() + round(_START_MARGIN_S * NS_PER_S)
        controller.start_clock(zero_wall_ns, job.scale.time_dilation)
        links.start_clock()
        ranks.start_clock(zero_wall_ns)
        monitor.start(zero_wall_ns, job.scale.time_dilation)
        cpu.start()
        waits.start()
        faults.start(zero_wall_ns)
        start_beating(own)
        for daemon in daemons:
            daemon.start()
        clock = WallClock(zero_wall_ns=zero_wall_ns, time_dilation=job.scale.time_dilation)
        conductor = conductor_of(job)
        player = Player(
            job,
            conductor,
            controller,
            ranks,
            self._tell,
            monitor.now,
            lambda: monitor.received_segments,
            monitor.silent_ports,
            links.outages,
            faults,
        )
        player.play(zero_wall_ns, self._alive(switch, controller, monitor, cpu, links, faults, *daemons))
        faults.stop()
        asked = faults.asked()
        upset = [one.upset for one in asked if one.upset is not None]
        pauses = {"process 1": own.longest(time.monotonic_ns()), **{d.name: d.stop() for d in daemons}}
        outages = links.stop()
        cpu.stop()
        cpu_wait = waits.stop()
        samples = monitor.stop()
        records = ranks.finish()
        for record in records:
            gathered.take(record)
        log = controller.log()
        flows = gathered.flows()
        pauses |= {
            f"rank {one.rank}": unasked_pause((one.longest_pause, *one.pauses), pauses_of(one.rank, asked))
            for one in records
        }
        pauses["the controller"] = unasked_pause(log.pauses, restarts(asked))
        against = yardsticks(job)
        judged = undisturbed(gathered.permits, asked, clock)
        late_ms = [late for delays in gathered.late_ms.values() for late in delays]
        permits = [permit.latency_wall_ns / 1e6 for permit in judged]
        fidelity = judge(
            probes=probes,
            samples=samples,
            busy=monitor.busy,
            cpu=cpu,
            cpu_wait=cpu_wait,
            permit_ms=permits,
            late_ms=late_ms,
            segments=monitor.segments(upset),
            yardsticks=against,
            time_dilation=job.scale.time_dilation,
            more=(
                line_check(gathered.crossings, lines_of(job), job.scale.bytes_scale, clock),
                *disturbances(
                    pauses=pauses,
                    outages=outages,
                    away=log.away,
                    permits=judged,
                    late_ms=gathered.late_ms,
                    flows=flows,
                    samples=samples,
                    clock=clock,
                    whole=against.whole,
                    asked=asked,
                    fault_late_ms=faults.latest_ms if asked else None,
                ),
                *token_checks(job, records),
            ),
            upset=upset,
        )
        return collect(
            job=job,
            fabric=FabricName.MININET,
            conductor=conductor,
            gathered=gathered,
            flows=flows,
            tokens=[token for record in records for token in record.tokens],
            log=log,
            links=samples.links,
            queues={port: queues.read_back([tree])[tree.device] for port, tree in net.trees.items()},
            fidelity=fidelity,
            facts=self._facts(net, controller, ranks, cpu, log.flow_mods, log.barriers)
            | {FASTER_THAN_LINE: round(faster_than_line(flows, job) or 0.0, 4)}
            | ({} if cpu_wait is None else {CPU_WAIT_MS: round(cpu_wait.mean_ms, 4)})
            | {LATE_P99_MS: round(percentile(late_ms, 99) or 0.0, 4)}
            | ({} if forwarded is None else {FORWARDED: round(forwarded, 4)}),
            wall_s=time.monotonic() - self._begun,
        )

    def _forwarded(self, net: network.Network, ranks: RankProcesses) -> float | None:
        """The share of its rate that the slowest path delivers when links are `probe_faster` times as fast.

        Afterwards, links have their own rates again. None if that is not asked for, or nothing is probed.
        """
        faster = self._job.probe_faster
        if faster is None:
            return None
        own = list(net.trees.values())
        queues.change_rates(msgspec.structs.replace(tree, line_bps=faster * tree.line_bps) for tree in own)
        arrived = ranks.probe(net.wiring.paths, net.wiring.port_bps, faster)
        queues.change_rates(own)
        return delivered_share(arrived)

    @staticmethod
    def _alive(switch: ovs.OpenVSwitch, *parts: _Part) -> Callable[[], None]:
        memory = MemoryKills()

        def check() -> None:
            if ended := switch.ended():
                raise RunFailed(f"{ended}{memory.note()}: {switch.log_tail()}")
            for part in parts:
                part.check()

        return check

    def _facts(
        self,
        net: network.Network,
        controller: ControllerProcess,
        ranks: RankProcesses,
        cpu: CpuMeter,
        flow_mods: int,
        barriers: int,
    ) -> dict[str, str | int | float]:
        return {
            "openflow": controller.implementation,
            "open_vswitch": ovs.version(),
            "datapath": net.datapath,
            "mtu": network.MTU,
            "cores": psutil.cpu_count() or 0,
            "cpu_idle_mean": round(cpu.mean_idle, 4),
            "flow_mods": flow_mods,
            "barriers": barriers,
            "lanes": ranks.lanes,
            "device": ranks.device,
            "backend": ranks.backend,
            "torch": ranks.torch_version,
        }

    def _say(self, phase: str) -> None:
        self._tell(RunProgress(phase=phase))

    def _tell(self, progress: RunProgress) -> None:
        self._progress(msgspec.structs.replace(progress, wall_s=time.monotonic() - self._begun))

"""One run on real servers: agents start the ranks, the player plays the job, and clocks are put right."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from controller.curve import ClientKeys, ServerKeys
from controller.protocol import Log
from controller.pulse import Pulse, start_beating
from controller.tcp_hub import TcpHub
from controller.units import NS_PER_S
from testbed.cluster.agents import AgentDesk, agent_name, cannot_listen
from testbed.cluster.assignment import Assigned
from testbed.cluster.clocks import Drift, corrected
from testbed.cluster.control import MarkingController, mark_config
from testbed.cluster.fidelity import Servers, judge, lines_of
from testbed.cluster.inventory import Inventory
from testbed.cluster.load import LoadMeter
from testbed.cluster.ranks import RemoteRanks
from testbed.coordinator.collect import collect
from testbed.coordinator.controller import ControllerProcess
from testbed.coordinator.gathered import Gathered
from testbed.coordinator.lapses import WallClock
from testbed.coordinator.line_check import line_check
from testbed.coordinator.player import Player
from testbed.coordinator.ranks import ProbeResult
from testbed.coordinator.token_checks import token_checks
from testbed.fabric import FabricName, RunFailed, RunProgress
from testbed.job import Job
from testbed.record import Fidelity, RunRecord
from testbed.serving.conductor import Conductor
from testbed.serving.conductors import conductor_of
from testbed.serving.yardsticks import yardsticks
from workers.agent_protocol import Here
from workers.protocol import Records

_START_MARGIN_S = 0.5  # ranks hear of it over a network


class Cluster(NamedTuple):
    """What all runs of a fabric use."""

    inventory: Inventory
    desk: AgentDesk
    context: "zmq.Context[zmq.Socket[bytes]]"
    keys: ServerKeys
    own: ClientKeys
    wait_s: float
    log: Callable[[str], None]


class _Played(NamedTuple):
    conductor: Conductor
    probes: list[ProbeResult]
    records: list[Records]
    gathered: Gathered
    log: Log
    clock: WallClock
    pauses: Pulse
    servers: Servers


class ClusterRun:
    """Runs `job` on the servers of `cluster`. `directory` is for the log of the controller."""

    def __init__(
        self,
        job: Job,
        assigned: Assigned,
        cluster: Cluster,
        directory: Path,
        progress: Callable[[RunProgress], None],
    ) -> None:
        self._job = job
        self._assigned = assigned
        self._cluster = cluster
        self._directory = directory
        self._progress = progress
        self._begun = time.monotonic()
        self._agents = {rank: agent_name(place) for rank, place in assigned.places.items()}
        self._ranks: RemoteRanks | None = None

    def lost(self) -> dict[int, str]:
        """The ranks that are gone after `run` has raised `RunFailed`, and how they went. It takes a while."""
        found = self._cluster.desk.lost(set(self._agents.values()))
        lost = {rank: found[agent] for rank, agent in self._agents.items() if agent in found}
        silent = frozenset() if self._ranks is None else self._ranks.silent
        for rank in silent - lost.keys():
            lost[rank] = f"nothing was heard of rank {rank} ({self._agents[rank]})"
        return lost

    def run(self) -> RunRecord:
        """Run the job and return its record. Raises `RunFailed` if anything makes its numbers worthless."""
        cluster = self._cluster
        desk, names = cluster.desk, set(self._agents.values())
        desk.wait_for(names, cluster.wait_s, self._waiting)
        self._say("reading the servers' clocks")
        before = desk.read_clocks(names)
        endpoint = cluster.inventory.endpoint(1, listen=True)
        with cannot_listen(endpoint):
            hub = TcpHub(cluster.context, endpoint, cluster.keys, cluster.log)
        marking = MarkingController(cluster.context, self._directory)
        try:
            self._say("starting the controller and the ranks")
            config = mark_config(self._job, self._assigned, cluster.inventory, cluster.keys)
            controller = marking.start(config, cluster.inventory.endpoint(2), cluster.own)
            self._ranks = ranks = RemoteRanks(self._job, hub, desk, self._assigned)
            ranks.start(cluster.inventory, before, controller.check_idle)
            played = self._play(ranks, controller)
        except RunFailed as failure:
            log = marking.log()
            raise RunFailed(f"{failure}\n--- controller.log\n{log}" if log else str(failure)) from failure
        finally:
            desk.stop_ranks()
            marking.stop()
            hub.close()
        self._say("reading the servers' clocks again")
        after = desk.read_clocks(names)
        drifts = {name: Drift(before=before[name], after=after[name]) for name in names}
        return self._record(played, drifts, ranks)

    def _play(self, ranks: RemoteRanks, controller: ControllerProcess) -> _Played:
        job = self._job
        ranks.wait_until_ready()
        controller.wait_for_registrations(lanes=ranks.lanes, groups=ranks.group_ends)
        self._say("probing the links")
        probes = self._probe(ranks)
        own = Pulse(time.monotonic_ns())
        nics = {machine.host: machine.nic for machine in self._assigned.machines.values()}
        load = LoadMeter(self._here(), nics)
        zero_wall_ns = time.monotonic_ns() + round(_START_MARGIN_S * NS_PER_S)
        controller.start_clock(zero_wall_ns, job.scale.time_dilation)
        ranks.start_clock(zero_wall_ns)
        start_beating(own)
        conductor = conductor_of(job)
        gathered = Gathered(job)
        controller.logged = gathered.take_logged

        def alive() -> None:
            controller.check()
            load.take(self._here())

        player = Player(job, conductor, controller, ranks, self._tell, received=lambda: load.moved)
        try:
            player.play(zero_wall_ns, alive)
        except RunFailed as failure:
            told, left = str(failure), conductor.describe()
            if "data network" not in told:  # a run that stands still may be noticed first
                told += self._cluster.desk.unheard(set(self._agents.values()))
            raise RunFailed(told if left in told else f"{told}; {left}") from failure
        load.take(self._here())
        if not job.serving.decode_background:  # or decode workers still send
            self._say("probing the links again")
            probes += self._probe(ranks)
        return _Played(
            conductor=conductor,
            probes=probes,
            records=ranks.finish(),
            gathered=gathered,
            log=controller.log(),
            clock=WallClock(zero_wall_ns=zero_wall_ns, time_dilation=job.scale.time_dilation),
            pauses=own,
            servers=load.servers(self._mtu()),
        )

    def _probe(self, ranks: RemoteRanks) -> list[ProbeResult]:
        paths = {pair: (path,) for pair, path in self._assigned.paths.items()}
        return ranks.probe(paths, {link.id: link.bps for link in self._job.topology.links})

    def _record(self, played: _Played, drifts: dict[str, Drift], ranks: RemoteRanks) -> RunRecord:
        job, inventory = self._job, self._cluster.inventory
        records = [
            corrected(
                one,
                drifts[self._agents[one.rank]],
                zero_wall_ns=played.clock.zero_wall_ns,
                time_dilation=played.clock.time_dilation,
            )
            for one in played.records
        ]
        gathered = played.gathered
        for one in records:
            gathered.take(one)
        pauses = {ranks.name_of(one.rank): one.longest_pause for one in records}
        pauses["the controller"] = played.log.pauses[0]
        pauses["the coordinator"] = played.pauses.longest(time.monotonic_ns())
        fidelity: Fidelity = judge(
            probes=played.probes,
            servers=played.servers,
            gathered=gathered,
            pauses=pauses,
            clock=played.clock,
            drifts=drifts,
            enforced=inventory.dscps is not None,
            yardsticks=yardsticks(job),
            more=(
                line_check(
                    gathered.crossings,
                    lines_of(job, played.probes, drifts, played.servers.mtu),
                    job.scale.bytes_scale,
                    played.clock,
                ),
                *token_checks(job, records),
            ),
        )
        some = next(iter(self._here().values()))
        return collect(
            job=job,
            fabric=FabricName.CLUSTER,
            conductor=played.conductor,
            gathered=gathered,
            flows=gathered.flows(),
            tokens=[token for one in records for token in one.tokens],
            log=played.log,
            links=(),
            queues={},
            fidelity=fidelity,
            facts={
                "levels": "IP_TOS" if inventory.dscps is not None else "not put in force",
                "servers": len(self._assigned.machines),
                "lanes": ranks.lanes,
                "device": ranks.device,
                "backend": ranks.backend,
                "torch": some.machine.torch,
                "mtu": played.servers.mtu,
                "marks": played.log.flow_mods,
                "clock_ahead_s": round(max((d.before.ahead_ns for d in drifts.values()), key=abs) / 1e9, 3),
                "clock_error_us": round(max(d.before.error_ns for d in drifts.values()) / 1e3, 1),
                "clock_drift_us": round(max(abs(d.total_ns) for d in drifts.values()) / 1e3, 1),
            },
            wall_s=time.monotonic() - self._begun,
        )

    def _here(self) -> dict[str, Here]:
        """What the agents of this job have said last."""
        here = self._cluster.desk.here()
        return {name: here[name] for name in self._agents.values() if name in here}

    def _mtu(self) -> int:
        """The smallest MTU on the data network."""
        nics = {machine.host: machine.nic for machine in self._assigned.machines.values()}
        found = {one.host: one.machine.mtus.get(nics[one.host]) for one in self._here().values()}
        without = sorted(
            f"{host} has no interface {nics[host]}" for host, mtu in found.items() if mtu is None
        )
        if without:
            raise RunFailed(f"servers.nic: {', '.join(without)}")
        return min(mtu for mtu in found.values() if mtu is not None)

    def _waiting(self, missing: list[str]) -> None:
        there = len(self._agents) - len(missing)
        self._say(f"waiting for agents: {there} of {len(self._agents)}")

    def _say(self, phase: str) -> None:
        self._tell(RunProgress(phase=phase))

    def _tell(self, progress: RunProgress) -> None:
        self._progress(msgspec.structs.replace(progress, wall_s=time.monotonic() - self._begun))

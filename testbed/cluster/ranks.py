"""The ranks of a job on real servers: what each is told, and whether it lives."""

from collections.abc import Callable, Mapping

from controller.flow import Level
from controller.tcp_hub import TcpHub
from testbed.cluster.agents import AgentDesk, agent_name
from testbed.cluster.assignment import Assigned
from testbed.cluster.clocks import Reading
from testbed.cluster.inventory import Inventory
from testbed.coordinator.rank_sizes import layer_sizes, page_bytes
from testbed.coordinator.ranks import Ranks
from testbed.job import Job
from workers.options import ComputeMode
from workers.protocol import RankConfig, Remote


class RemoteRanks(Ranks):
    """Ranks that the agents of `desk` start, and that connect to `hub`."""

    def __init__(self, job: Job, hub: TcpHub, desk: AgentDesk, assigned: Assigned) -> None:
        super().__init__(job, hub, absent={r.rank for r in job.placement.ranks} - assigned.places.keys())
        self._desk = desk
        self._assigned = assigned
        self._agents = {rank: agent_name(place) for rank, place in assigned.places.items()}
        self._check_controller: Callable[[], None] | None = None

    def start(
        self, inventory: Inventory, clocks: Mapping[str, Reading], check_controller: Callable[[], None]
    ) -> None:
        """Have each agent start its rank. Until the clock starts, `check` includes `check_controller`."""
        self._check_controller = check_controller
        configs = {}
        for rank, agent in self._agents.items():
            configs[agent] = self._config(inventory, rank, clocks[agent])
        machines = self._assigned.machines.values()
        self._desk.run(configs, {machine.host: machine.address for machine in machines})

    def _config(self, inventory: Inventory, rank: int, clock: Reading) -> RankConfig:
        job, machines = self._job, self._assigned.machines
        dscps = inventory.dscps
        store_rank = min(self._agents)
        return RankConfig(
            rank=rank,
            servers=tuple(r.server for r in job.placement.ranks),
            addresses={server: machine.address for server, machine in machines.items()},
            interface=machines[job.placement.server_of(rank)].nic,
            namespace_pid=None,
            store_rank=store_rank,
            store_host=machines[job.placement.server_of(store_rank)].address,
            store_port=inventory.store_port,
            lanes=self._lanes,
            probes=self._probes,
            groups=self._groups,
            time_dilation=job.scale.time_dilation,
            bytes_scale=job.scale.bytes_scale,
            chunk_bytes=job.workers.chunk_bytes,
            verify_share=job.workers.verify_share,
            seed=job.seed,
            device=job.workers.device,
            compute=job.workers.compute,
            model=self._model,
            page_bytes=page_bytes(job, rank),
            layer=layer_sizes(job, rank) if job.workers.compute is ComputeMode.KERNELS else None,
            to_controller=inventory.endpoint(2),
            from_controller=inventory.endpoint(2),
            to_coordinator=inventory.endpoint(1),
            from_coordinator=inventory.endpoint(1),
            remote=Remote(
                clock_offset_ns=clock.ahead_ns,
                gpu=self._assigned.places[rank][1],
                control_dscp=None if dscps is None else dscps[Level.CONTROL],
            ),
        )

    def name_of(self, rank: int) -> str:
        return f"rank {rank} ({self._agents[rank]})"

    def check_processes(self) -> None:
        """Raise `RunFailed` if a rank has ended, or if its agent has left or is silent."""
        self._desk.check(self._agents.values())
        if self._check_controller is not None:
            self._check_controller()

    def start_clock(self, zero_wall_ns: int) -> None:
        self._check_controller = None
        super().start_clock(zero_wall_ns)

"""Which machine plays which server of a job, and why a job cannot run on real servers. Pure."""

from collections.abc import Mapping

import msgspec

from controller.policy import weights_of
from controller.spec import read_spec
from testbed.cluster.inventory import Inventory, Server
from testbed.coordinator.ranks import lanes_of
from testbed.coordinator.real_model import refuse as refuse_real_layers
from testbed.coordinator.refusals import refuse_parts, refuse_simulated_only
from testbed.fabric import JobRefused
from testbed.job import Job
from testbed.topology import Topology
from workers.options import Device

_MOST_LANES = 4000


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of each server of the scenario that has ranks, and the number of each rank there.

    `places[3]` is the host of rank 3 and its LOCAL_RANK. `paths["h1 h2"]` are the nodes from server to
    server.
    """

    machines: dict[str, Server]
    places: dict[int, tuple[str, int]]
    paths: dict[str, tuple[str, ...]]

    @property
    def processes(self) -> int:
        """How many processes torchrun starts on each server: it has to be the same number on all."""
        return 1 + max(local for _, local in self.places.values())


def assign(job: Job, inventory: Inventory) -> Assigned:
    """Raises `JobRefused`, naming the key to change, if the job cannot run on these servers."""
    refuse_parts(
        job.topology,
        servers="on real servers, all traffic of a server uses one NIC, and nothing goes over links inside",
        latency="real links have the latency that they have; leave it out (0)",
    )
    if job.faults:
        raise JobRefused(
            f"faults: real servers have the faults that they have; {job.faults[0].words} can be had on the"
            " simulated and the emulated fabric"
        )
    refuse_simulated_only(job)
    refuse_real_layers(job)
    if weights_of(read_spec(job.policy, **job.scheduler.defaults()).policy):
        raise JobRefused(
            f"policies: {job.policy!r} has weights of levels; a run does not set up the switches of real"
            " servers, and takes them to serve levels in strict priority"
        )
    machines = _machines(job, inventory)
    used = {rank.server for rank in job.placement.ranks}
    places: dict[int, tuple[str, int]] = {}
    count: dict[str, int] = {}
    for rank in job.placement.ranks:
        local = count.get(rank.server, 0)
        count[rank.server] = local + 1
        places[rank.rank] = machines[rank.server].host, local
    _refuse_gpus(job, machines, count)
    lanes = len(lanes_of(job))
    if lanes > _MOST_LANES:
        raise JobRefused(
            f"units: {len(places)} ranks need {lanes} lanes (at most {_MOST_LANES}): use fewer ranks, or"
            " lower workers.lanes_s1 and workers.lanes_s3"
        )
    return Assigned(
        machines={server: machines[server] for server in job.topology.servers if server in used},
        places=places,
        paths=_paths(job.topology, used),
    )


def _machines(job: Job, inventory: Inventory) -> dict[str, Server]:
    """The machine of each server that has ranks: those that name theirs, then the others in order."""
    servers = job.topology.servers
    found: dict[str, Server] = {}
    for i, machine in enumerate(inventory.servers):
        if machine.server is not None:
            if machine.server not in servers:
                raise JobRefused(
                    f"servers[{i}].server: the scenario has no server {machine.server!r}; it has"
                    f" {', '.join(servers)}"
                )
            found[machine.server] = machine
    free = [machine for machine in inventory.servers if machine.server is None]
    needed = dict.fromkeys(rank.server for rank in job.placement.ranks)
    for server in servers:
        if server in needed and server not in found and free:
            found[server] = free.pop(0)
    missing = [server for server in needed if server not in found]
    if missing:
        raise JobRefused(
            f"servers: the ranks of the scenario need {len(needed)} servers, the inventory has"
            f" {len(inventory.servers)}; nobody plays {', '.join(missing)}"
        )
    return found


def _refuse_gpus(job: Job, machines: Mapping[str, Server], ranks: Mapping[str, int]) -> None:
    if job.workers.device is not Device.CUDA:
        return
    for server, count in ranks.items():
        if machines[server].gpus < count:
            raise JobRefused(
                f"workers.device: is cuda, and {count} ranks are on {machines[server].host}, which has"
                f" {machines[server].gpus} GPUs according to the inventory"
            )


def _paths(topology: Topology, used: set[str]) -> dict[str, tuple[str, ...]]:
    """The nodes of the one path between each two servers that have ranks."""
    found = {}
    for a in sorted(used):
        for b in sorted(used - {a}):
            paths = topology.paths(a, b)
            if len(paths) > 1:
                raise JobRefused(
                    f"topology.kind: {len(paths)} paths lead from {a} to {b}; real switches choose one by a"
                    " hash that nobody here knows, so the load of each link would be a guess. If the network"
                    " is not blocking, describe it as a star"
                )
            ends = [port.split("->") for port in paths[0]]
            found[f"{a} {b}"] = (ends[0][0], *(end[1] for end in ends))
    return found

"""The cluster of a scenario: its topology, placement, model and GPU."""

import msgspec

from experiments.errors import UserError
from experiments.scenario.cluster import SequenceExchange, TopologySection
from experiments.scenario.gpu_profile import gpu_named
from experiments.scenario.model_file import model_named
from experiments.scenario.scenario import Scenario
from experiments.workloads.micro import endpoints
from testbed.job import Placement
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.placement import PlacementError, place
from testbed.serving.cache.size_and_use import replica_bytes_per_token
from testbed.topology import ServerShape, Topology, TopologyKind, fat_tree, leaf_spine, rail_optimised, star
from workers.plan import CollectiveKind

SEQUENCES = {
    SequenceExchange.RING: CollectiveKind.RING_ATTENTION,
    SequenceExchange.ULYSSES: CollectiveKind.ALL_TO_ALL,
}


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What a job runs on. With a micro workload, `placement` has one rank per server, without a unit."""

    topology: Topology
    placement: Placement
    model: ModelShape
    gpu: GpuSpeed


def resolve_cluster(scenario: Scenario) -> Cluster:
    """Make the cluster of `scenario`. Raises `UserError`, naming the key, if ranks cannot be placed."""
    topology = _topology(scenario.topology)
    model = model_named(scenario.model)
    placement = endpoints(topology) if scenario.workload.is_micro else _placement(scenario, topology, model)
    return Cluster(topology=topology, placement=placement, model=model, gpu=gpu_named(scenario.gpu))


def nic_bps(section: TopologySection) -> int:
    """Return the rate of a NIC in the model, bit/s."""
    return _bps(section.nic_gbps)


def cache_tokens(scenario: Scenario, cluster: Cluster) -> int | None:
    """Return the size of a replica's prefix cache in tokens, also if it is given in GiB; None: no limit."""
    gib = scenario.serving.cache_gib
    if gib is None:
        return scenario.serving.cache_tokens
    return int(gib * 2**30 / replica_bytes_per_token(cluster.model, cluster.placement.tp))


def _topology(section: TopologySection) -> Topology:
    shape = ServerShape(
        gpus=section.gpus_per_server,
        nics=section.nic_count,
        nvlink_bps=None if section.nvlink_gbps is None else _bps(section.nvlink_gbps),
        pcie_bps=None if section.pcie_gbps is None else _bps(section.pcie_gbps),
    )
    match section.kind:
        case TopologyKind.STAR:
            return star(servers=section.servers, nic_bps=nic_bps(section), shape=shape)
        case TopologyKind.LEAF_SPINE:
            return leaf_spine(
                leaves=section.leaves,
                spines=section.spines,
                hosts_per_leaf=section.below_each_leaf,
                nic_bps=nic_bps(section),
                oversubscription=section.oversubscription,
                shape=shape,
            )
        case TopologyKind.FAT_TREE:
            return fat_tree(
                k=section.k,
                servers=section.servers,
                nic_bps=nic_bps(section),
                oversubscription=section.oversubscription,
                shape=shape,
            )
        case TopologyKind.RAIL_OPTIMISED:
            return rail_optimised(
                servers=section.servers,
                servers_per_group=section.below_each_leaf,
                spines=section.spines,
                nic_bps=nic_bps(section),
                oversubscription=section.oversubscription,
                shape=shape,
            )


def _placement(scenario: Scenario, topology: Topology, model: ModelShape) -> Placement:
    units = scenario.units
    try:
        return place(
            topology,
            prefill_units=units.prefill_units,
            ranks_per_unit=units.ranks_per_unit,
            decode_ranks=units.decode_ranks,
            ranks_per_server=units.ranks_per_server,
            tp=units.tp,
            ep=units.ep,
            sp=units.sp,
            pp=units.pp,
            sequence=SEQUENCES[units.sequence],
            layout=units.layout,
            model=model,
        )
    except PlacementError as error:
        raise UserError(f"scenario {scenario.name}: {error}") from None


def _bps(gbps: float) -> int:
    return round(gbps * 1e9)

"""The cluster of a scenario: its topology, placement, model and GPU."""

import msgspec

from controller.units import NS_PER_US
from experiments.errors import UserError
from experiments.scenario.cluster import TopologySection
from experiments.scenario.gpu_profile import gpu_named
from experiments.scenario.model_file import model_named
from experiments.scenario.scenario import Scenario
from experiments.scenario.units import SequenceExchange
from experiments.workloads.micro import endpoints
from testbed.job import Placement
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.placement import place
from testbed.serving.cache.size_and_use import replica_bytes_per_token
from testbed.topology import (
    NicRates,
    ServerShape,
    Topology,
    TopologyKind,
    fat_tree,
    leaf_spine,
    rail_optimised,
    star,
    wired,
)
from testbed.unit_shape import PlacementError, Pool
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
    if scenario.topology.latency_us is not None:
        topology = topology.with_latency(round(scenario.topology.latency_us * NS_PER_US))
    model = model_named(scenario.model)
    placement = endpoints(topology) if scenario.workload.is_micro else _placement(scenario, topology, model)
    return Cluster(topology=topology, placement=placement, model=model, gpu=gpu_named(scenario.gpu))


def fastest_nic_bps(section: TopologySection) -> int:
    """Return the rate of the fastest NIC in the model, bit/s."""
    if section.kind is TopologyKind.FILE:
        return max(max(wire.up_bps, wire.down_bps) for nics in section.network.nics for wire in nics)
    usual, others = section.nic_rates
    return _bps(max(max(rates) for rates in (usual, *others.values())))


def cache_tokens(scenario: Scenario, cluster: Cluster) -> int | None:
    """Return the size of a replica's prefix cache in tokens, also if it is given in GiB; None: no limit.

    Raises `UserError` if replicas keep different bytes per token, so that GiB are different tokens.
    """
    gib = scenario.serving.cache_gib
    if gib is None:
        return scenario.serving.cache_tokens
    sizes = {replica_bytes_per_token(cluster.model, shape.tp) for shape in cluster.placement.shapes.values()}
    if len(sizes) > 1:
        raise UserError(
            f"scenario {scenario.name}: serving.cache_gib: units of different tp keep different numbers of "
            "copies of a token's KV, so they have no common size in GiB; give serving.cache_tokens"
        )
    return int(gib * 2**30 / sizes.pop())


def _topology(section: TopologySection) -> Topology:
    shape = ServerShape(
        gpus=section.gpu_count,
        nics=section.nic_count,
        nvlink_bps=None if section.nvlink_gbps is None else _bps(section.nvlink_gbps),
        pcie_bps=None if section.pcie_gbps is None else _bps(section.pcie_gbps),
    )
    if section.kind is TopologyKind.FILE:
        return _wired(section, shape)
    usual, others = section.nic_rates
    rates = NicRates(
        usual=tuple(map(_bps, usual)), others={name: tuple(map(_bps, each)) for name, each in others.items()}
    )
    match section.kind:
        case TopologyKind.STAR:
            return star(servers=section.servers, nic_bps=rates, shape=shape)
        case TopologyKind.LEAF_SPINE:
            return leaf_spine(
                leaves=section.leaves,
                spines=section.spines,
                hosts_per_leaf=section.below_each_leaf,
                nic_bps=rates,
                oversubscription=section.oversubscription,
                shape=shape,
            )
        case TopologyKind.FAT_TREE:
            return fat_tree(
                k=section.k,
                servers=section.servers,
                nic_bps=rates,
                oversubscription=section.oversubscription,
                shape=shape,
            )
        case TopologyKind.RAIL_OPTIMISED:
            return rail_optimised(
                servers=section.servers,
                servers_per_group=section.below_each_leaf,
                spines=section.spines,
                nic_bps=rates,
                oversubscription=section.oversubscription,
                shape=shape,
            )


def _wired(section: TopologySection, shape: ServerShape) -> Topology:
    """The topology of a file. Raises `UserError` if some servers cannot reach each other."""
    network = section.network
    if network.inside:
        shape = msgspec.structs.replace(shape, nvlink_bps=network.nvlink_bps)
    try:
        return wired(nics=network.nics, switches=network.switches, between=network.between, shape=shape)
    except ValueError as error:
        raise UserError(f"{section.path}: {error}") from None


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
            decode_tp=units.decode_tp,
            sequence=SEQUENCES[units.sequence],
            layout=units.layout,
            experts=units.expert_groups,
            model=model,
            more=[
                Pool(
                    units=more.prefill_units,
                    ranks=more.ranks_per_unit,
                    tp=more.tp,
                    ep=more.ep,
                    sp=more.sp,
                    pp=more.pp,
                    section=f"units.more[{i}]",
                )
                for i, more in enumerate(units.more)
            ],
        )
    except PlacementError as error:
        raise UserError(f"scenario {scenario.name}: {error}") from None


def _bps(gbps: float) -> int:
    return round(gbps * 1e9)

"""The sections of a scenario for the cluster: the network, and the ranks on it."""

import enum

from pydantic import Field, model_validator

from experiments.scenario.section import Section, refusal
from testbed.placement import Layout
from testbed.topology import TopologyKind
from testbed.topology.kinds import fat_tree_servers

_MEANT_FOR = {
    "leaves": {TopologyKind.LEAF_SPINE},
    "spines": {TopologyKind.LEAF_SPINE, TopologyKind.RAIL_OPTIMISED},
    "hosts_per_leaf": {TopologyKind.LEAF_SPINE, TopologyKind.RAIL_OPTIMISED},
    "k": {TopologyKind.FAT_TREE},
    "oversubscription": {TopologyKind.LEAF_SPINE, TopologyKind.FAT_TREE, TopologyKind.RAIL_OPTIMISED},
}


class TopologySection(Section):
    kind: TopologyKind = Field(default=TopologyKind.STAR, description="shape of the network")
    servers: int = Field(default=10, ge=2, le=4096, description="number of servers, named h1..hN")
    nic_gbps: float = Field(default=50.0, ge=0.001, le=10_000, description="rate of a server's NIC, Gb/s")
    gpus_per_server: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="GPUs of a server; null: as many as there are ranks on it",
    )
    nics_per_server: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="NICs of a server, shared by its GPUs; null: 1, with rail-optimised one per GPU",
    )
    nvlink_gbps: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        description="rate between a GPU and its server's NVSwitch, each way, Gb/s; null: traffic inside a "
        "server is free",
    )
    pcie_gbps: float | None = Field(
        default=None,
        ge=0.001,
        le=100_000,
        description="rate between a GPU and its NIC, each way, Gb/s; null: no limit",
    )
    leaves: int = Field(default=2, ge=1, le=1024, description="leaf switches (leaf-spine only)")
    spines: int = Field(
        default=2, ge=1, le=1024, description="spine switches (leaf-spine and rail-optimised only)"
    )
    hosts_per_leaf: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="servers below a leaf (leaf-spine only; null: servers / leaves, rounded up) or in a "
        "group with rails of its own (rail-optimised only; null: all)",
    )
    k: int = Field(default=4, ge=2, le=64, description="ports of a switch, an even number (fat-tree only)")
    oversubscription: float = Field(
        default=1.0,
        ge=0.01,
        le=64,
        description="rate that the servers below a leaf, edge or rail switch can send at, divided by the "
        "rate of its uplinks",
    )

    @property
    def below_each_leaf(self) -> int:
        """`hosts_per_leaf`, with null resolved."""
        if self.kind is TopologyKind.RAIL_OPTIMISED:
            return self.hosts_per_leaf or self.servers
        return self.hosts_per_leaf or -(-self.servers // self.leaves)

    @property
    def server_count(self) -> int:
        """The number of servers in the topology: a leaf-spine fills every leaf, beyond `servers`."""
        if self.kind is TopologyKind.LEAF_SPINE:
            return self.leaves * self.below_each_leaf
        return self.servers

    @property
    def nic_count(self) -> int:
        """`nics_per_server`, with null resolved."""
        if self.kind is TopologyKind.RAIL_OPTIMISED:
            return self.gpus_per_server or 1
        return self.nics_per_server or 1

    @property
    def without_meaning(self) -> tuple[str, ...]:
        """The keys that differ from their defaults but have no effect in this kind of topology."""
        fields = type(self).model_fields
        return tuple(
            key
            for key, kinds in _MEANT_FOR.items()
            if self.kind not in kinds and getattr(self, key) != fields[key].default
        )

    @model_validator(mode="after")
    def _consistent(self) -> "TopologySection":
        if self.kind is TopologyKind.FAT_TREE:
            if self.k % 2:
                raise refusal(
                    "topology.k", f"the switches of a fat-tree have an even number of ports, not {self.k}"
                )
            if self.servers > fat_tree_servers(self.k):
                raise refusal(
                    "topology.kind",
                    f"this fat-tree has room for {fat_tree_servers(self.k)} servers: raise topology.k",
                    servers=self.servers,
                    k=self.k,
                )
        rails = self.kind is TopologyKind.RAIL_OPTIMISED
        if self.gpus_per_server is None:
            if rails:
                raise refusal("topology.gpus_per_server", "rail-optimised needs it: a rail per GPU")
            several = self.nic_count > 1
            for key, asked in (
                ("nics_per_server", several),
                ("nvlink_gbps", self.nvlink_gbps is not None),
                ("pcie_gbps", self.pcie_gbps is not None),
            ):
                if asked:
                    raise refusal("topology.gpus_per_server", f"must be given with topology.{key}")
        elif rails and self.nics_per_server not in (None, self.gpus_per_server):
            raise refusal(
                "topology.nics_per_server",
                f"with rail-optimised every GPU has a NIC of its own: null or {self.gpus_per_server}",
            )
        elif self.nic_count > self.gpus_per_server:
            raise refusal(
                "topology.nics_per_server",
                f"{self.nic_count} NICs are more than the {self.gpus_per_server} GPUs that use them",
            )
        return self


class SequenceExchange(enum.StrEnum):
    RING = "ring"
    ULYSSES = "ulysses"


class UnitsSection(Section):
    prefill_units: int = Field(default=2, ge=1, le=1024, description="prefill units")
    ranks_per_unit: int = Field(default=4, ge=1, le=1024, description="ranks (GPUs) of one prefill unit")
    decode_ranks: int = Field(default=2, ge=1, le=4096, description="decode workers, one rank each")
    ranks_per_server: int | None = Field(
        default=None, ge=1, le=64, description="most ranks on one server; null: as few as fit them all"
    )
    tp: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="tensor-parallel ranks of a replica; null: depends on the model",
    )
    ep: int | None = Field(
        default=None, ge=1, le=1024, description="expert-parallel ranks of a unit; null: depends on the model"
    )
    sp: int = Field(default=1, ge=1, le=64, description="parts of a sequence, each on its own ranks")
    pp: int = Field(
        default=1, ge=1, le=64, description="pipeline stages of a unit, each with a part of the layers"
    )
    sequence: SequenceExchange = Field(
        default=SequenceExchange.RING,
        description="how the parts of a sequence attend to each other: KV goes round a ring (ring), or each "
        "part gets all tokens of some heads (ulysses)",
    )
    expert_skew: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="exponent of Zipf's law for the popularity of a layer's experts; 0: all alike",
    )
    layout: Layout = Field(
        default=Layout.SPREAD,
        description="spread: consecutive ranks on different servers; packed: one server after the other",
    )

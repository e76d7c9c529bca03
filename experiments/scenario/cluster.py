"""The section of a scenario for the network and the servers."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from experiments.errors import UserError
from experiments.scenario.checked_files import CheckedFiles
from experiments.scenario.nic_rates import rates_of
from experiments.scenario.section import Section, refusal
from experiments.topology_formats.formats import NetworkFormat, file_text, read_network
from experiments.topology_formats.network import Network
from testbed.topology import TopologyKind
from testbed.topology.kinds import fat_tree_servers

_WITH_SWITCH_TIERS = {TopologyKind.LEAF_SPINE, TopologyKind.FAT_TREE, TopologyKind.RAIL_OPTIMISED}

_MEANT_FOR = {
    "servers": {TopologyKind.STAR, *_WITH_SWITCH_TIERS},
    "nic_gbps": {TopologyKind.STAR, *_WITH_SWITCH_TIERS},
    "path": {TopologyKind.FILE},
    "format": {TopologyKind.FILE},
    "leaves": {TopologyKind.LEAF_SPINE},
    "spines": {TopologyKind.LEAF_SPINE, TopologyKind.RAIL_OPTIMISED},
    "hosts_per_leaf": {TopologyKind.LEAF_SPINE, TopologyKind.RAIL_OPTIMISED},
    "k": {TopologyKind.FAT_TREE},
    "oversubscription": _WITH_SWITCH_TIERS,
}


class TopologySection(Section):
    kind: TopologyKind = Field(default=TopologyKind.STAR, description="shape of the network")
    path: str | None = Field(
        default=None,
        description="kind file: the file with the network, relative to this file (from --set: to the working "
        "directory)",
    )
    format: NetworkFormat = Field(
        default=NetworkFormat.LINKS,
        description="kind file: links is our own (from,to,gbps), matrix has rates between servers in Gb/s, "
        "simai and astra-sim are topology files of these simulators",
    )
    servers: int = Field(default=10, ge=2, le=4096, description="number of servers, named h1..hN")
    nic_gbps: float = Field(default=50.0, ge=0.001, le=10_000, description="rate of a server's NIC, Gb/s")
    other_nic_gbps: dict[str, Annotated[float, Field(ge=0.001, le=10_000)]] = Field(
        default={},
        description="rates of NICs that differ, Gb/s: of a NIC of every server (nic1), of servers (h3, "
        "h5-h8) or of a NIC of these (h3.nic1), as in {h5-h8: 25, h3.nic1: 10}",
    )
    latency_us: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="latency of each link to or between switches, model µs; null: as in the file of path, "
        "else 0",
    )
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
        description="NICs of a server: shared by its GPUs, or equally many for each GPU; null: 1, with "
        "rail-optimised one per GPU",
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
        if self.kind is TopologyKind.FILE:
            return len(self.network.nics)
        if self.kind is TopologyKind.LEAF_SPINE:
            return self.leaves * self.below_each_leaf
        return self.servers

    @property
    def network(self) -> Network:
        """What `path` describes. Only for a topology of kind file."""
        assert self.path is not None  # a valid section has one
        return read_network(NETWORK_FILES.content(self.path), self.format, Path(self.path))

    @property
    def nic_count(self) -> int:
        """`nics_per_server`, with null resolved."""
        if self.kind is TopologyKind.FILE:
            return self.network.nics_per_server
        if self.kind is TopologyKind.RAIL_OPTIMISED:
            return self.nics_per_server or self.gpus_per_server or 1
        return self.nics_per_server or 1

    @property
    def nic_rates(self) -> tuple[list[float], dict[str, list[float]]]:
        """The rates of a usual server's NICs, and those of each server that differs, in Gb/s.

        Raises `ValueError` if `other_nic_gbps` names a NIC that is not there, or one twice.
        """
        return rates_of(self.nic_gbps, self.other_nic_gbps, servers=self.server_count, nics=self.nic_count)

    @property
    def without_meaning(self) -> tuple[str, ...]:
        """The keys that differ from their defaults but have no effect in this kind of topology."""
        fields = type(self).model_fields
        return tuple(
            key
            for key, kinds in _MEANT_FOR.items()
            if self.kind not in kinds and getattr(self, key) != fields[key].default
        )

    @property
    def gpu_count(self) -> int | None:
        """The GPUs of a server, also if a file says how many; None: as many as there are ranks on it."""
        if self.kind is TopologyKind.FILE and self.network.inside:
            return self.network.gpus
        return self.gpus_per_server

    @model_validator(mode="after")
    def _consistent(self) -> "TopologySection":
        if self.kind is TopologyKind.FILE:
            self._check_file()
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
        gpus = self.gpu_count
        if gpus is None:
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
        elif rails and self.nic_count % gpus:
            raise refusal(
                "topology.nics_per_server",
                f"with rail-optimised every GPU has NICs of its own: null or a multiple of {gpus}",
            )
        elif self.nic_count > gpus and self.nic_count % gpus:
            raise refusal(
                "topology.nics_per_server",
                f"{self.nic_count} NICs are more than the {gpus} GPUs that use them, and not equally many "
                "for each",
            )
        try:
            _ = self.nic_rates
        except ValueError as error:
            raise refusal("topology.other_nic_gbps", str(error)) from None
        return self

    def _check_file(self) -> None:
        """Read the file, and refuse keys about what it says itself."""
        if self.path is None:
            raise refusal("topology.path", "must be given with topology.kind: file")
        try:
            NETWORK_FILES.check(self.path)
            network = self.network
        except UserError as error:
            raise refusal("topology.path", str(error)) from None
        if self.other_nic_gbps:
            raise refusal("topology.other_nic_gbps", "the file of topology.path has the rates of all NICs")
        if self.nics_per_server not in (None, network.nics_per_server):
            raise refusal(
                "topology.nics_per_server",
                f"a server has {network.nics_per_server} NICs in the file of topology.path",
            )
        if network.nics_per_server > 1 and not network.inside and self.gpus_per_server is None:
            raise refusal(
                "topology.gpus_per_server",
                f"must be given: a server has {network.nics_per_server} NICs in the file of topology.path",
            )
        if network.inside and self.gpus_per_server not in (None, network.gpus):
            raise refusal(
                "topology.gpus_per_server", f"a server has {network.gpus} GPUs in the file of topology.path"
            )
        if network.inside and self.nvlink_gbps is not None:
            raise refusal("topology.nvlink_gbps", "the file of topology.path says what is inside a server")


NETWORK_FILES = CheckedFiles(file_text)

"""The topologies of scenarios, and the ranks on their GPUs."""

import pytest
from serving_world import MOE

from controller.flow import Stage, Transfer
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job, Placement
from testbed.placement import Layout, PlacementError, place
from testbed.record import FlowRow
from testbed.serving.plans.idle_network import drain_s, transfer_traffic
from testbed.topology import ServerShape, Topology, rail_optimised, star

GBPS = 10**9


def resolved(*settings: str, name: str = "quickstart") -> Job:
    return resolve(load_scenario(name, [override(text) for text in settings])).jobs[0]


def refusal(*settings: str) -> str:
    with pytest.raises(UserError) as refused:
        load_scenario("quickstart", [override(text) for text in settings])
    return str(refused.value)


def placed(topology: Topology, *, layout: Layout = Layout.PACKED, per_server: int | None = 2) -> Placement:
    """Place a unit of 4 ranks and 2 decode workers."""
    return place(
        topology,
        prefill_units=1,
        ranks_per_unit=4,
        decode_ranks=2,
        ranks_per_server=per_server,
        tp=None,
        ep=None,
        layout=layout,
        model=MOE,
    )


# --- ranks on GPUs ------------------------------------------------------------------------------------


def test_the_ranks_of_a_server_take_its_gpus_in_order() -> None:
    topology = star(servers=3, nic_bps=GBPS, shape=ServerShape(gpus=2, nvlink_bps=GBPS))
    packed = placed(topology)
    assert [packed.node_of(rank) for rank in range(6)] == [
        "h1.gpu0", "h1.gpu1", "h2.gpu0", "h2.gpu1", "h3.gpu0", "h3.gpu1",
    ]  # fmt: skip
    spread = placed(topology, layout=Layout.SPREAD)
    assert [spread.node_of(rank) for rank in range(6)] == [
        "h1.gpu0", "h2.gpu0", "h3.gpu0", "h1.gpu1", "h2.gpu1", "h3.gpu1",
    ]  # fmt: skip
    assert spread.server_of(5) == "h3"


def test_where_servers_are_single_nodes_their_ranks_share_it() -> None:
    placement = placed(star(servers=2, nic_bps=GBPS), per_server=None)
    assert [spec.node for spec in placement.ranks] == [spec.server for spec in placement.ranks]


def test_more_ranks_on_a_server_than_gpus_are_refused() -> None:
    with pytest.raises(PlacementError, match="4 ranks are to be on h1, which has 2 GPUs") as refused:
        placed(star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=2)), per_server=4)
    assert refused.value.key == "topology.gpus_per_server"


def test_ideal_times_know_the_links_inside_a_server() -> None:
    """1,000 bytes take 1 s over the NICs of two servers (8,000 bit/s), 0.1 s inside one (80,000 bit/s)."""
    topology = rail_optimised(
        servers=3,
        servers_per_group=3,
        spines=1,
        nic_bps=8_000,
        oversubscription=1.0,
        shape=ServerShape(gpus=2, nics=2, nvlink_bps=80_000),
    )
    placement = placed(topology)

    def seconds(*pairs: tuple[int, int]) -> float:
        transfers = [
            Transfer(id=f"{src}-{dst}", stage=Stage.P2D, src=src, dst=dst, size_bytes=1000)
            for src, dst in pairs
        ]
        return drain_s(transfer_traffic(transfers, placement), topology)

    assert seconds((0, 1)) == pytest.approx(0.1)
    assert seconds((0, 2)) == pytest.approx(1.0)
    assert seconds((0, 2), (1, 3)) == pytest.approx(1.0)  # a rail each
    assert seconds((0, 3), (1, 3)) == pytest.approx(2.0)  # both leave by NIC 1
    assert seconds((0, 2), (0, 3)) == pytest.approx(1.0)  # one each by NIC 0 and NIC 1


# --- keys of the section ------------------------------------------------------------------------------


def test_a_fat_tree_of_a_scenario() -> None:
    """10 servers with k = 4 take 3 pods. Oversubscription is 2:1 at the edge."""
    topology = resolved("topology.kind=fat-tree", "topology.oversubscription=2").topology
    assert topology.kind == "fat-tree"
    assert len(topology.servers) == 10
    assert len(topology.switches) == 6 + 6 + 4
    assert topology.link("edge1->agg1").bps == 25 * GBPS


def test_a_rail_optimised_network_of_a_scenario() -> None:
    """4 servers of 4 GPUs, all in one group of 4 rails with 2 spines above."""
    job = resolved(
        "fabric=sim",
        "topology.kind=rail-optimised",
        "topology.servers=4",
        "topology.gpus_per_server=4",
        "topology.nvlink_gbps=900",
    )
    assert job.topology.shape == ServerShape(gpus=4, nics=4, nvlink_bps=900 * GBPS)
    assert job.topology.switches == ("g1.rail0", "g1.rail1", "g1.rail2", "g1.rail3", "spine1", "spine2")
    assert job.topology.link("g1.rail0->spine1").bps == 100 * GBPS
    assert [job.placement.node_of(rank) for rank in (0, 4, 9)] == ["h1.gpu0", "h1.gpu1", "h2.gpu2"]


def test_groups_of_servers_have_rails_of_their_own() -> None:
    topology = resolved(
        "fabric=sim",
        "topology.kind=rail-optimised",
        "topology.servers=10",
        "topology.gpus_per_server=2",
        "topology.hosts_per_leaf=4",
    ).topology
    assert topology.neighbours("h9.nic1") == ("g3.rail1",)


def test_servers_with_parts_in_any_kind() -> None:
    shape = resolved(
        "fabric=sim", "topology.gpus_per_server=8", "topology.nics_per_server=2", "topology.pcie_gbps=256"
    ).topology.shape
    assert shape == ServerShape(gpus=8, nics=2, pcie_bps=256 * GBPS)


def test_more_ranks_than_gpus_are_refused_by_the_key() -> None:
    """10 ranks are packed, 5 on a server."""
    with pytest.raises(UserError, match=r"quickstart: topology\.gpus_per_server: 5 ranks are to be on h1"):
        resolved("topology.gpus_per_server=4", "units.ranks_per_server=5", "units.layout=packed")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["kind=fat-tree", "k=5"],
            "topology.k: the switches of a fat-tree have an even number of ports, not 5",
        ),
        (
            ["kind=fat-tree", "servers=17"],
            "topology.kind: this fat-tree has room for 16 servers: raise topology.k; topology.servers is 17"
            " (--set topology.servers=17); topology.k is 4 by default",
        ),
        (["kind=rail-optimised"], "topology.gpus_per_server: rail-optimised needs it"),
        (["nics_per_server=2"], "topology.gpus_per_server: must be given with topology.nics_per_server"),
        (["nvlink_gbps=1"], "topology.gpus_per_server: must be given with topology.nvlink_gbps"),
        (["pcie_gbps=1"], "topology.gpus_per_server: must be given with topology.pcie_gbps"),
        (
            ["gpus_per_server=2", "nics_per_server=4"],
            "topology.nics_per_server: 4 NICs are more than the 2 GPUs that use them",
        ),
        (
            ["kind=rail-optimised", "gpus_per_server=8", "nics_per_server=4"],
            "topology.nics_per_server: with rail-optimised every GPU has a NIC of its own: null or 8",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(settings: list[str], told: str) -> None:
    assert told in refusal(*(f"topology.{setting}" for setting in settings))


def test_an_odd_k_means_nothing_to_a_star() -> None:
    assert resolved("topology.k=5").topology.kind == "star"


# --- whole runs on the simulated fabric ---------------------------------------------------------------


def played(name: str, *settings: str) -> tuple[FlowRow, ...]:
    job = resolved("fabric=sim", "policies=[fair]", *settings, name=name)
    return FABRICS["sim"]().run(job, lambda _: None).flows


def test_collectives_of_a_unit_in_one_server_stay_on_its_nvswitch() -> None:
    """The units are on servers h1 to h3 and the decode workers on h4, so every S3 flow crosses one rail."""
    rows = played("rail-optimised", "workload.requests=2", "model=qwen3-30b-a3b")
    inside = {port for row in rows if row.stage is Stage.COLLECTIVE for port in row.path}
    assert inside
    assert all(".nvs" in port for port in inside)
    delivered = [row for row in rows if row.stage is Stage.P2D]
    assert delivered
    for row in delivered:
        uplinks = [port for port in row.path if port.startswith(f"{row.src_server}.nic")]
        rail = f"rail{row.dst % 8}"
        assert uplinks == [f"{row.src_server}.nic{row.dst % 8}->g1.{rail}"]


FOUR_FLOWS = "workload.flows=[{}]".format(
    ", ".join(f"{{id: f{i}, src: h{1 + i}, dst: h{9 + i}, bytes: 1250000000}}" for i in range(4))
)


def test_least_loaded_paths_spare_flows_the_collisions_of_the_hash() -> None:
    """Four flows of 1.25 GB at 10 Gb/s go from pod 1 to pod 3 over 4 cores: 1 s each on separate paths.

    Each edge switch has two senders, and there are two aggregation switches to choose from.
    """
    tree = ("topology.kind=fat-tree", "topology.servers=16", FOUR_FLOWS)
    apart = played("two-flows", *tree, "simulation.paths=least-loaded")
    assert [row.finish_ns for row in apart] == [10**9] * 4
    hashed = played("two-flows", *tree)
    assert max(row.finish_ns for row in hashed) == 2 * 10**9

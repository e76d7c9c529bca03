"""The topologies of scenarios, and the ranks on their GPUs."""

import pytest
from serving_world import MOE

from controller.flow import Stage, Transfer
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job, Placement
from testbed.placement import Layout, place
from testbed.record import FlowRow
from testbed.serving.plans.idle_network import drain_s, transfer_traffic
from testbed.topology import ServerShape, Topology, rail_optimised, star
from testbed.unit_shape import PlacementError

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
    assert refused.value.reason.endswith("ranks in all, and 4 GPUs")


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
            ["gpus_per_server=2", "nics_per_server=3"],
            "topology.nics_per_server: 3 NICs are more than the 2 GPUs that use them, and not equally many",
        ),
        (
            ["kind=rail-optimised", "gpus_per_server=8", "nics_per_server=4"],
            "topology.nics_per_server: with rail-optimised every GPU has NICs of its own: null or a multiple",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(settings: list[str], told: str) -> None:
    assert told in refusal(*(f"topology.{setting}" for setting in settings))


def test_rates_of_other_nics_go_from_the_general_to_the_particular() -> None:
    """NIC 1 of all servers, then all NICs of h2 to h4, then one NIC of h3."""
    topology = resolved(
        "fabric=sim",
        "topology.nic_gbps=100",
        "topology.gpus_per_server=2",
        "topology.nics_per_server=2",
        "topology.other_nic_gbps={h3.nic0: 1, h2-h4: 25, nic1: 50}",
    ).topology
    rates = {link.src: link.bps / GBPS for link in topology.links if link.dst == "s1"}
    assert [rates[f"h{i}.nic{n}"] for i in range(1, 6) for n in (0, 1)] == [
        *(100, 50),
        *(25, 25),
        *(1, 25),
        *(25, 25),
        *(100, 50),
    ]


def test_one_slow_server_among_plain_ones() -> None:
    topology = resolved("fabric=sim", "topology.other_nic_gbps={h3: 10}").topology
    assert [topology.link(f"h{i}->s1").bps / GBPS for i in (2, 3, 4)] == [50, 10, 50]
    assert topology.link("s1->h3").bps == 10 * GBPS


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ("{h11: 10}", "'h11' are not servers of this topology (h1..h10)"),
        ("{h5-h3: 10}", "'h5-h3' are not servers of this topology (h1..h10)"),
        ("{nic1: 10}", "'nic1': a server has 1 NIC, numbered from 0"),
        ("{h3.nic4: 10}", "'h3.nic4': a server has 1 NIC, numbered from 0"),
        ("{leaf1: 10}", "'leaf1' is none of nic1, h3, h5-h8 and h3.nic1"),
        ("{h1-h4: 10, h3: 20}", "'h1-h4' and 'h3' both give the rate of the same NIC"),
        ("{h3.nic0: 10, h1-h3.nic0: 20}", "'h3.nic0' and 'h1-h3.nic0' both give the rate of the same NIC"),
    ],
)
def test_a_rate_of_a_nic_that_is_not_there_is_refused(others: str, told: str) -> None:
    assert f"topology.other_nic_gbps: {told}" in refusal(f"topology.other_nic_gbps={others}")


def test_a_rate_out_of_its_bounds_is_refused() -> None:
    assert "topology.other_nic_gbps.h3" in refusal("topology.other_nic_gbps={h3: 0}")


def test_a_gpu_with_several_nics_is_noted() -> None:
    keys = ("topology.gpus_per_server=1", "topology.nics_per_server=2", "fabric=sim")
    notes = resolve(load_scenario("quickstart", [override(key) for key in keys])).notes
    assert any(note.startswith("topology.nics_per_server: a GPU has 2 NICs, and each") for note in notes)


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


def test_a_flow_to_a_slow_server_takes_as_long_as_its_nic() -> None:
    """1.25 GB at 10 Gb/s is 1 s, at 2 Gb/s 5 s."""
    flows = "workload.flows=[{}]".format(
        ", ".join(f"{{id: f{i}, src: h{i}, dst: h{i + 1}, bytes: 1250000000}}" for i in (1, 3))
    )
    rows = played("two-flows", flows, "topology.servers=4", "topology.other_nic_gbps={h4: 2}")
    assert {row.id: row.finish_ns for row in rows} == {"f1": 10**9, "f3": 5 * 10**9}


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

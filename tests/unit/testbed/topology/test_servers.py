"""The parts of a server, GPUs, NICs and an NVSwitch, and rails that join NICs with the same number."""

import pytest

from testbed.topology import NicRates, ServerShape, Topology, fat_tree, leaf_spine, rail_optimised, star

GBPS = 10**9
NVLINK = 3600 * GBPS
PCIE = 500 * GBPS


def rails(
    *,
    servers: int = 4,
    per_group: int = 2,
    gpus: int = 2,
    oversubscription: float = 1.0,
    nvlink: int | None = NVLINK,
    pcie: int | None = None,
) -> Topology:
    """By default two groups of two servers with two GPUs and two NICs each, below two spines."""
    return rail_optimised(
        servers=servers,
        servers_per_group=per_group,
        spines=2,
        nic_bps=400 * GBPS,
        oversubscription=oversubscription,
        shape=ServerShape(gpus=gpus, nics=gpus, nvlink_bps=nvlink, pcie_bps=pcie),
    )


def only(topology: Topology, src: str, dst: str) -> tuple[str, ...]:
    (path,) = topology.paths(src, dst)
    return path


# --- what a server is -------------------------------------------------------------------------------


def test_a_server_with_one_nic_and_no_links_inside_is_one_node() -> None:
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=4))
    assert [topology.endpoint("h1", gpu) for gpu in range(4)] == ["h1"] * 4
    assert only(topology, "h1", "h2") == ("h1->s1", "s1->h2")
    assert topology.links == star(servers=2, nic_bps=GBPS).links


def test_gpus_without_links_of_their_own_are_at_their_nic() -> None:
    """8 GPUs on 2 NICs: the first four use NIC 0."""
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=8, nics=2))
    assert [topology.endpoint("h1", gpu) for gpu in (0, 3, 4, 7)] == [
        "h1.nic0",
        "h1.nic0",
        "h1.nic1",
        "h1.nic1",
    ]
    assert only(topology, "h1.nic0", "h2.nic1") == ("h1.nic0->s1", "s1->h2.nic1")


def test_every_nic_of_a_server_has_a_link_to_its_leaf() -> None:
    """4 NICs below a leaf with two uplinks, oversubscribed 2:1: 4 * 100 / (2 * 2) = 100 Gb/s per uplink."""
    topology = leaf_spine(
        leaves=2,
        spines=2,
        hosts_per_leaf=2,
        nic_bps=100 * GBPS,
        oversubscription=2.0,
        shape=ServerShape(gpus=2, nics=2),
    )
    assert topology.link("h3.nic1->leaf2").bps == topology.link("leaf2->h3.nic1").bps == 100 * GBPS
    assert topology.link("leaf1->spine2").bps == 100 * GBPS


def test_traffic_inside_a_server_crosses_the_nvswitch_and_no_nic() -> None:
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=4, nvlink_bps=NVLINK, pcie_bps=PCIE))
    assert only(topology, "h1.gpu0", "h1.gpu3") == ("h1.gpu0->h1.nvs", "h1.nvs->h1.gpu3")
    assert topology.link("h1.nvs->h1.gpu3").bps == NVLINK
    assert only(topology, "h1.gpu2", "h1.gpu2") == ()


@pytest.mark.parametrize("pcie", [None, PCIE])
def test_traffic_inside_a_server_without_an_nvswitch_is_free(pcie: int | None) -> None:
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=2, nics=2, pcie_bps=pcie))
    assert only(topology, topology.endpoint("h1", 0), topology.endpoint("h1", 1)) == ()


def test_traffic_between_servers_crosses_pcie_where_there_is_such_a_link() -> None:
    """GPUs 0 and 1 share NIC 0, each over a link of its own."""
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=2, pcie_bps=PCIE))
    assert only(topology, "h1.gpu1", "h2.gpu0") == (
        "h1.gpu1->h1.nic0",
        "h1.nic0->s1",
        "s1->h2.nic0",
        "h2.nic0->h2.gpu0",
    )
    assert topology.link("h2.nic0->h2.gpu0").bps == PCIE


def test_without_a_pcie_link_a_way_out_begins_at_the_nic() -> None:
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=2, nvlink_bps=NVLINK))
    assert only(topology, "h1.gpu1", "h2.gpu0") == ("h1.nic0->s1", "s1->h2.nic0")


def test_a_gpu_that_a_server_does_not_have_has_no_place() -> None:
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=2, nics=2))
    with pytest.raises(ValueError, match="h1 has no GPU 2, only 2"):
        topology.endpoint("h1", 2)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"nics": 2}, "needs a number of GPUs"),
        ({"nvlink_bps": NVLINK}, "needs a number of GPUs"),
        ({"gpus": 2, "nics": 3}, "3 NICs for 2 GPUs: there must be 1 to 2, or equally many for each GPU"),
        ({"gpus": 2, "nics": 0}, "0 NICs for 2 GPUs"),
    ],
)
def test_servers_that_cannot_be_are_refused(shape: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ServerShape(**shape)


# --- rails --------------------------------------------------------------------------------------------


def test_nics_of_one_number_of_a_group_share_a_rail() -> None:
    topology = rails()
    assert topology.switches == ("g1.rail0", "g1.rail1", "g2.rail0", "g2.rail1", "spine1", "spine2")
    assert topology.neighbours("h2.nic1") == ("g1.rail1",)
    assert topology.neighbours("h3.nic1") == ("g2.rail1",)
    assert topology.neighbours("g1.rail0") == ("h1.nic0", "h2.nic0", "spine1", "spine2")


def test_two_gpus_of_one_rail_meet_at_its_switch() -> None:
    assert only(rails(), "h1.gpu1", "h2.gpu1") == ("h1.nic1->g1.rail1", "g1.rail1->h2.nic1")


def test_traffic_changes_rails_over_the_nvswitch_of_the_sender() -> None:
    assert only(rails(pcie=PCIE), "h1.gpu0", "h2.gpu1") == (
        "h1.gpu0->h1.nvs",
        "h1.nvs->h1.gpu1",
        "h1.gpu1->h1.nic1",
        "h1.nic1->g1.rail1",
        "g1.rail1->h2.nic1",
        "h2.nic1->h2.gpu1",
    )


def test_traffic_to_another_group_takes_the_rail_of_the_receiver_and_a_spine() -> None:
    assert list(rails().paths("h1.gpu0", "h4.gpu1")) == [
        (
            "h1.gpu0->h1.nvs",
            "h1.nvs->h1.gpu1",
            "h1.nic1->g1.rail1",
            f"g1.rail1->spine{s}",
            f"spine{s}->g2.rail1",
            "g2.rail1->h4.nic1",
        )
        for s in (1, 2)
    ]


def test_without_an_nvswitch_traffic_changes_rails_over_the_spines() -> None:
    assert list(rails(nvlink=None).paths("h1.nic0", "h2.nic1")) == [
        ("h1.nic0->g1.rail0", f"g1.rail0->spine{s}", f"spine{s}->g1.rail1", "g1.rail1->h2.nic1")
        for s in (1, 2)
    ]


def test_oversubscription_divides_the_uplinks_of_a_rail() -> None:
    """2 NICs of 400 Gb/s on a rail with two uplinks, 4:1: 2 * 400 / (2 * 4) = 100 Gb/s per uplink."""
    assert rails(oversubscription=4.0).link("g1.rail0->spine1").bps == 100 * GBPS


def test_a_last_group_of_fewer_servers_has_rails_too() -> None:
    topology = rails(servers=3)
    assert topology.neighbours("g2.rail0") == ("h3.nic0", "spine1", "spine2")


def test_servers_of_one_gpu_make_a_single_rail() -> None:
    topology = rails(gpus=1, nvlink=None)
    assert only(topology, "h1", "h2") == ("h1->g1.rail0", "g1.rail0->h2")


def test_rails_need_a_nic_for_every_gpu() -> None:
    with pytest.raises(ValueError, match="NICs for each GPU, not 1 for 2"):
        rail_optimised(
            servers=2,
            servers_per_group=2,
            spines=1,
            nic_bps=GBPS,
            oversubscription=1.0,
            shape=ServerShape(gpus=2),
        )


# --- several NICs for each GPU ----------------------------------------------------------------------


def test_a_gpu_with_two_nics_has_a_path_by_each() -> None:
    """Its i-th NIC talks to the i-th NIC of the other GPU. Both share the GPU's PCIe link."""
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=2, nics=4, pcie_bps=PCIE))
    assert list(topology.paths("h1.gpu1", "h2.gpu0")) == [
        ("h1.gpu1->h1.pcie1", "h1.nic2->s1", "s1->h2.nic0", "h2.pcie0->h2.gpu0"),
        ("h1.gpu1->h1.pcie1", "h1.nic3->s1", "s1->h2.nic1", "h2.pcie0->h2.gpu0"),
    ]
    assert topology.link("h1.gpu1->h1.pcie1").bps == PCIE


def test_a_gpu_with_two_nics_and_no_links_inside_is_a_node_without_a_link() -> None:
    topology = star(servers=2, nic_bps=GBPS, shape=ServerShape(gpus=1, nics=2))
    assert topology.endpoint("h1", 0) == "h1.gpu0"
    assert list(topology.paths("h1.gpu0", "h2.gpu0")) == [
        ("h1.nic0->s1", "s1->h2.nic0"),
        ("h1.nic1->s1", "s1->h2.nic1"),
    ]
    assert topology.nic_bps("h1.gpu0") == (GBPS, GBPS)


def test_every_nic_of_a_gpu_has_a_rail_of_its_own() -> None:
    """Towards GPU 1 of another server, traffic of GPU 0 leaves by the NICs of GPU 1: rails 2 and 3."""
    topology = rail_optimised(
        servers=4,
        servers_per_group=4,
        spines=2,
        nic_bps=400 * GBPS,
        oversubscription=1.0,
        shape=ServerShape(gpus=2, nics=4, nvlink_bps=NVLINK),
    )
    assert topology.switches[:5] == ("g1.rail0", "g1.rail1", "g1.rail2", "g1.rail3", "spine1")
    assert list(topology.paths("h1.gpu0", "h3.gpu0")) == [
        ("h1.nic0->g1.rail0", "g1.rail0->h3.nic0"),
        ("h1.nic1->g1.rail1", "g1.rail1->h3.nic1"),
    ]
    over = ("h1.gpu0->h1.nvs", "h1.nvs->h1.gpu1")
    assert list(topology.paths("h1.gpu0", "h3.gpu1")) == [
        (*over, "h1.nic2->g1.rail2", "g1.rail2->h3.nic2"),
        (*over, "h1.nic3->g1.rail3", "g1.rail3->h3.nic3"),
    ]


def test_paths_by_nic_are_counted_over_the_spines() -> None:
    topology = leaf_spine(
        leaves=2,
        spines=3,
        hosts_per_leaf=1,
        nic_bps=GBPS,
        oversubscription=1.0,
        shape=ServerShape(gpus=1, nics=2),
    )
    paths = topology.paths("h1.gpu0", "h2.gpu0")
    assert len(paths) == 6
    assert [(path[0], path[1]) for path in paths] == [
        (f"h1.nic{nic}->leaf1", f"leaf1->spine{spine}") for nic in (0, 1) for spine in (1, 2, 3)
    ]
    assert paths[-1] == paths[5]
    assert paths[1:3] == (paths[1], paths[2])


# --- NICs of different rates ------------------------------------------------------------------------

RATES = NicRates(usual=(100 * GBPS, 50 * GBPS), others={"h2": (10 * GBPS, 20 * GBPS)})
TWO_NICS = ServerShape(gpus=2, nics=2)


def test_a_nic_has_its_own_rate_each_way() -> None:
    topology = star(servers=3, nic_bps=RATES, shape=TWO_NICS)
    rates = {link.src: link.bps // GBPS for link in topology.links if link.dst == "s1"}
    assert rates == {
        "h1.nic0": 100,
        "h1.nic1": 50,
        "h2.nic0": 10,
        "h2.nic1": 20,
        "h3.nic0": 100,
        "h3.nic1": 50,
    }
    assert topology.link("s1->h2.nic1").bps == 20 * GBPS
    assert topology.nic_bps("h2.nic1") == (20 * GBPS,)


def test_links_between_switches_are_sized_for_usual_servers() -> None:
    """A server can send 150 Gb/s. Two below a leaf with two uplinks, oversubscribed 3:1: 50 Gb/s each."""
    leaves = leaf_spine(
        leaves=2, spines=2, hosts_per_leaf=2, nic_bps=RATES, oversubscription=3.0, shape=TWO_NICS
    )
    assert {leaves.link(f"leaf{i}->spine1").bps // GBPS for i in (1, 2)} == {50}
    tree = fat_tree(k=4, servers=4, nic_bps=RATES, oversubscription=3.0, shape=TWO_NICS)
    assert tree.link("edge1->agg1").bps == 50 * GBPS
    assert tree.link("agg1->core1").bps == 150 * GBPS


def test_a_rail_is_sized_for_its_own_nics() -> None:
    """Two servers on each rail, and one spine: 200 Gb/s for NIC 0 and 100 Gb/s for NIC 1."""
    topology = rail_optimised(
        servers=2, servers_per_group=2, spines=1, nic_bps=RATES, oversubscription=1.0, shape=TWO_NICS
    )
    assert [topology.link(f"g1.rail{i}->spine1").bps // GBPS for i in (0, 1)] == [200, 100]


def test_rates_of_other_nics_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rates for 1 NICs of a server"):
        star(servers=2, nic_bps=RATES)

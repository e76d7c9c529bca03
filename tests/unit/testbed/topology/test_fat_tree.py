"""k-ary fat-trees: their switches, rates, and the paths inside a pod and between pods."""

import random

import pytest

from testbed.topology import ServerShape, Topology, fat_tree

GBPS = 10**9


def tree(*, servers: int = 16, oversubscription: float = 1.0) -> Topology:
    """A tree with k = 4: pods of 2 edge and 2 aggregation switches with 4 servers, and 4 core switches."""
    return fat_tree(k=4, servers=servers, nic_bps=GBPS, oversubscription=oversubscription)


def test_a_tree_of_four_port_switches_has_16_servers_and_20_switches() -> None:
    """16 links to servers, 4 x 4 from edge to aggregation, 8 x 2 from aggregation to core, all both ways."""
    topology = tree()
    assert topology.servers[-1] == "h16"
    assert [sum(name.startswith(tier) for name in topology.switches) for tier in ("edge", "agg", "core")] == [
        8,
        8,
        4,
    ]
    assert len(topology.links) == 2 * (16 + 16 + 16)
    assert {link.bps for link in topology.links} == {GBPS}


def test_no_switch_has_more_ports_than_k() -> None:
    topology = fat_tree(k=6, servers=54, nic_bps=GBPS)
    assert {len(topology.neighbours(switch)) for switch in topology.switches} == {6}


def test_below_one_edge_switch_there_is_one_path() -> None:
    assert list(tree().paths("h1", "h2")) == [("h1->edge1", "edge1->h2")]


def test_inside_a_pod_there_is_a_path_over_each_aggregation_switch() -> None:
    assert list(tree().paths("h1", "h3")) == [
        ("h1->edge1", "edge1->agg1", "agg1->edge2", "edge2->h3"),
        ("h1->edge1", "edge1->agg2", "agg2->edge2", "edge2->h3"),
    ]


def test_between_pods_there_is_a_path_over_each_core_switch() -> None:
    """Aggregation 1 of every pod is wired to cores 1 and 2, aggregation 2 to cores 3 and 4."""
    assert list(tree().paths("h1", "h16")) == [
        ("h1->edge1", f"edge1->{up}", f"{up}->{core}", f"{core}->{down}", f"{down}->edge8", "edge8->h16")
        for up, core, down in (
            ("agg1", "core1", "agg7"),
            ("agg1", "core2", "agg7"),
            ("agg2", "core3", "agg8"),
            ("agg2", "core4", "agg8"),
        )
    ]


def test_oversubscription_slows_the_links_between_edge_and_aggregation_only() -> None:
    topology = tree(oversubscription=4.0)
    assert topology.link("edge1->agg1").bps == topology.link("agg1->edge1").bps == GBPS // 4
    assert topology.link("agg1->core1").bps == topology.link("h1->edge1").bps == GBPS


def test_links_above_servers_of_two_nics_are_twice_as_fast() -> None:
    topology = fat_tree(k=4, servers=16, nic_bps=GBPS, shape=ServerShape(gpus=4, nics=2))
    assert topology.link("h1.nic0->edge1").bps == topology.link("h1.nic1->edge1").bps == GBPS
    assert topology.link("edge1->agg1").bps == topology.link("agg1->core1").bps == 2 * GBPS


def test_servers_fill_the_pods_in_order_and_pods_without_servers_are_left_out() -> None:
    """6 servers: 4 in the first pod, 2 below the first edge switch of the second."""
    topology = tree(servers=6)
    assert topology.neighbours("h4") == ("edge2",)
    assert topology.neighbours("h6") == ("edge3",)
    assert "edge4" in topology.switches
    assert "edge5" not in topology.switches
    assert len(topology.paths("h1", "h6")) == 4


@pytest.mark.parametrize(
    ("k", "servers", "reason"),
    [
        (5, 4, "even number of ports, not 5"),
        (0, 1, "even number of ports, not 0"),
        (4, 17, "a fat-tree of k=4 has room for 16 servers, not 17"),
    ],
)
def test_trees_that_cannot_be_are_refused(k: int, servers: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fat_tree(k=k, servers=servers, nic_bps=GBPS)


def test_a_large_tree_makes_the_paths_it_is_asked_for() -> None:
    """k = 16, 2,000 random pairs of 1,024 servers: between pods there are 64 paths of 6 links."""
    topology = fat_tree(k=16, servers=1024, nic_bps=GBPS)
    draw = random.Random(1)
    for _ in range(2000):
        src, dst = draw.sample(topology.servers, 2)
        paths = topology.paths(src, dst)
        path = paths[draw.randrange(len(paths))]
        assert (len(paths), len(path)) in {(1, 2), (8, 4), (64, 6)}
        assert [port.split("->")[0] for port in path[1:]] == [port.split("->")[1] for port in path[:-1]]
        assert (path[0].split("->")[0], path[-1].split("->")[1]) == (src, dst)

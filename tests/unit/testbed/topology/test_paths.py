"""Stars and leaf-spines: their links, rates and equal-cost shortest paths."""

import pytest

from testbed.topology import Link, Topology, leaf_spine, star

GBPS = 10**9


def two_tiers(*, oversubscription: float = 1.0) -> Topology:
    return leaf_spine(
        leaves=2, spines=4, hosts_per_leaf=8, nic_bps=100 * GBPS, oversubscription=oversubscription
    )


def test_servers_of_a_star_are_two_links_apart() -> None:
    topology = star(servers=3, nic_bps=GBPS)
    assert topology.servers == ("h1", "h2", "h3")
    assert list(topology.paths("h1", "h3")) == [("h1->s1", "s1->h3")]
    assert {link.id for link in topology.links} == {
        "h1->s1", "s1->h1", "h2->s1", "s1->h2", "h3->s1", "s1->h3",
    }  # fmt: skip
    assert {link.bps for link in topology.links} == {GBPS}


def test_leaf_spine_numbers_servers_leaf_by_leaf() -> None:
    topology = two_tiers()
    assert topology.servers == tuple(f"h{i}" for i in range(1, 17))
    assert topology.neighbours("h8") == ("leaf1",)
    assert topology.neighbours("h9") == ("leaf2",)
    assert topology.neighbours("leaf1")[-4:] == ("spine1", "spine2", "spine3", "spine4")


def test_between_leaves_there_is_a_path_over_each_spine_in_a_fixed_order() -> None:
    paths = two_tiers().paths("h1", "h9")
    assert list(paths) == [
        ("h1->leaf1", f"leaf1->spine{s}", f"spine{s}->leaf2", "leaf2->h9") for s in (1, 2, 3, 4)
    ]


def test_paths_are_in_the_order_of_their_names() -> None:
    """As text, spine10 is before spine2. A seed must draw the same path however paths are stored."""
    topology = leaf_spine(leaves=2, spines=11, hosts_per_leaf=1, nic_bps=GBPS, oversubscription=1.0)
    crossed = [path[1] for path in topology.paths("h1", "h2")]
    assert crossed == [f"leaf1->spine{s}" for s in (1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)]


def test_a_path_can_be_asked_for_by_its_number() -> None:
    paths = two_tiers().paths("h1", "h9")
    assert len(paths) == 4
    assert paths[-1] == paths[3] == ("h1->leaf1", "leaf1->spine4", "spine4->leaf2", "leaf2->h9")
    assert paths[1:3] == (paths[1], paths[2])
    with pytest.raises(IndexError):
        paths[4]


def test_inside_a_leaf_there_is_one_path() -> None:
    assert list(two_tiers().paths("h1", "h2")) == [("h1->leaf1", "leaf1->h2")]


def test_traffic_of_a_server_to_itself_crosses_nothing() -> None:
    assert list(two_tiers().paths("h1", "h1")) == [()]


@pytest.mark.parametrize(("oversubscription", "uplink_gbps"), [(1.0, 200), (2.0, 100), (4.0, 50)])
def test_oversubscription_divides_the_uplinks(oversubscription: float, uplink_gbps: int) -> None:
    """Eight servers of 100 Gb/s below a leaf with four uplinks: 200 Gb/s each without oversubscription."""
    topology = two_tiers(oversubscription=oversubscription)
    assert topology.link("leaf1->spine1").bps == uplink_gbps * GBPS
    assert topology.link("spine4->leaf2").bps == uplink_gbps * GBPS
    assert topology.link("h1->leaf1").bps == 100 * GBPS


def test_every_link_goes_both_ways() -> None:
    for topology in (star(servers=4, nic_bps=GBPS), two_tiers()):
        links = {(link.src, link.dst): link.bps for link in topology.links}
        assert len(links) == len(topology.links)
        assert all(links[dst, src] == bps for (src, dst), bps in links.items())


def test_servers_on_switches_that_nothing_connects_have_no_path() -> None:
    ends = [("h1", "s1"), ("s1", "h1"), ("h2", "s2"), ("s2", "h2")]
    topology = Topology(
        kind="custom",
        servers=("h1", "h2"),
        switches=("s1", "s2"),
        links=tuple(Link(src=a, dst=b, bps=1) for a, b in ends),
    )
    with pytest.raises(ValueError, match="no path from s1 to s2"):
        topology.paths("h1", "h2")
    with pytest.raises(ValueError, match="no path from s1 to s2"):
        topology.loads({("h1", "h2"): 1.0})


@pytest.mark.parametrize("stranger", ["h17", "leaf1", "h1.gpu0"])
def test_only_servers_have_paths_where_servers_are_single_nodes(stranger: str) -> None:
    with pytest.raises(ValueError, match=f"no path: {stranger} is not an endpoint of this leaf-spine"):
        two_tiers().paths("h1", stranger)


def test_a_name_that_is_no_link_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        two_tiers().link("h1->h2")

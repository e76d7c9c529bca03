"""Where packets go: every server reaches every other, and a connection takes the path it was given."""

import pytest
from flow_table import Fabric, Packet, connection, reverse, wiring_of

from controller.openflow import RuleBook, Wiring, choose_path
from testbed.topology import Topology, fat_tree, leaf_spine, star

GBPS = 10**9


def two_tiers(*, leaves: int = 3, spines: int = 4, hosts: int = 2) -> Topology:
    return leaf_spine(leaves=leaves, spines=spines, hosts_per_leaf=hosts, nic_bps=GBPS, oversubscription=1.0)


def fabric_of(rules: RuleBook) -> Fabric:
    """All switches connected and in their base state."""
    fabric = Fabric(rules.wiring)
    for switch in rules.wiring.bridges:
        fabric.apply(rules.everything(switch))
    return fabric


def lanes(wiring: Wiring, count: int) -> list[tuple[str, ...]]:
    return [choose_path(wiring, "h1", "h3", f"S3.0-2.{i}#0") for i in range(count)]


def three_tiers() -> Topology:
    return fat_tree(k=4, servers=16, nic_bps=GBPS)


@pytest.mark.parametrize(
    "topology", [star(servers=5, nic_bps=GBPS), two_tiers(), three_tiers()], ids=lambda t: t.kind
)
def test_every_server_reaches_every_other_before_anything_is_registered(topology: Topology) -> None:
    wiring = wiring_of(topology)
    fabric = fabric_of(RuleBook(wiring))
    for pair, paths in wiring.paths.items():
        src, dst = pair.split()
        journey = fabric.send(connection(wiring, src, dst))
        assert journey.arrived
        assert journey.nodes in paths


def test_servers_of_one_leaf_meet_there() -> None:
    wiring = wiring_of(two_tiers())
    assert fabric_of(RuleBook(wiring)).send(connection(wiring, "h1", "h2")).nodes == ("h1", "leaf1", "h2")


def test_a_switch_without_rules_carries_nothing() -> None:
    wiring = wiring_of(star(servers=2, nic_bps=GBPS))
    assert Fabric(wiring).send(connection(wiring, "h1", "h2")).arrived is False


def test_an_address_that_nobody_has_is_dropped_at_the_switch() -> None:
    wiring = wiring_of(star(servers=2, nic_bps=GBPS))
    stray = Packet(
        eth_dst="02:ff:ff:ff:ff:ff", ipv4_src="10.0.0.1", ipv4_dst="10.9.9.9", tcp_src=1, tcp_dst=2
    )
    journey = fabric_of(RuleBook(wiring)).carry("h1", stray)
    assert (journey.nodes, journey.arrived) == (("h1", "s1"), False)


@pytest.mark.parametrize("topology", [two_tiers(), three_tiers()], ids=lambda t: t.kind)
def test_a_packet_follows_the_path_that_the_rule_book_reports(topology: Topology) -> None:
    wiring = wiring_of(topology)
    rules = RuleBook(wiring)
    fabric = fabric_of(rules)
    sent = {}
    for i, pair in enumerate(wiring.paths):
        src, dst = pair.split()
        for lane in range(4):
            one = connection(wiring, src, dst, 40_000 + 10 * i + lane)
            fabric.apply(rules.add(f"{pair} {lane}", one, src, dst))
            sent[f"{pair} {lane}"] = one
    for name, one in sent.items():
        assert fabric.send(one).nodes == rules.path(name)


def test_path_rules_stand_only_where_there_is_a_choice() -> None:
    """On h1 -> leaf1 -> spine -> leaf2 -> h3 only leaf1 has a choice; inside a leaf there is none."""
    wiring = wiring_of(two_tiers())
    rules = RuleBook(wiring)
    (mod,) = rules.add("far", connection(wiring, "h1", "h3"), "h1", "h3")
    assert mod.switch == "leaf1"
    assert rules.add("near", connection(wiring, "h1", "h2"), "h1", "h2") == []


def test_a_fat_tree_has_path_rules_at_both_tiers_that_can_choose() -> None:
    """Up, the edge switch chooses an aggregation switch, which chooses a core. Down there is one way."""
    wiring = wiring_of(three_tiers())
    rules = RuleBook(wiring)
    mods = rules.add("far", connection(wiring, "h1", "h16"), "h1", "h16")
    assert [mod.switch for mod in mods] == list(rules.path("far")[1:3])
    assert [mod.switch[:-1] for mod in mods] == ["edge", "agg"]
    (mod,) = rules.add("in the pod", connection(wiring, "h1", "h3"), "h1", "h3")
    assert mod.switch == "edge1"
    assert rules.add("below one edge", connection(wiring, "h1", "h2"), "h1", "h2") == []


def test_many_lanes_use_every_core_about_equally() -> None:
    """400 draws of 4 cores: 100 each, standard deviation 8.7; 60 is more than four of those away."""
    wiring = wiring_of(three_tiers())
    chosen = [choose_path(wiring, "h1", "h16", f"S3.0-2.{i}#0")[3] for i in range(400)]
    assert set(chosen) == {"core1", "core2", "core3", "core4"}
    assert min(chosen.count(core) for core in set(chosen)) > 60


def test_the_acknowledgements_of_a_connection_get_home() -> None:
    wiring = wiring_of(two_tiers())
    rules = RuleBook(wiring)
    fabric = fabric_of(rules)
    there = connection(wiring, "h1", "h6")
    fabric.apply(rules.add("lane", there, "h1", "h6"))
    assert fabric.send(reverse(there)).nodes in wiring.paths["h6 h1"]


def test_paths_are_the_same_for_the_same_seed() -> None:
    assert lanes(wiring_of(two_tiers(), seed=7), 50) == lanes(wiring_of(two_tiers(), seed=7), 50)


def test_paths_differ_with_the_seed() -> None:
    assert lanes(wiring_of(two_tiers(), seed=7), 50) != lanes(wiring_of(two_tiers(), seed=8), 50)


def test_many_lanes_use_every_spine_about_equally() -> None:
    """400 draws of 4 spines: 100 each, standard deviation 8.7; 60 is more than four of those away."""
    chosen = [path[2] for path in lanes(wiring_of(two_tiers()), 400)]
    assert set(chosen) == {"spine1", "spine2", "spine3", "spine4"}
    assert min(chosen.count(spine) for spine in set(chosen)) > 60


def test_a_path_does_not_depend_on_the_ports_that_the_kernel_drew() -> None:
    paths = set()
    for port in range(40_000, 40_020):
        rules = RuleBook(wiring_of(two_tiers()))
        rules.add("S3.0-2.0#0", connection(rules.wiring, "h1", "h3", port), "h1", "h3")
        paths.add(rules.path("S3.0-2.0#0"))
    assert len(paths) == 1


def test_a_connection_cannot_be_registered_twice() -> None:
    wiring = wiring_of(star(servers=2, nic_bps=GBPS))
    rules = RuleBook(wiring)
    rules.add("lane", connection(wiring, "h1", "h2"), "h1", "h2")
    with pytest.raises(ValueError, match="'lane' is registered twice"):
        rules.add("lane", connection(wiring, "h1", "h2"), "h1", "h2")

"""What levels do to packets: one rule at the sender's NIC bridge, and nothing anywhere else."""

import pytest
from flow_table import Fabric, FlowTable, RefusedRule, connection, reverse, wiring_of
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow import Level
from controller.openflow import (
    CLASSIFY,
    FORWARD,
    Command,
    FlowMod,
    Match,
    RuleBook,
    Wiring,
    dscp_of,
    per_switch,
)
from testbed.topology import leaf_spine, star

GBPS = 10**9
STAR = wiring_of(star(servers=3, nic_bps=GBPS))
LEAF_SPINE = wiring_of(leaf_spine(leaves=2, spines=3, hosts_per_leaf=2, nic_bps=GBPS, oversubscription=1))


def started(wiring: Wiring) -> tuple[RuleBook, Fabric]:
    rules = RuleBook(wiring)
    fabric = Fabric(wiring)
    for switch in wiring.bridges:
        fabric.apply(rules.everything(switch))
    return rules, fabric


def test_every_level_has_a_dscp_of_its_own() -> None:
    assert [dscp_of(level) for level in Level] == [56, 48, 40, 32, 24, 16, 8, 0]


def test_traffic_that_nobody_registered_rides_the_control_queue() -> None:
    _, fabric = started(LEAF_SPINE)
    assert set(fabric.send(connection(LEAF_SPINE, "h1", "h4")).dscps) == {dscp_of(Level.CONTROL)}


def test_a_host_cannot_choose_its_own_queue() -> None:
    """Whatever DSCP an application sets, the NIC bridge writes the one of its level."""
    _, fabric = started(STAR)
    assert set(fabric.send(connection(STAR, "h1", "h2"), dscp=48).dscps) == {56}


@pytest.mark.parametrize("level", list(Level))
def test_a_registered_connection_carries_the_dscp_of_its_level_all_the_way(level: Level) -> None:
    rules, fabric = started(LEAF_SPINE)
    one = connection(LEAF_SPINE, "h1", "h4")
    fabric.apply(rules.add("lane", one, "h1", "h4"))
    fabric.apply(rules.set_level(["lane"], level))
    journey = fabric.send(one)
    assert journey.arrived
    assert journey.dscps == (dscp_of(level),) * 5  # two NIC bridges, two leaves, a spine


def test_a_new_connection_stays_in_the_control_queue_until_it_has_a_level() -> None:
    rules, fabric = started(STAR)
    one = connection(STAR, "h1", "h2")
    fabric.apply(rules.add("lane", one, "h1", "h2"))
    assert set(fabric.send(one).dscps) == {56}


def test_acknowledgements_stay_in_the_control_queue() -> None:
    rules, fabric = started(LEAF_SPINE)
    one = connection(LEAF_SPINE, "h1", "h4")
    fabric.apply(rules.add("lane", one, "h1", "h4"))
    fabric.apply(rules.set_level(["lane"], Level.SCAVENGER))
    assert set(fabric.send(reverse(one)).dscps) == {56}


def test_levels_are_written_at_the_senders_nic_bridge_alone() -> None:
    rules, fabric = started(LEAF_SPINE)
    fabric.apply(rules.add("lane", connection(LEAF_SPINE, "h1", "h4"), "h1", "h4"))
    fabric.apply(rules.set_level(["lane"], Level.P2))
    writers = {
        switch
        for switch, table in fabric.tables.items()
        for rule in table.rules.values()
        if rule.dscp == dscp_of(Level.P2)
    }
    assert writers == {"nh1"}


def test_a_level_change_is_one_flow_mod_per_connection() -> None:
    rules, _ = started(STAR)
    for peer, port in (("h2", 1), ("h2", 2), ("h3", 3)):
        rules.add(f"c{port}", connection(STAR, "h1", peer, port), "h1", peer)
    mods = rules.set_level(["c1", "c3"], Level.P1)
    assert [(mod.switch, mod.command, mod.table, mod.dscp, mod.goto) for mod in mods] == [
        ("nh1", Command.ADD, CLASSIFY, 48, FORWARD)
    ] * 2
    assert [(mod.match.in_port, mod.match.tcp_src) for mod in mods] == [(1, 1), (1, 3)]  # from its host


def test_a_level_that_is_in_force_already_needs_no_flow_mod() -> None:
    rules, _ = started(STAR)
    rules.add("lane", connection(STAR, "h1", "h2"), "h1", "h2")
    assert len(rules.set_level(["lane"], Level.P4)) == 1
    assert rules.set_level(["lane"], Level.P4) == []
    assert rules.level("lane") is Level.P4


def test_a_level_change_moves_its_own_connection_and_no_other() -> None:
    """The second connection differs in nothing but its own TCP port."""
    rules, fabric = started(STAR)
    first, second = (connection(STAR, "h1", "h2", port) for port in (40_000, 40_001))
    for name, one in (("first", first), ("second", second)):
        fabric.apply(rules.add(name, one, "h1", "h2"))
        fabric.apply(rules.set_level([name], Level.P5))
    fabric.apply(rules.set_level(["first"], Level.P1))
    assert [fabric.send(one).dscps[-1] for one in (first, second)] == [48, 16]
    fabric.apply(rules.set_level(["first"], Level.P6))
    assert [fabric.send(one).dscps[-1] for one in (first, second)] == [8, 16]


def test_many_level_changes_leave_one_rule_behind() -> None:
    rules, fabric = started(STAR)
    fabric.apply(rules.add("lane", connection(STAR, "h1", "h2"), "h1", "h2"))
    before = len(fabric.tables["nh1"].rules)
    for level in (Level.P6, Level.P3, Level.P1, Level.P2):
        fabric.apply(rules.set_level(["lane"], level))
    assert len(fabric.tables["nh1"].rules) == before + 1


def test_changes_are_grouped_by_switch_in_their_order() -> None:
    mods = [FlowMod(switch=s, command=Command.ADD, priority=p) for s, p in (("b", 1), ("a", 2), ("b", 3))]
    grouped = per_switch(mods)
    assert {name: [mod.priority for mod in changes] for name, changes in grouped.items()} == {
        "b": [1, 3],
        "a": [2],
    }


PAIRS = [("h1", "h3"), ("h1", "h4"), ("h1", "h2"), ("h3", "h1")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(list(Level)[1:])), max_size=20))
def test_a_switch_that_reconnects_gets_exactly_the_table_it_had(changes: list[tuple[int, Level]]) -> None:
    """Eight connections, any history of levels; the switch may have kept rules or lost them."""
    rules, fabric = started(LEAF_SPINE)
    for i in range(8):
        src, dst = PAIRS[i % 4]
        fabric.apply(rules.add(f"c{i}", connection(LEAF_SPINE, src, dst, 40_000 + i), src, dst))
    for i, level in changes:
        fabric.apply(rules.set_level([f"c{i}"], level))
    for switch, table in fabric.tables.items():
        empty = FlowTable()
        stale = FlowTable()
        stale.apply(FlowMod(switch=switch, command=Command.ADD, priority=77, output=1))
        for mod in rules.everything(switch):
            empty.apply(mod)
            stale.apply(mod)
        assert empty.rules == table.rules
        assert stale.rules == table.rules


def test_the_table_of_these_tests_is_as_strict_as_a_switch() -> None:
    table = FlowTable()
    with pytest.raises(RefusedRule, match="eth_type"):
        table.apply(FlowMod(switch="s", command=Command.ADD, match=Match(ipv4_src="10.0.0.1")))
    with pytest.raises(RefusedRule, match="ip_proto"):
        table.apply(FlowMod(switch="s", command=Command.ADD, match=Match(eth_type=0x0800, tcp_src=1)))
    with pytest.raises(RefusedRule, match="only a rule for IPv4"):
        table.apply(FlowMod(switch="s", command=Command.ADD, dscp=8))
    with pytest.raises(RefusedRule, match="later table"):
        table.apply(FlowMod(switch="s", command=Command.ADD, table=1, goto=1))
    assert table.rules == {}


def test_the_table_of_these_tests_deletes_what_it_is_told_to() -> None:
    table = FlowTable()
    for priority in (1, 2):
        table.apply(FlowMod(switch="s", command=Command.ADD, priority=priority, output=1))
    assert [place[1] for place in table.rules] == [1, 2]
    table.apply(FlowMod(switch="s", command=Command.DELETE_ALL))
    assert table.rules == {}

"""No byte before its level is in force: what is sent to the switches, and when a flow may start."""

import pytest
from dispatcher_world import Scripted, World, levels, permits
from scheduling_world import due

from controller.dispatcher import DispatchError, Enforce, Grant
from controller.flow import Batch, Level, Stage
from controller.lanes import LaneError


def test_a_flow_is_permitted_when_its_level_has_been_confirmed_and_not_before() -> None:
    world = World("fair")
    world.lane("lane")
    asked = world.submit("f")
    assert (levels(asked), permits(asked)) == ([("lane", Level.P3)], [])
    answered = world.confirm(asked)
    assert (levels(answered), permits(answered)) == ([], [("f", "lane", Level.P3)])


def test_a_level_is_one_rule_at_the_senders_nic_bridge() -> None:
    world = World("fair")
    world.lane("lane")
    (action,) = world.submit("f")
    assert isinstance(action, Enforce)
    assert [(mod.switch, mod.dscp) for mod in action.mods] == [("nh1", 32)]


def test_the_permit_goes_to_the_rank_that_sends() -> None:
    world = World("fair")
    world.lane("lane", src=1, dst=0)
    (grant,) = world.confirm(world.submit("f", src=1, dst=0))
    assert isinstance(grant, Grant)
    assert grant.rank == 1


def test_a_lane_that_has_the_level_already_is_permitted_without_a_rule() -> None:
    world = World("fair")
    world.lane("lane")
    world.confirm(world.submit("first"))
    world.completed("first")
    assert permits(world.submit("second")) == [("second", "lane", Level.P3)]
    assert levels(world.completed("second")) == []


def test_a_lane_that_has_the_level_is_taken_before_one_that_would_need_a_rule() -> None:
    world = World(Scripted({"high": Level.P1, "low": Level.P5, "again": Level.P5}))
    world.lane("one")
    world.lane("two")
    assert permits(world.confirm(world.submit("high"))) == [("high", "one", Level.P1)]
    assert permits(world.confirm(world.submit("low"))) == [("low", "two", Level.P5)]
    world.completed("high")
    world.completed("low")
    again = world.submit("again")
    assert (levels(again), permits(again)) == ([], [("again", "two", Level.P5)])


def test_a_promotion_before_the_confirmation_holds_the_permit_back_until_the_new_level_is_in_force() -> None:
    world = World(Scripted({"f": Level.P5}, {"f": Level.P1}))
    world.lane("lane")
    first = world.submit("f")
    assert levels(first) == [("lane", Level.P5)]
    assert world.tick() == []  # P1 has to wait, because P5 is on its way to the switch
    second = world.confirm(first)
    assert (levels(second), permits(second)) == ([("lane", Level.P1)], [])
    assert permits(world.confirm(second)) == [("f", "lane", Level.P1)]


def test_only_one_level_is_under_way_and_the_last_word_counts() -> None:
    world = World(Scripted({"f": Level.P5}, {"f": Level.P4}, {"f": Level.P3}, {"f": Level.P2}))
    world.lane("lane")
    world.confirm(world.submit("f"))
    first = world.tick()
    assert levels(first) == [("lane", Level.P4)]
    assert world.tick() == []
    assert world.tick() == []
    last = world.confirm(first)
    assert levels(last) == [("lane", Level.P2)]
    assert world.confirm(last) == []


def test_a_running_flow_is_permitted_once() -> None:
    world = World(Scripted({"f": Level.P5}, {"f": Level.P1}))
    world.lane("lane")
    world.confirm(world.submit("f"))
    promoted = world.tick()
    assert (levels(promoted), permits(promoted)) == ([("lane", Level.P1)], [])
    assert world.confirm(promoted) == []


def test_a_flow_that_ends_before_its_promotion_is_confirmed_leaves_the_lane_in_order() -> None:
    """The next flow takes the lane while P1 is on its way to the switch. P5 is sent after P1's reply."""
    world = World(Scripted({"f": Level.P5, "g": Level.P5}, {"f": Level.P1}))
    world.lane("lane")
    world.confirm(world.submit("f"))
    world.submit("g")
    promoted = world.tick()
    assert world.completed("f") == []
    back = world.confirm(promoted)
    assert (levels(back), permits(back)) == ([("lane", Level.P5)], [])
    assert permits(world.confirm(back)) == [("g", "lane", Level.P5)]


def test_two_ranks_of_one_server_need_no_switch() -> None:
    world = World("fair")
    world.lane("inside", src=2, dst=3)
    said = world.submit("f", src=2, dst=3)
    assert (levels(said), permits(said)) == ([], [("f", "inside", Level.P3)])
    assert world.dispatcher.paths[0].ports == ()


def test_a_promotion_inside_a_server_is_in_force_at_once() -> None:
    world = World(Scripted({"f": Level.P5}, {"f": Level.P1}))
    world.lane("inside", src=2, dst=3)
    world.submit("f", src=2, dst=3)
    assert world.tick() == []
    assert [d.level_to for d in world.dispatcher.decisions] == [Level.P5, Level.P1]


def test_every_decision_is_logged_with_its_time_and_reason() -> None:
    world = World(Scripted({"f": Level.P5}, {"f": Level.P1}))
    world.lane("lane")
    world.now = 10
    world.submit("f")
    world.tick()
    assert [(d.time_ns, d.flow, d.level_from, d.level_to, d.reason) for d in world.dispatcher.decisions] == [
        (10, "f", None, Level.P5, "page 0"),
        (11, "f", Level.P5, Level.P1, "next page"),
    ]


def test_stage_order_puts_each_stage_on_its_own_level() -> None:
    world = World("stage")
    world.lane("s1", stage=Stage.KV_REUSE)
    world.lane("s3", stage=Stage.P2D)
    assert levels(world.submit("a", stage=Stage.KV_REUSE)) == [("s1", Level.P3)]
    assert levels(world.submit("b", stage=Stage.P2D)) == [("s3", Level.P4)]


def test_mfs_moves_a_permitted_flow_when_its_layer_comes_nearer() -> None:
    """S1 of layer 3: RLI 3 is P5; when layer 1 begins RLI 2 is P4, at layer 3 RLI 0 is P2."""
    world = World("mfs(s3_levels=1)")
    world.lane("lane", stage=Stage.KV_REUSE)
    world.dispatcher.batch_started(0, Batch(id="b", layers=8, requests=due(10**9)), (0,))
    asked = world.submit("f", stage=Stage.KV_REUSE, batch="b", layer=3)
    assert permits(world.confirm(asked)) == [("f", "lane", Level.P5)]
    nearer = world.dispatcher.layer_advanced(1, "b", 0, 1)
    assert levels(nearer) == [("lane", Level.P4)]
    world.confirm(nearer)
    assert levels(world.dispatcher.layer_advanced(2, "b", 0, 3)) == [("lane", Level.P2)]
    assert world.rules.level("lane#0") is Level.P2


def test_flows_nobody_knows_are_refused() -> None:
    world = World("fair")
    world.lane("lane")
    with pytest.raises(DispatchError, match="flow 'f': no lane for S3 from rank 1 to rank 0"):
        world.submit("f", src=1, dst=0)
    with pytest.raises(DispatchError, match="flow 'f': no lane for S1 from rank 0 to rank 1"):
        world.submit("f", stage=Stage.KV_REUSE)
    with pytest.raises(LaneError, match="flow 'f' has no lane"):
        world.completed("f")


def test_a_flow_cannot_end_before_its_permit() -> None:
    world = World("fair")
    world.lane("lane")
    world.submit("f")
    with pytest.raises(DispatchError, match="completion of 'f', which was never permitted"):
        world.completed("f")


def test_a_lane_cannot_be_registered_twice() -> None:
    world = World("fair")
    world.lane("inside", src=2, dst=3)
    with pytest.raises(DispatchError, match="'inside' is registered twice"):
        world.lane("inside", src=2, dst=3)


def test_a_batch_is_where_its_slowest_rank_is() -> None:
    """Two ranks; S1 of layer 3 is at RLI 3 (P5) until both are at layer 1, where RLI is 2 (P4)."""
    world = World("mfs(s3_levels=1)")
    world.lane("lane", stage=Stage.KV_REUSE)
    world.dispatcher.batch_started(0, Batch(id="b", layers=8, requests=due(10**9)), (0, 1))
    for rank in (0, 1):
        world.dispatcher.layer_advanced(1, "b", rank, 0)
    world.confirm(world.submit("f", stage=Stage.KV_REUSE, batch="b", layer=3))
    assert world.dispatcher.layer_advanced(2, "b", 0, 1) == []
    assert levels(world.dispatcher.layer_advanced(3, "b", 1, 1)) == [("lane", Level.P4)]


def test_a_rank_at_the_end_does_not_end_the_batch_for_the_others() -> None:
    world = World("mfs")
    world.lane("lane", stage=Stage.KV_REUSE)
    world.dispatcher.batch_started(0, Batch(id="b", layers=2, requests=due(10**9)), (0, 1))
    for layer in (0, 1, 2):
        world.dispatcher.layer_advanced(1, "b", 0, layer)
    world.dispatcher.layer_advanced(1, "b", 1, 0)
    assert permits(world.confirm(world.submit("f", stage=Stage.KV_REUSE, batch="b", layer=1)))


def test_a_layer_from_a_rank_that_does_not_run_the_batch_is_refused() -> None:
    world = World("mfs")
    world.dispatcher.batch_started(0, Batch(id="b", layers=2, requests=due(10**9)), (0, 1))
    with pytest.raises(DispatchError, match="rank 2 reports a layer of batch 'b'"):
        world.dispatcher.layer_advanced(1, "b", 2, 0)


def test_flows_are_counted_by_what_they_do_and_by_level() -> None:
    """One lane: the first flow's level is on its way, then it sends. The others wait at what they want."""
    world = World(Scripted({"first": Level.P5, "second": Level.P5, "third": Level.P6}))
    world.lane("lane")
    asked = world.submit("first")
    assert world.dispatcher.on_lanes() == ((0,) * 8, 1)
    world.confirm(asked)
    world.submit("second")
    world.submit("third")
    assert world.dispatcher.on_lanes() == ((0, 0, 0, 0, 0, 1, 0, 0), 0)
    assert world.dispatcher.waiting() == (0, 0, 0, 0, 0, 1, 1, 0)
    world.confirm(world.completed("first"))
    assert world.dispatcher.waiting() == (0, 0, 0, 0, 0, 0, 1, 0)


def test_flows_on_their_way_are_listed_with_the_ports_that_they_cross() -> None:
    """One has arrived, and one has no permit yet."""
    world = World("fair")
    for name in ("one", "two", "three"):
        world.lane(name)
    for flow in ("arrived", "sending"):
        world.confirm(world.submit(flow))
    world.submit("changing")
    world.completed("arrived")
    listed = world.dispatcher.sending()
    assert [(flow.flow, flow.ports) for flow in listed] == [("sending", ("h1->s1", "s1->h2"))]

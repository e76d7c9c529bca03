"""Shares of collectives: a process group's connections change level together, one share at a time."""

import pytest
from dispatcher_world import Scripted, World, levels, permits

from controller.dispatcher import Action, DispatchError, Enforce, Grant
from controller.flow import ALL_PEERS, Level, Stage, Transfer
from controller.lanes import LaneError
from controller.protocol import GroupUp, ProbeUp, SubmitShare

MEMBERS = {0: "h1", 1: "h2", 2: "h3", 3: "h3"}


def group_up(world: World, rank: int = 0, *, per_peer: int = 1) -> None:
    peers = {peer: server for peer, server in MEMBERS.items() if peer != rank}
    world.dispatcher.group_up(
        GroupUp(
            group="ep",
            rank=rank,
            server=MEMBERS[rank],
            peers=peers,
            connections={peer: world.connections(rank, peer, per_peer) for peer in peers},
        )
    )


def share(world: World, flow: str, rank: int = 0, **sizes: int) -> list[Action]:
    message = SubmitShare(
        share=Transfer(
            id=flow,
            stage=Stage.COLLECTIVE,
            src=rank,
            dst=ALL_PEERS,
            size_bytes=sum(sizes.values()),
            coflow="c",
        ),
        group="ep",
        peer_bytes={int(peer[1:]): size for peer, size in sizes.items()},
        sent_wall_ns=0,
    )
    return world.dispatcher.submit_share(world.now, message)


def test_a_share_waits_until_all_its_connections_have_the_level() -> None:
    world = World("stage")
    group_up(world, per_peer=2)
    asked = share(world, "c.0", r1=10, r2=20, r3=30)
    (change,) = asked
    assert isinstance(change, Enforce)
    assert change.level is Level.P2
    assert [(mod.switch, mod.dscp) for mod in change.mods] == [("nh1", 40)] * 6
    (grant,) = world.confirm(asked)
    assert isinstance(grant, Grant)
    assert (grant.rank, grant.permit.flow, grant.permit.lane) == (0, "c.0", "")


def test_the_next_share_of_a_group_finds_its_level_in_force() -> None:
    world = World("stage")
    group_up(world)
    world.confirm(share(world, "c.0", r1=10))
    world.completed("c.0")
    again = share(world, "d.0", r1=10)
    assert (levels(again), permits(again)) == ([], [("d.0", "", Level.P2)])


def test_each_member_is_permitted_for_itself() -> None:
    world = World("stage")
    group_up(world, 0)
    group_up(world, 1)
    assert world.dispatcher.groups == 2
    first = share(world, "c.0", 0, r1=10)
    second = share(world, "c.1", 1, r0=10)
    assert permits(world.confirm(second)) == [("c.1", "", Level.P2)]
    assert permits(world.confirm(first)) == [("c.0", "", Level.P2)]


def test_the_load_of_a_share_is_all_on_the_uplink_and_each_part_on_a_downlink() -> None:
    """Ranks 2 and 3 live on h3: their parts come in through one port."""
    world = World("stage")
    group_up(world)
    share(world, "c.0", r1=10, r2=20, r3=30)
    flow = world.scheduler.view.flows["c.0"].flow
    assert dict(flow.load) == {"h1->s1": 60, "s1->h2": 10, "s1->h3": 50}
    assert (flow.size_bytes, flow.stage, flow.coflow) == (60, Stage.COLLECTIVE, "c")


def test_a_peer_on_the_same_server_loads_no_port() -> None:
    world = World("stage")
    group_up(world, 2)
    share(world, "c.2", 2, r3=30)
    assert dict(world.scheduler.view.flows["c.2"].flow.load) == {}


def test_a_promotion_moves_a_running_share() -> None:
    world = World(Scripted({"c.0": Level.P4}, {"c.0": Level.P2}))
    group_up(world)
    world.confirm(share(world, "c.0", r1=10))
    promoted = world.tick()
    assert levels(promoted) == [("ep:0", Level.P2)]
    assert world.confirm(promoted) == []
    assert world.rules.level("ep:0-1#0") is Level.P2


def test_a_share_that_starts_before_the_last_one_has_ended_is_refused() -> None:
    world = World("stage")
    group_up(world)
    share(world, "c.0", r1=10)
    with pytest.raises(LaneError, match=r"'d\.0' starts before 'c\.0' has ended"):
        share(world, "d.0", r1=10)


def test_a_share_of_a_group_nobody_opened_is_refused() -> None:
    world = World("stage")
    group_up(world)
    with pytest.raises(DispatchError, match="group 'ep' has no member rank 1"):
        share(world, "c.1", 1, r0=10)


def test_a_share_that_has_ended_leaves_nothing_behind() -> None:
    world = World("stage")
    group_up(world)
    world.confirm(share(world, "c.0", r1=10))
    assert world.completed("c.0") == []
    assert dict(world.scheduler.view.flows) == {}
    with pytest.raises(LaneError, match=r"flow 'c\.0' has no lane"):
        world.completed("c.0")


def test_a_probe_is_put_on_the_level_of_ordinary_data_and_is_no_flow() -> None:
    world = World("stage")
    message = ProbeUp(
        name="probe", src=0, src_server="h1", dst_server="h2", connections=world.connections(0, 1)
    )
    assert [(mod.switch, mod.dscp) for mod in world.dispatcher.probe_up(message)] == [("nh1", 32)]
    assert world.dispatcher.lanes == 0
    assert dict(world.scheduler.view.flows) == {}


def test_a_share_on_its_way_is_listed_with_the_ports_to_all_its_peers() -> None:
    world = World("stage")
    group_up(world)
    world.confirm(share(world, "c.0", r1=10, r2=20, r3=30))
    (listed,) = world.dispatcher.sending()
    assert (listed.flow, listed.ports) == ("c.0", ("h1->s1", "s1->h2", "s1->h3"))

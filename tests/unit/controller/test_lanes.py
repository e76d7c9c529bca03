"""Lanes: which flow is next, which level a lane is lent, and what a flow will put on each port."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.flow import Assignment, Decision, Level, Stage
from controller.lanes import (
    Claim,
    Claims,
    Lane,
    LaneError,
    LanePool,
    LevelTrail,
    lane_name,
    load_of,
    loans,
)

AnyLane = Lane[Any]
AnyClaim = Claim[AnyLane]


class Desk:
    """Pools of lanes of one pair of ranks; flows are submitted with the level the scheduler gives them."""

    def __init__(self, *paths: tuple[str, ...], spare: bool = False) -> None:
        self.changes: list[Decision] = []
        self.claims: Claims[AnyClaim] = Claims(self.changes.append)
        lanes = [AnyLane(f"lane{i}", path) for i, path in enumerate(paths)]

        def another(i: int) -> AnyLane:
            return AnyLane(f"spare of {lanes[i].name}", lanes[i].ports, spare=True)

        self.pool: LanePool[AnyLane, AnyClaim] = LanePool(lanes, spare=another if spare else None)

    def submit(self, flow: str, level: Level, order: float = 0.0) -> list[str]:
        """Returns the lanes that flows got by it."""
        self.claims.submit(AnyClaim(flow), self.pool)
        self.say(flow, level, order)
        return self.fill()

    def say(self, flow: str, level: Level, order: float = 0.0) -> list[str]:
        said = Assignment(time_ns=7, flow=flow, level=level, previous=None, reason="said", order=order)
        return [claim.id for claim in self.claims.obey([said])]

    def fill(self) -> list[str]:
        given = [f"{claim.id} on {claim.lane.name}" for claim in self.pool.fill() if claim.lane]
        self.claims.lend(7, self.pool)
        return given

    def complete(self, flow: str) -> list[str]:
        claim = self.claims.complete(flow)
        assert claim.lane is not None
        claim.lane.level = claim.wanted
        return self.fill()

    def levels(self, flow: str) -> list[Level]:
        return [change.level_to for change in self.changes if change.flow == flow]


def test_a_lane_goes_to_the_most_urgent_level_then_the_smallest_order_then_the_first_submitted() -> None:
    desk = Desk(())
    desk.submit("running", Level.P1)
    desk.submit("later level", Level.P3, order=0.0)
    desk.submit("large order", Level.P2, order=2.0)
    desk.submit("first", Level.P2, order=1.0)
    desk.submit("second", Level.P2, order=1.0)
    turns = []
    for done in ("running", "first", "second", "large order"):
        turns += desk.complete(done)
    assert turns == [f"{flow} on lane0" for flow in ("first", "second", "large order", "later level")]


def test_a_lane_that_is_at_the_level_already_is_preferred() -> None:
    desk = Desk((), ())
    desk.submit("a", Level.P1)
    desk.submit("b", Level.P4)
    desk.complete("a")
    desk.complete("b")
    assert desk.submit("c", Level.P4) == ["c on lane1"]


def test_spare_lanes_take_the_paths_of_the_others_in_turn() -> None:
    """Four lanes on four paths are taken. Eight more flows get two spare lanes on each path."""
    desk = Desk(*((f"up{i}",) for i in range(4)), spare=True)
    for i in range(4):
        desk.submit(f"f{i}", Level.P3)
    given = [lane for i in range(4, 12) for lane in desk.submit(f"f{i}", Level.P3)]
    paths = [lane.partition(" of ")[2] for lane in given]
    assert paths == ["lane0", "lane1", "lane2", "lane3"] * 2


def test_a_spare_lane_is_gone_when_its_flow_is_complete() -> None:
    desk = Desk((), spare=True)
    desk.submit("a", Level.P3)
    desk.submit("b", Level.P3)
    desk.complete("b")
    assert desk.submit("c", Level.P3) == ["c on spare of lane0"]
    desk.complete("a")
    assert desk.submit("d", Level.P3) == ["d on lane0"]


def test_a_flow_that_was_lent_a_level_keeps_it_until_it_is_complete() -> None:
    desk = Desk(())
    desk.submit("deferred", Level.P6)
    desk.submit("urgent", Level.P2)
    assert desk.levels("deferred") == [Level.P6, Level.P2]
    assert desk.changes[-1].reason == "its lane is needed by urgent, which waits at P2"
    assert desk.say("deferred", Level.P4) == ["deferred"]
    assert desk.levels("deferred") == [Level.P6, Level.P2]  # P4 changes nothing
    desk.say("deferred", Level.P1)
    assert desk.levels("deferred") == [Level.P6, Level.P2, Level.P1]


def test_a_promotion_of_a_waiting_flow_is_lent_at_once() -> None:
    desk = Desk(())
    desk.submit("deferred", Level.P6)
    desk.submit("waiting", Level.P6)
    assert desk.levels("deferred") == [Level.P6]
    assert desk.say("waiting", Level.P1) == ["deferred"]
    assert desk.levels("deferred") == [Level.P6, Level.P1]


def test_the_lane_of_a_complete_flow_is_not_lent() -> None:
    """The flow that waits gets the lane itself."""
    desk = Desk(())
    desk.submit("done", Level.P6)
    desk.submit("next", Level.P6)
    desk.claims.complete("done")
    assert desk.say("next", Level.P1) == []
    assert desk.levels("done") == [Level.P6]
    assert desk.fill() == ["next on lane0"]


def test_a_side_of_a_process_group_takes_one_share_at_a_time() -> None:
    desk, side = Desk(), AnyLane("ep:0", ())
    desk.claims.submit_on(AnyClaim("c.0"), side)
    with pytest.raises(LaneError, match=r"'d\.0' starts before 'c\.0' has ended"):
        desk.claims.submit_on(AnyClaim("d.0"), side)
    desk.claims.complete("c.0")
    desk.claims.submit_on(AnyClaim("d.0"), side)
    assert desk.claims.submitted == 2


def test_what_contradicts_itself_is_refused() -> None:
    desk = Desk(())
    desk.submit("f", Level.P3)
    desk.submit("waits", Level.P3)
    with pytest.raises(LaneError, match="flow 'f' is submitted twice"):
        desk.claims.submit(AnyClaim("f"), desk.pool)
    for flow in ("waits", "unknown"):
        with pytest.raises(LaneError, match=f"flow '{flow}' has no lane"):
            desk.claims.complete(flow)


def test_a_flow_loads_a_port_with_the_part_of_the_lanes_that_cross_it() -> None:
    """Three lanes leave by one NIC and take two spines: 1,000 bytes are 666 and 333 of them, rounded down."""
    desk = Desk(("nic", "spine1"), ("nic", "spine1"), ("nic", "spine2"))
    assert desk.pool.load(1000) == {"nic": 1000, "spine1": 666, "spine2": 333}
    assert desk.pool.load(10) == {"nic": 10, "spine1": 6, "spine2": 3}


def test_a_share_loads_a_port_with_what_it_sends_to_all_peers_behind_it() -> None:
    paths = {1: ("nic", "down1"), 2: ("nic", "down2"), 3: ()}
    assert load_of({1: 10, 2: 20, 3: 40}, paths) == {"nic": 30, "down1": 10, "down2": 20}


def test_the_first_level_and_steps_down_are_no_promotions() -> None:
    trail = LevelTrail()
    for level in (Level.P4, Level.P2, Level.P3, Level.P1):
        trail.moved_to(level)
    assert (trail.level_first, trail.level_last, trail.promotions) == (Level.P4, Level.P1, 2)


def test_a_lane_is_named_after_its_stage_its_ranks_and_its_number() -> None:
    assert lane_name(Stage.P2D, 2, 9, 0) == "S3.2-9.0"


LEVELS = st.sampled_from([Level.P1, Level.P2, Level.P4, Level.P6, Level.SCAVENGER])


@given(held=st.lists(LEVELS, min_size=1, max_size=4), waiting=st.lists(LEVELS, max_size=6))
def test_with_its_loans_the_ith_waiting_flow_finds_i_lanes_as_urgent(
    held: list[Level], waiting: list[Level]
) -> None:
    """And every loan raises the level of its lane."""
    urgent = sorted(waiting)[: len(held)]
    levels = list(held)
    for lane, i in loans(held, urgent):
        assert urgent[i] < levels[lane]
        levels[lane] = urgent[i]
    for i, level in enumerate(urgent, start=1):
        assert sum(other <= level for other in levels) >= i

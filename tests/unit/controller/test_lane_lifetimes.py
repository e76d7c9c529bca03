"""Lanes and claims live as long as they are needed, although compiled code refers to them by address."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from controller.flow import Assignment, Decision, Level
from controller.lanes import Claim, Claims, Lane, LaneError, LanePool, LevelTrail


class AnyLane(Lane["AnyClaim"]):
    """Has a `__dict__`, and can be referred to weakly."""


class AnyClaim(Claim[AnyLane]):
    pass


Pool = LanePool[AnyLane, AnyClaim]


def claims_of(changed: Callable[[Decision], object] = lambda change: None) -> Claims[AnyClaim]:
    return Claims(changed)


def submit(claims: Claims[AnyClaim], flow: str, pool: Pool, level: Level = Level.P3) -> AnyClaim:
    claim = AnyClaim(flow)
    claims.submit(claim, pool)
    claims.obey([Assignment(time_ns=0, flow=flow, level=level, previous=None, reason="said")])
    return claim


def test_a_pool_gives_out_the_very_lanes_and_claims_that_it_got() -> None:
    lane = AnyLane("lane", ())
    lane.colour = "blue"  # type: ignore[attr-defined]
    pool: Pool = LanePool([lane])
    claim = submit(claims_of(), "f", pool)
    assert pool.waiting == [claim]
    assert pool.fill() == [claim]
    assert claim.lane is lane
    assert lane.claim is claim
    assert pool.lanes == (lane,)


def test_a_pool_keeps_its_lanes_and_active_flows_keep_their_pool() -> None:
    claims = claims_of()
    pool: Pool = LanePool([AnyLane("lane", ())])
    submit(claims, "f", pool)
    pool.fill()
    del pool
    gc.collect()
    claim = claims.complete("f")
    assert claim.lane is not None
    assert claim.lane.name == "lane"
    assert claim.pool is not None
    assert claim.pool.lanes == (claim.lane,)


def test_flows_that_nobody_knows_any_more_give_up_their_lane_and_their_wait() -> None:
    claims = claims_of()
    pool: Pool = LanePool([AnyLane("lane", ())])
    submit(claims, "runs", pool)
    pool.fill()
    submit(claims, "waits", pool)
    del claims
    assert pool.waiting == []
    assert pool.lanes[0].claim is None
    claims = claims_of()
    assert pool.fill() == []
    claim = submit(claims, "next", pool)
    assert pool.fill() == [claim]


def test_a_complete_flow_and_its_spare_lane_are_gone_without_the_garbage_collector() -> None:
    claims = claims_of()
    pool: Pool = LanePool([AnyLane("lane", ())], spare=lambda i: AnyLane(f"spare {i}", ()))
    gone = []
    gc.disable()
    try:
        for flow in ("on the lane", "on a spare lane"):
            claim = submit(claims, flow, pool)
            pool.fill()
            gone += [weakref.ref(claim), weakref.ref(claim.lane)]
            del claim
        assert all(one() is not None for one in gone)
        for flow in ("on the lane", "on a spare lane"):
            claims.complete(flow)
        assert [one() is None for one in gone] == [True, False, True, True]  # the pool has its own lane
    finally:
        gc.enable()


def test_a_callback_that_refers_to_its_caller_does_not_keep_it() -> None:
    class Owner:
        def __init__(self) -> None:
            self.claims = claims_of(self.changed)
            self.pool: Pool = LanePool([AnyLane("lane", ())], spare=self.another)
            submit(self.claims, "f", self.pool)
            self.pool.fill()

        def changed(self, change: Decision) -> None:
            pass

        def another(self, i: int) -> AnyLane:
            return AnyLane("spare", ())

    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None


def test_a_claim_is_for_one_submission() -> None:
    claims, pool = claims_of(), Pool([AnyLane("lane", ())])
    claim = submit(claims, "f", pool)
    pool.fill()
    claims.complete("f")
    with pytest.raises(LaneError, match="'f' is submitted twice"):
        claims.submit(claim, pool)
    with pytest.raises(LaneError, match="'f' is submitted twice"):
        claims_of().submit_on(claim, AnyLane("side", ()))


def test_a_lane_is_in_one_pool_and_a_spare_lane_is_new() -> None:
    lane = AnyLane("lane", ())
    pool: Pool = LanePool([lane], spare=lambda i: lane)
    with pytest.raises(LaneError, match="'lane' is in use"):
        pool.add(lane)
    with pytest.raises(LaneError, match="'lane' is in a pool"):
        claims_of().submit_on(AnyClaim("share"), lane)
    claims = claims_of()
    for flow in ("a", "b"):
        submit(claims, flow, pool)
    with pytest.raises(LaneError, match="'lane' is in use"):
        pool.fill()
    assert [claim.id for claim in pool.waiting] == ["b"]


def test_what_a_callback_raises_comes_through() -> None:
    def refuse(change: Decision) -> Any:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        submit(claims_of(refuse), "f", LanePool([AnyLane("lane", ())]))


@pytest.mark.parametrize("level", [-1, 8])
def test_there_are_eight_levels(level: int) -> None:
    with pytest.raises(ValueError, match="no such level"):
        AnyLane("lane", ()).level = level  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no such level"):
        LevelTrail().moved_to(level)  # type: ignore[arg-type]


def test_the_load_of_a_very_large_flow_is_exact() -> None:
    pool: Pool = LanePool(
        [AnyLane("a", ("nic", "x")), AnyLane("b", ("nic", "x")), AnyLane("c", ("nic", "y"))]
    )
    assert pool.load(2**63 - 1) == {"nic": 2**63 - 1, "x": (2**63 - 1) * 2 // 3, "y": (2**63 - 1) // 3}

"""Admission: which flows move, get a lane and are lent a level by an event, and in which order."""

from typing import Any

import pytest

from controller.admission import Admission
from controller.flow import Batch, Decision, Flow, Level, Stage
from controller.lanes import Claim, Lane, LaneError, LanePool
from controller.policy import Policy, Verdict, Verdicts
from controller.scheduler import Scheduler
from controller.verdict_checks import SchedulerError
from controller.view import ActiveBatch, ActiveFlow, View

AnyLane = Lane[Any]
AnyClaim = Claim[AnyLane]


class ByName(Policy):
    """A flow called `x3` is at P3. When a batch is told of, all flows called `x...` move to P1."""

    name = "by-name"
    summary = "a flow's name says its level"
    reads_ports = False

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return Verdict(Level(int(flow.flow.id[-1])), "its name")

    def on_batch(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        return {id: Verdict(Level.P1, "a batch") for id in view.flows if id.startswith("x")}


class Desk:
    """One lane between two ranks, and one side of a process group."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        scheduler = Scheduler(ByName(None), ports={"up": 10**9})
        self.admission: Admission[AnyClaim] = Admission(scheduler, self.decisions.append)
        self.pool: LanePool[AnyLane, AnyClaim] = LanePool([AnyLane("lane", ("up",))], spare=None)
        self.side = AnyLane("side", ("up",))

    def submit(self, name: str) -> tuple[list[str], ...]:
        return self._names(self.admission.submit(1, AnyClaim(name), self.pool, flow(name)))

    def complete(self, name: str) -> tuple[list[str], ...]:
        return self._names(self.admission.complete(2, name))

    @staticmethod
    def _names(orders: tuple[list[AnyClaim], ...]) -> tuple[list[str], ...]:
        return tuple([claim.id for claim in claims] for claims in orders)


def flow(name: str) -> Flow:
    return Flow(id=name, stage=Stage.P2D, size_bytes=8, load={"up": 8})


def test_a_flow_gets_a_free_lane_at_once() -> None:
    assert Desk().submit("a3") == ([], ["a3"], [])


def test_a_waiting_flow_lends_its_level_to_the_flow_whose_lane_it_waits_for() -> None:
    desk = Desk()
    desk.submit("a3")
    assert desk.submit("b5") == ([], [], [])
    assert desk.submit("c2") == (["a3"], [], [])
    said = [(made.flow, made.level_from, made.level_to) for made in desk.decisions]
    assert said == [
        ("a3", None, Level.P3),
        ("b5", None, Level.P5),
        ("c2", None, Level.P2),
        ("a3", Level.P3, Level.P2),
    ]


def test_a_lane_goes_to_the_most_urgent_flow_when_the_flow_on_it_has_arrived() -> None:
    desk = Desk()
    for name in ("a3", "b5", "c4"):
        desk.submit(name)
    assert desk.complete("a3") == ([], ["c4"], [])
    assert desk.complete("c4") == ([], ["b5"], [])
    assert desk.complete("b5") == ([], [], [])
    assert desk.admission.submitted == 3


def test_only_flows_on_a_lane_move_when_the_scheduler_hears_of_something_else() -> None:
    desk = Desk()
    desk.submit("x3")
    desk.submit("x4")
    moved = desk.admission.batch_started(2, Batch(id="b", layers=1, requests=()))
    assert [(claim.id, claim.wanted) for claim in moved] == [("x3", Level.P1)]
    assert desk.complete("x3") == ([], ["x4"], [])
    assert [made.level_to for made in desk.decisions if made.flow == "x4"] == [Level.P4, Level.P1]


def test_a_share_takes_its_side_at_once_and_leaves_the_lanes_alone() -> None:
    desk = Desk()
    desk.submit("a3")
    desk.admission.submit_on(1, AnyClaim("s2"), desk.side, flow("s2"))
    assert desk.side.claim is desk.admission.claim("s2")
    assert desk.submit("b5") == ([], [], [])
    assert desk.complete("s2") == ([], [], [])
    assert desk.side.claim is None


def test_events_that_contradict_each_other_are_refused() -> None:
    desk = Desk()
    desk.submit("a3")
    desk.submit("b5")
    with pytest.raises(LaneError, match="flow 'b5' has no lane"):
        desk.complete("b5")
    with pytest.raises(LaneError, match="flow 'c1' has no lane"):
        desk.admission.claim("c1")
    with pytest.raises(SchedulerError):
        desk.admission.progress(2, "c1", 1)

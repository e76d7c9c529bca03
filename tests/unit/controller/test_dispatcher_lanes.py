"""Which flow gets a free lane: one at a time, the most urgent first, then first come, first served."""

from dispatcher_world import Scripted, World, levels, permits
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.dispatcher import Action, Enforce, Grant
from controller.flow import Level


def started(actions: list[Action], world: World) -> list[str]:
    """Ids of the flows that may start, now or once the barriers have been answered."""
    return [flow for flow, _, _ in permits([*actions, *world.confirm(actions)])]


def test_a_lane_carries_one_flow_at_a_time() -> None:
    world = World("fair")
    world.lane("lane")
    assert started(world.submit("first"), world) == ["first"]
    assert world.submit("second") == []
    assert started(world.completed("first"), world) == ["second"]


def test_as_many_flows_run_as_there_are_lanes() -> None:
    world = World("fair")
    world.lane("one")
    world.lane("two")
    assert [started(world.submit(name), world) for name in "abc"] == [["a"], ["b"], []]
    assert started(world.completed("b"), world) == ["c"]


def test_lanes_of_other_ranks_are_not_borrowed() -> None:
    world = World("fair")
    world.lane("lane")
    world.lane("elsewhere", dst=2)
    world.submit("first")
    assert world.submit("second") == []


def test_the_most_urgent_waiting_flow_gets_the_lane_and_among_equals_the_first() -> None:
    world = World(Scripted({"late": Level.P4, "first": Level.P2, "second": Level.P2}))
    world.lane("lane")
    world.confirm(world.submit("running"))
    for name in ("late", "first", "second"):
        assert started(world.submit(name), world) == []
    order = []
    for done in ("running", "first", "second"):
        order += started(world.completed(done), world)
    assert order == ["first", "second", "late"]


def test_a_promotion_while_waiting_moves_a_flow_ahead() -> None:
    world = World(Scripted({"a": Level.P4, "b": Level.P5}, {"b": Level.P1}))
    world.lane("lane")
    world.confirm(world.submit("running"))
    world.submit("a")
    world.submit("b")
    assert started(world.tick(), world) == []
    assert started(world.completed("running"), world) == ["b"]


def test_a_lane_is_lent_the_level_of_a_more_urgent_flow_that_waits_for_it() -> None:
    """Otherwise the deferred flow on it, at P5, would make the P2 flow wait for all other traffic."""
    world = World(Scripted({"deferred": Level.P5, "urgent": Level.P2}))
    world.lane("lane")
    world.confirm(world.submit("deferred"))
    lent = world.submit("urgent")
    assert levels(lent) == [("lane", Level.P2)]
    world.confirm(lent)
    assert permits(world.completed("deferred")) == [("urgent", "lane", Level.P2)]  # no rule to change


def test_only_as_many_lanes_are_lent_as_urgent_flows_wait_and_the_oldest_first() -> None:
    world = World(Scripted({"old": Level.P6, "young": Level.P6, "urgent": Level.P2, "last": Level.P6}))
    for lane, flow in (("one", "old"), ("two", "young")):
        world.lane(lane)
        world.confirm(world.submit(flow))
    assert world.submit("last") == []
    assert levels(world.submit("urgent")) == [("one", Level.P2)]


def test_what_a_lane_was_lent_is_logged_and_weaker_words_of_the_scheduler_change_nothing() -> None:
    script = {"deferred": Level.P6, "urgent": Level.P2}
    world = World(Scripted(script, {"deferred": Level.P4}, {"deferred": Level.P1}))
    world.lane("lane")
    world.confirm(world.submit("deferred"))
    world.confirm(world.submit("urgent"))
    assert world.tick() == []  # P4: the lane is at P2 already
    assert levels(world.tick()) == [("lane", Level.P1)]
    told = [d for d in world.dispatcher.decisions if d.flow == "deferred"]
    assert [(d.level_from, d.level_to) for d in told] == [
        (None, Level.P6),
        (Level.P6, Level.P2),
        (Level.P2, Level.P1),
    ]
    assert "urgent" in told[1].reason


def test_the_wait_for_a_lane_is_told_with_the_permit() -> None:
    world = World("fair")
    world.lane("lane")
    world.now = 100
    world.confirm(world.submit("first"))
    world.now = 200
    world.submit("second")
    world.now = 950
    (grant,) = world.completed("first")
    assert isinstance(grant, Grant)
    assert grant.permit.lane_wait_wall_ns == 750


def test_the_scheduler_is_told_what_a_flow_will_put_on_each_port() -> None:
    """All lanes of the pair leave h1 and enter h2; a star has no other way."""
    world = World("fair")
    world.lane("one")
    world.lane("two")
    world.submit("f", size_bytes=1001)
    flow = world.scheduler.view.flows["f"].flow
    assert dict(flow.load) == {"h1->s1": 1001, "s1->h2": 1001}


def test_the_path_of_a_flow_is_logged() -> None:
    world = World("fair")
    world.lane("lane")
    world.submit("f")
    (path,) = world.dispatcher.paths
    assert (path.flow, path.ports) == ("f", ("h1->s1", "s1->h2"))


def test_the_scheduler_is_told_which_coflow_a_flow_is_of() -> None:
    world = World("fair")
    world.lane("lane")
    world.submit("alone")
    world.submit("f", coflow="shuffle")
    flows = world.scheduler.view.flows
    assert flows["alone"].flow.coflow is None
    assert flows["f"].flow.coflow == "shuffle"


LEVEL = st.sampled_from([Level.P1, Level.P2, Level.P3, Level.P6, Level.SCAVENGER])


@settings(max_examples=60, deadline=None)
@given(
    first=st.dictionaries(st.sampled_from("abcdefgh"), LEVEL),
    pages=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), LEVEL), max_size=4),
    choices=st.lists(st.integers(0, 99), min_size=80, max_size=80),
)
def test_whatever_the_order_of_events_every_flow_runs_once_and_nothing_is_left(
    first: dict[str, Level], pages: list[dict[str, Level]], choices: list[int]
) -> None:
    """Eight flows over two lanes while submissions, ticks, barrier replies and completions come in any order.

    At all times a lane has at most one flow and at most one level on its way to the switches, and a permit
    is for the level that the switch has confirmed.
    """
    world = World(Scripted(first, *pages))
    world.lane("one")
    world.lane("two")
    to_submit = list("abcdefgh")
    barriers: list[Enforce] = []
    in_force = {"one": Level.CONTROL, "two": Level.CONTROL}
    running: dict[str, str] = {}
    finished: list[str] = []

    def take(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Enforce):
                assert action.lane not in {barrier.lane for barrier in barriers}
                barriers.append(action)
            else:
                permit = action.permit
                assert permit.lane not in running.values()
                assert permit.level is in_force[permit.lane]
                running[permit.flow] = permit.lane

    picks = iter(choices)
    while to_submit or barriers or running:
        pick = next(picks, 0)
        kinds = ["submit"] * bool(to_submit) + ["reply"] * bool(barriers) + ["done"] * bool(running)
        kinds += ["tick"] * (pick != 0)
        match kinds[pick % len(kinds)]:
            case "submit":
                take(world.submit(to_submit.pop(0)))
            case "reply":
                barrier = barriers.pop(pick % len(barriers))
                in_force[barrier.lane] = barrier.level
                take(world.dispatcher.confirmed(barrier.lane, barrier.level))
            case "done":
                flow = sorted(running)[pick % len(running)]
                del running[flow]
                finished.append(flow)
                take(world.completed(flow))
            case "tick":
                take(world.tick())
    assert sorted(finished) == list("abcdefgh")
    assert dict(world.scheduler.view.flows) == {}
    assert in_force == {lane: world.rules.level(f"{lane}#0") for lane in in_force}
    world.lane("three")  # nothing holds the two lanes back
    assert [len(permits([*a, *world.confirm(a)])) for a in map(world.submit, "xyz")] == [1, 1, 1]

"""Overload control in the scheduler: pruned flows go to the scavenger and come back.

The port carries 8 Gb/s, which is 1 MB in 1 ms.
"""

from itertools import pairwise

import msgspec
import pytest
from fluid import Arrival, BatchStart, Happening, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_world import in_force

from controller.flow import Assignment, Batch, BatchRequest, Flow, Level, Stage
from controller.overload import Prunings, RequestControl
from controller.policies import make_policy
from controller.policy import Policy, Verdict, Verdicts
from controller.scheduler import Scheduler
from controller.spec import read_spec
from controller.verdict_checks import SchedulerError
from controller.view import ActiveBatch, ActiveFlow, View

UP = "h1->s1"
PORTS = {UP: 8 * 10**9}
MB = 1_000_000
MS = 1_000_000
HALF = RequestControl(drop_budget=0.5)


def wants(name: str, due_ms: int, mb: int, tail_ms: int = 0) -> BatchRequest:
    return BatchRequest(id=name, deadline_ns=due_ms * MS, tail_ns=tail_ms * MS, load={UP: mb * MB})


def batch(name: str, *requests: BatchRequest, compute_ms: int = 0) -> Batch:
    return Batch(id=name, layers=4, requests=requests, compute_ns=compute_ms * MS)


def flow(name: str, of: str, request: str | None, mb: int, stage: Stage = Stage.P2D) -> Flow:
    return Flow(
        id=name, stage=stage, size_bytes=mb * MB, load={UP: mb * MB}, batch=of, request=request, layer=0
    )


def world(
    policy: str = "stage", control: RequestControl | None = HALF, prunings: Prunings | None = None
) -> Scheduler:
    """b1 with one request of 30 MB, due at 50 ms, and the flow `old` of it."""
    told = (prunings or Prunings()).changed
    core = Scheduler(make_policy(policy), ports=PORTS, control=control, pruned=told)
    core.batch_started(0, batch("b1", wants("r1", 50, 30)))
    core.submit(0, flow("old", "b1", "r1", 10))
    return core


B2 = batch("b2", wants("r2", 52, 25))
"""After b1, 30 + 25 = 55 ms: 3 ms late, and r1 is the heavier one."""


def moves(said: list[Assignment]) -> list[tuple[str, Level | None, Level]]:
    return [(one.flow, one.previous, one.level) for one in said]


def test_the_flows_of_a_pruned_request_go_to_the_scavenger_when_a_batch_arrives() -> None:
    (said,) = world().batch_started(0, B2)
    assert (said.flow, said.previous, said.level) == ("old", Level.P4, Level.SCAVENGER)
    assert said.reason == (
        "pruned: batch b2 would end 3 ms after its loose deadline; request r1 loads h1->s1 most, 30 MB"
    )


def test_they_return_to_the_policys_level_when_a_departure_makes_room() -> None:
    core = world()
    core.batch_started(0, B2)
    (said,) = core.layer_advanced(1 * MS, "b2", 4)
    assert moves([said]) == [("old", Level.SCAVENGER, Level.P4)]
    assert said.reason.endswith("0 of 1 active requests are pruned")
    assert in_force(core, "old") is Level.P4


def test_a_request_that_was_freed_was_pruned_but_did_not_end_so() -> None:
    prunings = Prunings()
    core = world(prunings=prunings)
    core.batch_started(0, B2)
    assert (prunings.times, prunings.at_their_end) == ({"r1": 1}, {"r1"})
    core.layer_advanced(1 * MS, "b2", 4)  # b2 departs: there is room
    assert (prunings.times, prunings.at_their_end) == ({"r1": 1}, frozenset())
    core.batch_started(1 * MS, msgspec.structs.replace(B2, id="b3"))
    assert (prunings.times, prunings.at_their_end) == ({"r1": 2}, {"r1"})


def test_a_request_whose_next_part_is_not_pruned_did_not_end_pruned() -> None:
    """The batch with part 1 is over before the one with part 2 starts."""
    prunings = Prunings()
    core = world(prunings=prunings)
    core.batch_started(0, B2)
    core.layer_advanced(1 * MS, "b1", 4)
    core.completion(2 * MS, "old")
    core.layer_advanced(3 * MS, "b2", 4)
    core.batch_started(4 * MS, batch("b3", wants("r1", 50, 30)))
    assert (prunings.times, prunings.at_their_end) == ({"r1": 1}, frozenset())


def test_a_request_that_ends_while_it_is_pruned_ended_pruned() -> None:
    prunings = Prunings()
    core = world(prunings=prunings)
    core.batch_started(0, B2)
    core.layer_advanced(1 * MS, "b1", 4)
    core.completion(2 * MS, "old")  # b1 departs with its request
    core.layer_advanced(3 * MS, "b2", 4)
    assert (prunings.times, prunings.at_their_end) == ({"r1": 1}, {"r1"})


def test_the_s3_of_a_pruned_request_is_due_before_nobody_until_it_returns() -> None:
    """`old` has 10 MB; the port has none due while r1 is pruned."""
    core = Scheduler(make_policy("mfs"), ports=PORTS, control=HALF)
    core.batch_started(0, batch("b1", wants("r1", 50, 30)))
    core.submit(0, msgspec.structs.replace(flow("old", "b1", "r1", 10), deadline_ns=50 * MS))
    due_bytes = [core.view.ports.due(UP, 50 * MS).bytes]
    core.batch_started(0, B2)
    due_bytes.append(core.view.ports.due(UP, 50 * MS).bytes)
    core.layer_advanced(1 * MS, "b2", 4)
    due_bytes.append(core.view.ports.due(UP, 50 * MS).bytes)
    assert due_bytes == [10 * MB, 0, 10 * MB]


def test_a_new_flow_of_a_pruned_request_starts_in_the_scavenger() -> None:
    core = world()
    core.batch_started(0, B2)
    assert moves(core.submit(0, flow("new", "b1", "r1", 10))) == [("new", None, Level.SCAVENGER)]
    assert in_force(core, "new") is Level.SCAVENGER
    assert core.view.flows["new"].level is Level.P4  # what the policy said, and sees


def test_a_request_that_is_not_pruned_follows_the_policy() -> None:
    core = world()
    core.batch_started(0, B2)
    assert moves(core.submit(0, flow("other", "b2", "r2", 10))) == [("other", None, Level.P4)]


@pytest.mark.parametrize(("mates", "level"), [((), Level.SCAVENGER), ((wants("mate", 50, 0),), Level.P2)])
def test_collectives_are_pruned_with_the_last_request_of_their_batch(
    mates: tuple[BatchRequest, ...], level: Level
) -> None:
    core = Scheduler(make_policy("stage"), ports=PORTS, control=HALF)
    core.batch_started(0, batch("b1", wants("r1", 50, 30), *mates))
    core.submit(0, flow("s2", "b1", None, 1, Stage.COLLECTIVE))
    core.batch_started(0, B2)
    assert in_force(core, "s2") is level


def test_nothing_is_reviewed_at_a_layer_boundary_or_on_progress() -> None:
    """At 1,000 ms everything is late, but no batch has arrived or departed."""
    core = world()
    assert core.layer_advanced(1000 * MS, "b1", 2) == []
    assert core.progress(1001 * MS, "old", 1) == []
    assert in_force(core, "old") is Level.P4


class Ladder(Policy):
    """One level higher at each layer."""

    name = "ladder"
    summary = "for tests"

    def on_submit(self, now_ns: int, flow: ActiveFlow, view: View) -> Verdict:
        return Verdict(Level.P6, "start", 1.0)

    def on_layer(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        return {
            name: Verdict(Level(flow.level - 1), "climb", flow.order + 1.0)
            for name, flow in batch.flows.items()
        }


def test_the_policy_goes_on_deciding_and_its_last_word_holds_when_the_flow_is_free() -> None:
    core = Scheduler(Ladder(None), ports=PORTS, control=HALF)
    core.batch_started(0, batch("b1", wants("r1", 50, 30)))
    core.submit(0, flow("old", "b1", "r1", 10))
    core.batch_started(0, B2)
    assert core.layer_advanced(1, "b1", 1) == core.layer_advanced(2, "b1", 2) == []
    assert moves(core.layer_advanced(3, "b2", 4)) == [("old", Level.SCAVENGER, Level.P4)]


def test_a_pruned_flow_has_no_order_until_it_is_free() -> None:
    core = Scheduler(Ladder(None), ports=PORTS, exact=True, control=HALF)
    core.batch_started(0, batch("b1", wants("r1", 50, 30)))
    core.submit(0, flow("old", "b1", "r1", 10))
    (pruned,) = core.batch_started(0, B2)
    core.layer_advanced(1, "b1", 1)
    (free,) = core.layer_advanced(2, "b2", 4)
    assert [(one.level, one.order) for one in (pruned, free)] == [(Level.SCAVENGER, 0.0), (Level.P5, 2.0)]


@pytest.mark.parametrize(
    "control", [None, RequestControl(prune=False, drop_budget=1.0), RequestControl(drop_budget=0.0)]
)
def test_without_pruning_a_batch_changes_nothing(control: RequestControl | None) -> None:
    assert world(control=control).batch_started(0, B2) == []


def test_what_has_been_delivered_is_no_load_any_more() -> None:
    """`old` has 7 of its 10 MB to go: 27 + 25 = 52 ms, due at 52. A byte more would be late."""
    core = world()
    core.progress(0, "old", 7 * MB)
    assert core.batch_started(0, B2) == []
    core = world()
    core.progress(0, "old", 7 * MB + 1)
    assert moves(core.batch_started(0, B2)) == [("old", Level.P4, Level.SCAVENGER)]


@pytest.mark.parametrize(("layer", "pruned"), [(1, True), (2, False)])
def test_compute_counts_by_the_layers_that_are_left(layer: int, pruned: bool) -> None:
    """40 ms in 4 layers, then 30 MB, due at 50 ms: 30 + 30 = 60 at layer 1, 20 + 30 = 50 at layer 2.
    A batch without load arrives to start each review."""
    core = Scheduler(make_policy("stage"), ports=PORTS, control=RequestControl(drop_budget=1.0))
    core.batch_started(0, batch("b1", wants("r1", 50, 30), compute_ms=40))
    core.layer_advanced(0, "b1", layer)
    core.batch_started(0, batch("b2", wants("r2", 1000, 0)))
    (said,) = core.submit(0, flow("f", "b1", "r1", 30))
    assert (said.level is Level.SCAVENGER) is pruned


@pytest.mark.parametrize(("tail_ms", "pruned"), [(20, False), (21, True)])
def test_a_deadline_leaves_time_for_the_first_decode_step(tail_ms: int, pruned: bool) -> None:
    """30 MB by 50 ms, of which the tail takes 20, or 21."""
    core = Scheduler(make_policy("stage"), ports=PORTS, control=RequestControl(drop_budget=1.0))
    core.batch_started(0, batch("b1", wants("r1", 50, 30, tail_ms)))
    (said,) = core.submit(0, flow("f", "b1", "r1", 30))
    assert (said.level is Level.SCAVENGER) is pruned


def test_a_request_that_has_all_its_kv_no_longer_holds_its_batch_to_its_deadline() -> None:
    """Due at 5, 40 and 60 ms; the loose group begins at 40. At 45 ms the first two are complete and 10 MB
    of the third are left: 55 ms, due at 60."""
    core = Scheduler(make_policy("stage"), ports=PORTS, control=RequestControl(drop_budget=1.0))
    core.batch_started(0, batch("b1", wants("r0", 5, 1), wants("r1", 40, 1), wants("r2", 60, 10)))
    for name, mb in (("r0", 1), ("r1", 1), ("r2", 10)):
        core.submit(0, flow(name, "b1", name, mb))
    core.layer_advanced(45 * MS, "b1", 4)
    core.completion(45 * MS, "r0")
    core.completion(45 * MS, "r1")
    core.batch_started(45 * MS, batch("b2", wants("r3", 1000, 0)))
    assert in_force(core, "r2") is Level.P4


def test_s3_of_a_departed_batch_follows_the_policy() -> None:
    core = world()
    core.batch_started(0, B2)
    core.layer_advanced(0, "b1", 4)
    core.completion(1, "old")
    assert moves(core.submit(2, flow("late", "b1", "r1", 10))) == [("late", None, Level.P4)]


def test_a_batch_that_loads_an_unknown_port_is_refused() -> None:
    request = BatchRequest(id="r", deadline_ns=1, load={"nowhere": 1})
    with pytest.raises(SchedulerError, match="batch 'b' loads 'nowhere', which is not a port here"):
        world().batch_started(0, batch("b", request))


@pytest.mark.parametrize(
    ("spec", "finish_ms"),
    [
        ("fair", {"r0": 60, "r1": 60, "r2": 60}),
        ("fair + requests(drop_budget=0.34)", {"r0": 40, "r1": 40, "r2": 60}),
    ],
)
def test_giving_one_request_up_brings_the_others_in_time(spec: str, finish_ms: dict[str, int]) -> None:
    """Three times 20 MB, due at 40 ms. Fair: each has a third, and all end late, at 60. With one request in
    the scavenger, the two others have 1 MB/ms for 40 MB. It ends when the link has carried all 60."""
    made = read_spec(spec)
    requests = tuple(wants(name, 40, 20) for name in finish_ms)
    happenings: list[Happening] = [BatchStart(0, batch("b", *requests))]
    happenings += [Arrival(0, flow(name, "b", name, 20)) for name in finish_ms]
    outcome = run(Scheduler(made.policy, ports=PORTS, control=made.control), PORTS, happenings)
    assert outcome.finish_ns == {name: ms * MS for name, ms in finish_ms.items()}


steps = st.lists(
    st.tuples(st.sampled_from(["batch", "flow", "flow", "layer", "done"]), st.integers(0, 40)), max_size=50
)


def played(spec: str, sequence: list[tuple[str, int]]) -> tuple[Scheduler, list[Assignment]]:
    """Batches of two requests, flows of any of them, layers and completions; 1 ms between two."""
    made = read_spec(spec)
    core = Scheduler(made.policy, ports=PORTS, control=made.control)
    said: list[Assignment] = []
    layers: dict[str, int] = {}
    for i, (kind, which) in enumerate(sequence):
        now_ns = i * MS
        batches = list(core.view.batches)
        flows = list(core.view.flows)
        if kind == "batch":
            requests = (wants(f"{i}.0", i + which, 5), wants(f"{i}.1", i + 2 * which, which))
            layers[f"b{i}"] = 0
            said += core.batch_started(now_ns, batch(f"b{i}", *requests, compute_ms=which))
        elif kind == "flow" and batches:
            name = batches[which % len(batches)]
            stage = list(Stage)[which % 3]
            said += core.submit(now_ns, flow(f"f{i}", name, f"{name[1:]}.{which % 2}", 1 + which, stage))
        elif kind == "layer" and batches:
            name = batches[which % len(batches)]
            layers[name] = min(4, layers[name] + 1)
            said += core.layer_advanced(now_ns, name, layers[name])
        elif kind == "done" and flows:
            said += core.completion(now_ns, flows[which % len(flows)])
    return core, said


@settings(max_examples=150, deadline=None)
@given(steps)
def test_outside_the_scavenger_flows_are_only_promoted(sequence: list[tuple[str, int]]) -> None:
    core, said = played("mfs + requests(drop_budget=0.6)", sequence)
    levels: dict[str, list[Level]] = {}
    for one in said:
        assert one.previous == (levels[one.flow][-1] if one.flow in levels else None)
        assert one.previous is not one.level
        levels.setdefault(one.flow, []).append(one.level)
    for trail in levels.values():
        policys = [level for level in trail if level is not Level.SCAVENGER]
        assert all(later <= earlier for earlier, later in pairwise(policys))
    assert all(
        in_force(core, active.id) is levels[active.id][-1]
        for active in (one.flow for one in core.view.flows.values())
    )

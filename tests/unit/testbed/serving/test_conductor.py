"""The conductor as a fabric drives it: events go in, actions come out. No fabric is needed.

In the tiny world (`serving_world`) a unit is two ranks, a model two layers; rank 4 decodes.
"""

from collections.abc import Iterable

import msgspec
import pytest
from serving_world import job, placed, prompt

from controller.flow import Stage, Transfer
from testbed.job import Job, MicroFlow, Request
from testbed.serving.actions import Action, Announce, AtLayer, Expect, GoOn, Post, PostTimed, Run
from testbed.serving.conductor import ServingConductor
from testbed.serving.micro import MicroConductor
from workers.plan import BatchPlan

P0, P1 = (0, 1), (2, 3)


def serving(*requests: Request, router: str = "round-robin", **options: object) -> Job:
    made = job(*placed(), router=router)
    changed = msgspec.structs.replace(made.serving, **options)
    return msgspec.structs.replace(made, requests=requests, serving=changed)


def kinds(actions: Iterable[Action]) -> list[type]:
    return [type(action) for action in actions]


class Fabric:
    """Answers every announcement at once, and remembers all actions."""

    def __init__(self, made: Job) -> None:
        self.conductor = ServingConductor(made)
        self.told: list[Action] = []

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.told.append(action)
            if isinstance(action, Announce):
                self.do(self.conductor.known(action.batch.id))

    def running(self) -> BatchPlan:
        return next(action.plan for action in reversed(self.told) if isinstance(action, Run))

    def finish(self, plan: BatchPlan, start_ns: int, end_ns: int) -> None:
        for rank in plan.ranks:
            self.do(self.conductor.rank_done(end_ns, plan.id, rank, start_ns, end_ns))


def test_ranks_hear_of_a_batch_when_the_scheduler_knows_it_and_receivers_first() -> None:
    conductor = ServingConductor(serving(prompt(1, 8)))
    assert conductor.due_ns == 0
    (announced,) = conductor.act(0)
    assert isinstance(announced, Announce)
    assert (announced.batch.id, announced.ranks, announced.fetch) == ("p0.b0", P0, False)
    assert kinds(conductor.known("p0.b0")) == [Expect, Run]
    with pytest.raises(KeyError):
        conductor.known("p0.b0")


def test_a_request_arrives_when_it_is_due() -> None:
    conductor = ServingConductor(serving(prompt(1, 8, arrival_ns=20), prompt(2, 8, arrival_ns=10)))
    assert conductor.due_ns == 10
    assert conductor.act(9) == []
    assert kinds(conductor.act(15)) == [Announce]
    assert conductor.due_ns == 20
    assert kinds(conductor.act(20)) == [Announce]
    assert conductor.due_ns is None


def test_reused_kv_is_sent_for_before_the_ranks_begin() -> None:
    """Request 1 leaves block 7 on p0; request 2 finds it there and runs on p1."""
    fabric = Fabric(serving(prompt(1, 8, (7,)), prompt(2, 8, (7,), arrival_ns=50)))
    fabric.do(fabric.conductor.act(0))
    fabric.finish(fabric.running(), 0, 40)
    fabric.told.clear()
    fabric.do(fabric.conductor.act(50))
    assert kinds(fabric.told) == [Announce, Expect, Post, Run]
    post = fabric.told[2]
    assert isinstance(post, Post)
    assert {(t.stage, t.layer) for t in post.transfers} == {(Stage.KV_REUSE, 0), (Stage.KV_REUSE, 1)}
    assert {t.src for t in post.transfers} <= set(P0)
    assert {t.dst for t in post.transfers} <= set(P1)


def test_layers_ahead_of_the_batch_are_sent_for_as_it_reaches_them() -> None:
    fabric = Fabric(serving(prompt(1, 8, (7,)), prompt(2, 8, (7,), arrival_ns=50), fetch_ahead=0))
    fabric.do(fabric.conductor.act(0))
    fabric.finish(fabric.running(), 0, 40)
    fabric.do(fabric.conductor.act(50))
    plan = fabric.running()
    fabric.told.clear()
    for layer in (0, 1):
        for rank in plan.ranks:
            fabric.do(fabric.conductor.layer_begun(60 + layer, plan.id, rank, layer))
    posted = [[t.layer for t in action.transfers] for action in fabric.told if isinstance(action, Post)]
    assert [set(layers) for layers in posted] == [{1}]


def test_a_batch_is_at_a_layer_when_its_slowest_rank_is() -> None:
    fabric = Fabric(serving(prompt(1, 8)))
    fabric.do(fabric.conductor.act(0))
    fabric.told.clear()
    for rank, layer in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (0, 2)):
        fabric.do(fabric.conductor.layer_begun(10, "p0.b0", rank, layer))
    assert fabric.told == [AtLayer(("p0.b0",), layer) for layer in (0, 1, 2)]


def test_a_batch_is_over_with_its_last_rank_and_the_next_one_begins() -> None:
    """Three requests in turn: the first and the third go to p0."""
    fabric = Fabric(serving(prompt(1, 8), prompt(2, 8), prompt(3, 8)))
    fabric.do(fabric.conductor.act(0))
    assert fabric.running().id == "p1.b0"
    assert fabric.conductor.rank_done(30, "p0.b0", 0, 5, 25) == ()
    fabric.do(fabric.conductor.rank_done(31, "p0.b0", 1, 6, 28))
    assert fabric.running().id == "p0.b1"


def test_a_run_is_over_when_the_last_rank_is_too() -> None:
    """The first token can overtake the report of a slow rank."""
    fabric = Fabric(serving(prompt(1, 8)))
    conductor = fabric.conductor
    fabric.do(conductor.act(0))
    conductor.first_token(20, 1, 15)
    assert (conductor.done, conductor.finished, conductor.under_way) == (1, False, True)
    fabric.finish(fabric.running(), 0, 25)
    assert (conductor.finished, conductor.under_way) == (True, False)


def test_work_is_under_way_from_an_arrival_to_its_first_token() -> None:
    fabric = Fabric(serving(prompt(1, 8), prompt(2, 8, arrival_ns=100)))
    conductor = fabric.conductor
    fabric.do(conductor.act(0))
    fabric.finish(fabric.running(), 0, 25)
    assert conductor.under_way
    conductor.first_token(30, 1, 28)
    assert (conductor.under_way, conductor.finished) == (False, False)
    fabric.do(conductor.act(100))
    assert conductor.under_way


def test_the_row_of_a_request_has_the_first_start_and_the_last_end_of_its_ranks() -> None:
    fabric = Fabric(serving(prompt(1, 8, arrival_ns=10, slo_ns=500), prompt(2, 8, arrival_ns=20)))
    conductor = fabric.conductor
    fabric.do(conductor.act(10))
    fabric.do(conductor.rank_done(130, "p0.b0", 0, 105, 125))
    fabric.do(conductor.rank_done(131, "p0.b0", 1, 101, 128))
    assert conductor.first_token(400, 1, 390) == ()
    done, lost = conductor.request_rows({"2": 3}, {"2"})
    assert (done.status, done.unit, done.batch, done.decode_rank) == ("completed", "p0", "p0.b0", 4)
    assert (done.start_ns, done.prefill_end_ns, done.p2d_end_ns) == (101, 128, 390)
    assert (done.first_token_ns, done.ttft_ns, done.slo_ns) == (400, 390, 500)
    assert (done.new_tokens, done.local_tokens, done.remote_tokens) == (8, 0, 0)
    assert (lost.status, lost.ttft_ns, lost.first_token_ns, lost.batch) == ("failed", None, None, None)
    assert (done.times_pruned, done.ended_pruned) == (0, False)
    assert (lost.times_pruned, lost.ended_pruned) == (3, True)
    assert (conductor.done, conductor.total, conductor.finished) == (1, 2, False)


def test_ranks_that_have_paused_go_on_when_all_have() -> None:
    fabric = Fabric(serving(prompt(1, 8), preempt_layers=1))
    fabric.do(fabric.conductor.act(0))
    plan = fabric.running()
    assert fabric.conductor.paused(20, plan.id, 1, 1) == ()
    assert fabric.conductor.paused(21, plan.id, 0, 1) == [GoOn(plan)]


def test_kv_that_is_sent_for_while_its_request_waits_is_announced_as_a_fetch() -> None:
    """In turn p0, p1, p0, p1. Request 4 waits behind request 2, and block 7 is on p0."""
    busy = (prompt(2, 16, arrival_ns=50), prompt(3, 8, arrival_ns=50))
    last = prompt(4, 8, (7,), arrival_ns=60)
    fabric = Fabric(serving(prompt(1, 8, (7,)), *busy, last, fetch_early=True))
    fabric.do(fabric.conductor.act(0))
    fabric.finish(fabric.running(), 0, 40)
    fabric.do(fabric.conductor.act(50))
    fabric.told.clear()
    fabric.do(fabric.conductor.act(60))
    announced, expected, post = fabric.told
    assert isinstance(announced, Announce)
    assert (announced.ranks, announced.fetch) == (P1, True)
    assert isinstance(expected, Expect)
    assert expected.plan.id == announced.batch.id
    assert isinstance(post, Post)
    assert {t.stage for t in post.transfers} == {Stage.KV_REUSE}


def test_between_decode_workers_a_step_follows_another_until_the_last_first_token() -> None:
    made = job(*placed(decode=2, servers=6))
    options = msgspec.structs.replace(made.serving, decode_background=4)
    fabric = Fabric(msgspec.structs.replace(made, serving=options, requests=(prompt(1, 8),)))
    conductor = fabric.conductor
    assert conductor.due_ns == 0
    fabric.do(conductor.act(0))
    post = fabric.told[-1]
    assert isinstance(post, Post)
    assert {(t.src, t.dst, t.request) for t in post.transfers} == {(4, 5, None), (5, 4, None)}
    assert conductor.due_ns is None  # they are on their way
    steps = conductor.steps
    conductor.arrived(post.transfers[0].id)
    assert conductor.steps == steps  # no request gets further by it
    fabric.finish(fabric.running(), 0, 10)
    conductor.first_token(20, 1, 15)
    assert (conductor.done, conductor.finished) == (1, False)
    for transfer in post.transfers[1:]:
        conductor.arrived(transfer.id)
    assert conductor.due_ns is None  # the last first token is out
    assert conductor.finished


def test_a_stalled_run_is_told_which_ranks_its_batches_wait_for() -> None:
    fabric = Fabric(serving(prompt(1, 8)))
    assert fabric.conductor.describe() == (
        "0 of 1 requests done (0 queued, 0 running, 0 prefilled, 0 done); no batch is running"
    )
    fabric.do(fabric.conductor.act(0))
    fabric.do(fabric.conductor.rank_done(9, "p0.b0", 0, 0, 9))
    assert fabric.conductor.describe() == (
        "0 of 1 requests done (0 queued, 1 running, 0 prefilled, 0 done); p0.b0 waits for ranks [1]"
    )


# --- the micro workload -----------------------------------------------------------------------------


def micro(*flows: tuple[str, Stage, str | None, int | None]) -> MicroConductor:
    made = tuple(
        MicroFlow(
            transfer=Transfer(id=id, stage=stage, src=0, dst=1, size_bytes=1, batch=batch, layer=layer),
            start_ns=10 * i,
        )
        for i, (id, stage, batch, layer) in enumerate(flows)
    )
    return MicroConductor(msgspec.structs.replace(job(*placed()), flows=made))


def test_micro_flows_are_posted_at_once_where_no_batch_has_to_be_known() -> None:
    (post,) = micro(("a", Stage.P2D, None, None), ("b", Stage.P2D, None, None)).begin()
    assert isinstance(post, PostTimed)
    assert [(flow.transfer.id, flow.start_ns) for flow in post.flows] == [("a", 0), ("b", 10)]


def test_micro_flows_wait_until_the_scheduler_knows_all_batches() -> None:
    conductor = micro(("a", Stage.KV_REUSE, "x", 2), ("b", Stage.KV_REUSE, "y", 0))
    announced = conductor.begin()
    assert [(a.batch.id, a.ranks) for a in announced if isinstance(a, Announce)] == [("x", ()), ("y", ())]
    assert conductor.known("x") == (AtLayer(("x",), 2),)
    assert kinds(conductor.known("y")) == [AtLayer, PostTimed]


def test_a_batch_of_micro_flows_is_at_the_lowest_layer_that_waits_for_one() -> None:
    conductor = micro(
        ("s1", Stage.KV_REUSE, "x", 0), ("s2", Stage.COLLECTIVE, "x", 1), ("s3", Stage.P2D, "x", 1)
    )
    conductor.known("x")
    assert conductor.arrived("s1") == (AtLayer(("x",), 1),)
    assert conductor.arrived("s3") == ()
    assert not conductor.finished
    assert conductor.describe() == "2 of 3 done; still on their way: s2"
    assert conductor.arrived("s2") == (AtLayer(("x",), 2),)
    assert conductor.finished

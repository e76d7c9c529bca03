"""A batch that pauses between layers lets a more urgent one go first: which requests may, and when.

The hand-worked runs have one rank that computes 500 FLOP/s, nothing to send before decode, and a dense
model of four layers. Per layer, n tokens take 128 n (projections) + 16 n (n + 1) / 2 (scores) + 192 n
FLOPs (MLP):

    long, 100 tokens    12,800 + 80,800 + 19,200 = 112,800 FLOPs, 225.6 s a layer, 902.4 s in all
    short, 10 tokens     1,280 +    880 +  1,920 =   4,080 FLOPs,  8.16 s a layer, 32.64 s in all
"""

import msgspec
import pytest
from serving_world import DENSE, job, placed, prompt

from testbed.fabrics import FABRICS
from testbed.job import Job, Request, UnitShape
from testbed.record import RequestRow, RunRecord
from testbed.serving.batching.preemption import rest_ns, urgent
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, Resume

S = 10**9
FOUR_LAYERS = msgspec.structs.replace(DENSE, layers=4)


def with_slo(number: int, tokens: int, *, arrival_s: float, slo_s: float, unloaded_s: float) -> Request:
    request = prompt(number, tokens, arrival_ns=round(arrival_s * S), slo_ns=round(slo_s * S))
    return msgspec.structs.replace(request, unloaded_ns=round(unloaded_s * S))


LONG = with_slo(1, 100, arrival_s=0, slo_s=3000, unloaded_s=1000)


def short(number: int = 2, *, arrival_s: float = 100, due_s: float = 700) -> Request:
    return with_slo(number, 10, arrival_s=arrival_s, slo_s=due_s - arrival_s, unloaded_s=50)


def one_rank(preempt_layers: int | None, *requests: Request, chunk_tokens: int | None = None) -> Job:
    topology, placement = placed(units=1, per_unit=1, servers=2, model=FOUR_LAYERS)
    plain = job(topology, placement, model=FOUR_LAYERS, max_batch_tokens=100)
    serving = msgspec.structs.replace(plain.serving, preempt_layers=preempt_layers, chunk_tokens=chunk_tokens)
    return msgspec.structs.replace(plain, serving=serving, requests=requests)


def played(a_job: Job) -> RunRecord:
    record = FABRICS["sim"]().run(a_job, lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    assert [row.status for row in record.requests] == ["completed"] * len(a_job.requests)
    return record


def prefill_s(record: RunRecord) -> dict[int, tuple[float, float]]:
    def times(row: RequestRow) -> tuple[float, float]:
        assert row.start_ns is not None
        assert row.prefill_end_ns is not None
        return row.start_ns / S, row.prefill_end_ns / S

    return {row.request: times(row) for row in record.requests}


# --- who may go first -------------------------------------------------------------------------------


def chosen(*queue: Request, rest_s: float = 400, due_s: float = 3000, unit_s: float = 30) -> list[int]:
    """At 500 s."""
    found = urgent(
        queue, now_ns=500 * S, rest_ns=rest_s * S, due_ns=round(due_s * S), unit_ns=lambda _: unit_s * S
    )
    return [request.id for request in found]


def test_who_is_in_time_only_if_the_batch_waits_goes_first() -> None:
    """At 500 with 400 s to go and 50 s alone: due at 700 is late behind the batch (950), not before (550)."""
    assert chosen(short(due_s=700)) == [2]


def test_who_is_in_time_behind_the_batch_as_well_waits() -> None:
    assert chosen(short(due_s=949)) == [2]
    assert chosen(short(due_s=950)) == []


def test_who_is_late_even_before_the_batch_waits() -> None:
    assert chosen(short(due_s=550)) == [2]
    assert chosen(short(due_s=549)) == []


def test_who_is_due_after_one_of_the_batch_waits() -> None:
    assert chosen(short(due_s=700), due_s=700) == []
    assert chosen(short(due_s=700), due_s=701) == [2]


def test_several_go_first_while_each_is_in_time_behind_the_others() -> None:
    """Turns at 500, 530 and 560 for requests due at 560, 570 and 620: 550 and 610 are in time, 580 is
    not. So the second takes no turn, and the third has its turn at 530."""
    queue = [short(4, due_s=620), short(3, due_s=570), short(2, due_s=560)]
    assert chosen(*queue) == [2, 4]


# --- what the serving system says -------------------------------------------------------------------


def paused_system(*queue: Request) -> tuple[ServingSystem, BatchPlan]:
    system = ServingSystem(one_rank(2))
    (plan,) = system.arrive(0, LONG)
    assert isinstance(plan, BatchPlan)
    for request in queue:
        assert system.arrive(request.arrival_ns, request) == []
    return system, plan


def test_a_batch_is_told_to_pause_and_one_that_goes_first_is_not() -> None:
    system, long = paused_system(short())
    assert long.pause_every == 2
    assert [layer for layer in range(4) if long.pauses_before(layer)] == [2]
    (first,) = system.paused(451 * S, long.id, 2)
    assert isinstance(first, BatchPlan)
    assert (first.pause_every, [r.request for r in first.requests]) == (None, [2])
    assert system.batch_done(484 * S, first.id) == [Resume(batch=long.id)]
    assert system.batch_done(940 * S, long.id) == []


def test_a_batch_goes_on_at_once_when_nobody_is_more_urgent() -> None:
    system, long = paused_system()
    assert system.paused(451 * S, long.id, 2) == [Resume(batch=long.id)]


def test_after_one_that_went_first_another_may() -> None:
    system, long = paused_system(short(2, due_s=700))
    (first,) = system.paused(451 * S, long.id, 2)
    assert isinstance(first, BatchPlan)
    assert system.arrive(460 * S, short(3, arrival_s=460, due_s=690)) == []
    (second,) = system.batch_done(484 * S, first.id)
    assert isinstance(second, BatchPlan)
    assert [r.request for r in second.requests] == [3]
    assert system.batch_done(520 * S, second.id) == [Resume(batch=long.id)]


def test_pauses_that_cannot_be_are_refused() -> None:
    system, long = paused_system(short())
    with pytest.raises(ValueError, match=r"batch 'p0\.b0' cannot pause before layer 1"):
        system.paused(0, long.id, 1)
    with pytest.raises(ValueError, match=r"batch 'p0\.b7' is not running"):
        system.paused(0, "p0.b7", 2)
    (first,) = system.paused(451 * S, long.id, 2)
    assert isinstance(first, BatchPlan)
    with pytest.raises(ValueError, match=r"batch 'p0\.b1' cannot pause before layer 2"):
        system.paused(0, first.id, 2)
    with pytest.raises(ValueError, match=r"batch 'p0\.b0' has paused, it cannot end"):
        system.batch_done(0, long.id)


def test_a_pipeline_cannot_be_preempted() -> None:
    made = one_rank(2)
    made = msgspec.structs.replace(
        made, placement=msgspec.structs.replace(made.placement, shapes={"p0": UnitShape(pp=2)})
    )
    with pytest.raises(ValueError, match="a unit with several pipeline stages cannot be preempted"):
        ServingSystem(made)


def test_what_is_left_of_a_batch_is_its_layers() -> None:
    """225.6 s a layer: two of them, and none."""
    made = one_rank(2)
    (plan,) = ServingSystem(made).arrive(0, LONG)
    assert isinstance(plan, BatchPlan)
    assert rest_ns(plan, 2, made.placement, made.topology) == pytest.approx(451.2 * S)
    assert rest_ns(plan, 4, made.placement, made.topology) == 0


# --- what happens -----------------------------------------------------------------------------------


def test_without_preemption_a_short_prompt_waits_for_the_end_of_a_long_batch() -> None:
    assert prefill_s(played(one_rank(None, LONG, short()))) == {1: (0, 902.4), 2: (902.4, 935.04)}


def test_with_preemption_it_goes_between_two_layers_of_the_long_batch() -> None:
    """It arrives at 100. The batch pauses after two layers, at 451.2, with 451.2 s to go; the short one
    takes 32.64 s, the long one ends that much later."""
    record = played(one_rank(2, LONG, short()))
    assert prefill_s(record) == {1: (0, 935.04), 2: (451.2, 483.84)}
    first = {row.request: row.first_token_ns for row in record.requests}
    assert first[2] is not None
    assert first[2] < 700 * S
    pauses = [(s.batch, s.layer, s.start_ns / S, s.end_ns / S) for s in record.spans if s.kind == "paused"]
    assert pauses == [("p0.b0", 2, 451.2, 483.84)]


def test_a_batch_may_be_preempted_at_several_pauses() -> None:
    """A pause after each layer: request 2, which has arrived by then, goes after the second, at 451.2.
    So the third layer ends at 709.44. Request 3, due at 800, goes then: it would be late at 709.44 +
    225.6."""
    queue = (short(2, arrival_s=300, due_s=600), short(3, arrival_s=500, due_s=800))
    assert prefill_s(played(one_rank(1, LONG, *queue))) == {
        1: (0, 967.68),
        2: (451.2, 483.84),
        3: (709.44, 742.08),
    }


def test_pauses_at_which_nothing_goes_first_take_no_time() -> None:
    """Due at 960, the short one is in time after the batch: 451.2 + 451.2 + 50 = 952.4."""
    later = short(due_s=960)
    paused, straight = (played(one_rank(layers, LONG, later)) for layers in (2, None))
    assert paused.requests == straight.requests
    assert list(paused.flows) == list(straight.flows)
    assert list(paused.spans) == list(straight.spans)


def test_split_prompts_and_preemption_go_together() -> None:
    """50 tokens of the long prompt per batch: 6,400 + 16 x 1,275 + 9,600 = 36,400 FLOPs, 72.8 s a layer,
    and then 6,400 + 16 x 3,775 + 9,600 = 76,400, 152.8 s. The second part begins at 291.2 and pauses at
    596.8, before the short prompt of 500 is late: 596.8 + 305.6 + 50 > 700. It takes 32.64 s."""
    record = played(one_rank(2, LONG, short(arrival_s=500), chunk_tokens=50))
    assert prefill_s(record) == {1: (0, 935.04), 2: (596.8, 629.44)}
    rows = {row.request: row for row in record.requests}
    assert (rows[1].earlier_batches, rows[1].batch, rows[2].batch) == (("p0.b0",), "p0.b1", "p0.b2")
    assert rows[1].new_tokens == 100

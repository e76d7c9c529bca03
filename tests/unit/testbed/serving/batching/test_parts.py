"""Prompts that are split over several batches: which tokens are where, and that nothing is lost."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_world import MOE, job, prompt

from controller.flow import Stage, Transfer
from testbed.job import Request
from testbed.models.sizes import kv_bytes_per_token
from testbed.placement import Layout, place
from testbed.serving.batching.forming import Part, take_batch
from testbed.serving.system import ServingSystem
from testbed.serving.unit import Phase
from testbed.topology import star
from workers.plan import BatchPlan, Compute, Resume


def system(
    *, chunk_tokens: int, units: int = 1, per_unit: int = 1, pp: int = 1, batching: str | None = None
) -> ServingSystem:
    topology = star(servers=9, nic_bps=800)
    placement = place(
        topology,
        prefill_units=units,
        ranks_per_unit=per_unit * pp,
        decode_ranks=1,
        ranks_per_server=1,
        tp=None,
        ep=None,
        layout=Layout.SPREAD,
        pp=pp,
        model=MOE,
    )
    plain = job(topology, placement, router="round-robin")
    serving = msgspec.structs.replace(plain.serving, chunk_tokens=chunk_tokens, batching=batching)
    return ServingSystem(msgspec.structs.replace(plain, serving=serving))


def stage(plan: BatchPlan, wanted: Stage) -> list[Transfer]:
    transfers: Iterable[Transfer] = (t for layer in plan.layers for t in (*layer.wait, *layer.post))
    return [t for t in transfers if t.stage is wanted]


def batch(found: list[BatchPlan | Resume]) -> BatchPlan:
    (plan,) = found
    assert isinstance(plan, BatchPlan)
    return plan


def computed(plan: BatchPlan) -> list[tuple[int, int, int]]:
    """For each request, the tokens before its part and the tokens of the part."""
    return [(r.request, r.local_tokens + r.remote_tokens, r.new_tokens) for r in plan.requests]


def test_who_does_not_fit_is_split_to_fill_the_batch() -> None:
    queue = [prompt(1, 6), prompt(2, 6), prompt(3, 6)]
    taken = take_batch(queue, lambda request: request.prompt_tokens, 10, split=True)
    assert taken == [Part(queue[0], None), Part(queue[1], 4)]
    full = take_batch(queue, lambda request: request.prompt_tokens, 12, split=True)
    assert full == [Part(queue[0], None), Part(queue[1], None)]


def test_a_long_prompt_is_computed_part_by_part_and_the_last_batch_is_filled_up() -> None:
    """25 tokens, 10 to a batch: 10, 10, and 5 together with 5 of the 8 of the next, whose 3 come last."""
    serving = system(chunk_tokens=10)
    plans = [batch([*serving.arrive(0, prompt(1, 25))])]
    assert serving.arrive(1, prompt(2, 8)) == []
    for now_ns in (2, 3, 4):
        plans.append(batch(serving.batch_done(now_ns, plans[-1].id)))
    assert [computed(plan) for plan in plans] == [
        [(1, 0, 10)],
        [(1, 10, 10)],
        [(1, 20, 5), (2, 0, 5)],
        [(2, 5, 3)],
    ]
    assert [[r.last for r in plan.requests] for plan in plans] == [[False], [False], [True, False], [True]]
    assert serving.batch_done(5, plans[-1].id) == []


def test_each_part_delivers_its_own_kv_and_the_first_token_waits_for_all() -> None:
    """16 B per token and layer, 2 layers: parts of 10, 10 and 5 tokens are 160, 160 and 80 B per layer.
    Flows are counted over the parts: 2, 4, 6. All are due when the request is."""
    serving = system(chunk_tokens=10)
    plan = batch([*serving.arrive(7, prompt(1, 25, arrival_ns=7))])
    sizes, flows = [], []
    for _ in range(3):
        sizes.append([t.size_bytes for t in stage(plan, Stage.P2D)])
        flows += plan.requests[0].p2d_flows
        assert {t.deadline_ns for t in stage(plan, Stage.P2D)} == {1007}
        following = serving.batch_done(8, plan.id)
        plan = batch(following) if following else plan
    assert sizes == [[160, 160], [160, 160], [80, 80]]
    assert flows == [2, 4, 6]


def test_the_scores_of_a_part_see_all_tokens_before_it() -> None:
    """Tokens 11 to 20 look at 11 + ... + 20 = 155 keys at 16 FLOPs each; 128 FLOPs of projections a token."""
    serving = system(chunk_tokens=10)
    first = batch([*serving.arrive(0, prompt(1, 20))])
    second = batch(serving.batch_done(1, first.id))
    attention = second.layers[0].steps[0]
    assert isinstance(attention, Compute)
    assert attention.flops == (10 * 128 + 155 * 16 + 10 * 32,)  # and the gate's 32


def test_reused_kv_is_fetched_and_delivered_with_the_first_part() -> None:
    """Two blocks of 4 tokens are on the other unit. Of 25 tokens, 8 are fetched and 10 and 7 computed.
    S1 is 8 x 16 B per layer in the first batch, S3 (8 + 10) x 16, then 7 x 16."""
    serving = system(chunk_tokens=10, units=2)
    before = batch([*serving.arrive(0, prompt(0, 8, (1, 2)))])
    serving.batch_done(1, before.id)
    first = batch([*serving.arrive(2, prompt(1, 25, (1, 2)))])
    second = batch(serving.batch_done(3, first.id))
    assert [t.size_bytes for t in stage(first, Stage.KV_REUSE)] == [128, 128]
    assert [t.size_bytes for t in stage(first, Stage.P2D)] == [288, 288]
    assert stage(second, Stage.KV_REUSE) == []
    assert [t.size_bytes for t in stage(second, Stage.P2D)] == [112, 112]
    (item,) = second.requests
    assert (item.local_tokens, item.remote_tokens, item.new_tokens) == (18, 0, 7)


def test_parts_stay_on_the_replica_that_has_what_comes_before() -> None:
    """Request 1 begins on replica 0, and its second part goes on there. Request 2, which has as much to
    compute, takes the other replica."""
    serving = system(chunk_tokens=10, per_unit=2)
    first = batch([*serving.arrive(0, prompt(1, 15))])
    serving.arrive(0, prompt(2, 5))
    second = batch(serving.batch_done(1, first.id))
    replicas = {r.request: r.replica for r in (*first.requests, *second.requests)}
    assert first.requests[0].replica == second.requests[0].replica
    assert computed(second) == [(1, 10, 5), (2, 0, 5)]
    assert replicas[1] != replicas[2]


def test_a_part_leaves_its_blocks_to_others() -> None:
    """10 of 25 tokens fill two blocks of 4, which the next request reuses."""
    serving = system(chunk_tokens=10, batching="length-aware")
    first = batch([*serving.arrive(0, prompt(1, 60, tuple(range(15))))])
    serving.arrive(0, prompt(2, 9, (0, 1)))
    assert computed(batch(serving.batch_done(1, first.id)))[0] == (2, 8, 1)


def test_between_two_parts_a_more_urgent_request_goes_first() -> None:
    serving = system(chunk_tokens=10, batching="deadline")
    first = batch([*serving.arrive(0, prompt(1, 25, slo_ns=1000))])
    serving.arrive(1, prompt(2, 10, slo_ns=500))
    second = batch(serving.batch_done(2, first.id))
    third = batch(serving.batch_done(3, second.id))
    assert [computed(plan) for plan in (second, third)] == [[(2, 0, 10)], [(1, 10, 10)]]
    assert serving.counts()[Phase.RUNNING] == 1


def test_in_a_pipeline_a_part_waits_for_the_end_of_the_one_before() -> None:
    """Two batches may be in flight: the second one has request 2, not the second part of request 1."""
    serving = system(chunk_tokens=10, pp=2)
    first = batch([*serving.arrive(0, prompt(1, 25))])
    second = batch([*serving.arrive(1, prompt(2, 4))])
    assert serving.arrive(2, prompt(3, 4)) == []
    third = batch(serving.batch_done(3, first.id))
    assert [computed(plan) for plan in (first, second, third)] == [
        [(1, 0, 10)],
        [(2, 0, 4)],
        [(1, 10, 10)],
    ]
    with pytest.raises(ValueError, match=r"batch 'p0\.b0' is not running"):
        serving.batch_done(4, first.id)


PROMPTS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3), st.booleans()), min_size=1, max_size=20)
RULES = st.sampled_from([None, "fcfs", "deadline", "red", "length-aware"])


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.integers(1, 16), RULES, st.sampled_from([1, 2]))
def test_whatever_is_split_requests_and_their_kv_are_conserved(
    prompts: list[tuple[int, int, bool]], chunk_tokens: int, batching: str | None, at_once: int
) -> None:
    """Each prompt's parts follow each other without a gap, one batch after another. No batch has more new
    tokens than allowed. Exactly prompt tokens x 32 B are delivered, in as many flows as the last part has."""
    serving = system(chunk_tokens=chunk_tokens, units=2, per_unit=2, pp=at_once, batching=batching)
    requests = {
        i: prompt(
            i, tokens, tuple(100 * talk + b for b in range(tokens // 4)), arrival_ns=i, slo_ns=7 * tokens
        )
        for i, (tokens, talk, _) in enumerate(prompts)
    }
    running: list[BatchPlan] = []
    reached = dict.fromkeys(requests, 0)
    delivered = dict.fromkeys(requests, 0)
    flows = dict.fromkeys(requests, 0)

    def started(found: Iterable[object]) -> None:
        for plan in found:
            assert isinstance(plan, BatchPlan)
            running.append(plan)
            assert sum(item.new_tokens for item in plan.requests) <= chunk_tokens
            for item in plan.requests:
                if reached[item.request]:
                    assert (item.local_tokens, item.remote_tokens) == (reached[item.request], 0)
                assert item.new_tokens >= 1
                reached[item.request] = item.local_tokens + item.remote_tokens + item.new_tokens
            for transfer in stage(plan, Stage.P2D):
                assert transfer.request is not None
                delivered[transfer.request] += transfer.size_bytes
                flows[transfer.request] += 1
            for item in plan.requests:
                assert sum(item.p2d_flows) == flows[item.request]
                assert item.last is (reached[item.request] == requests[item.request].prompt_tokens)

    def end_oldest(now_ns: int) -> None:
        plan = running.pop(0)
        started(serving.batch_done(now_ns, plan.id))
        for item in plan.requests:
            if item.last:
                serving.first_token(now_ns, item.request)

    for now_ns, (_, _, ends) in enumerate(prompts):
        started(serving.arrive(now_ns, requests[now_ns]))
        assert sum(serving.counts().values()) == now_ns + 1
        if ends and running:
            end_oldest(now_ns)
    while running:
        end_oldest(len(prompts))
    assert serving.counts()[Phase.DONE] == len(requests)
    for number, request in requests.items():
        assert reached[number] == request.prompt_tokens
        assert delivered[number] == request.prompt_tokens * kv_bytes_per_token(MOE)


def test_a_request_of_a_unit_with_room_for_all_of_it_is_not_split() -> None:
    request: Request = prompt(1, 10)
    (item,) = batch([*system(chunk_tokens=10).arrive(0, request)]).requests
    assert (item.new_tokens, item.last) == (10, True)

"""The serving system as its callers drive it: events in, plans out, nothing lost."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_world import MOE, job, placed, prompt, with_cache

from controller.flow import Stage, Transfer
from testbed.job import Request
from testbed.models.sizes import kv_bytes_per_token
from testbed.serving.system import ServingSystem
from testbed.serving.unit import Phase
from workers.plan import BatchPlan


def test_an_idle_unit_starts_at_once() -> None:
    (plan,) = _system().arrive(5, prompt(0, 8))
    assert (plan.id, plan.unit, plan.formed_ns) == ("p0.b0", "p0", 5)


def test_a_busy_unit_collects_its_queue_into_the_next_batch() -> None:
    """A budget of 16 tokens: 8 + 8 fit, the third 8 waits for the batch after."""
    system = _system(units=1)
    system.arrive(0, prompt(0, 8))
    for number in (1, 2, 3):
        assert system.arrive(1, prompt(number, 8)) == []
    (second,) = system.batch_done(2, "p0.b0")
    (third,) = system.batch_done(3, "p0.b1")
    assert [r.request for r in second.requests] == [1, 2]
    assert [r.request for r in third.requests] == [3]
    assert system.batch_done(4, "p0.b2") == []


def test_the_least_queued_unit_is_chosen_by_tokens_not_by_requests() -> None:
    """12 tokens on p0; 4 and 4 fit on p1 before it is as full."""
    system = _system()
    units = [_unit_of(system, prompt(i, tokens)) for i, tokens in enumerate((12, 4))]
    assert units == ["p0", "p1"]
    assert system.arrive(0, prompt(2, 4)) == []
    assert system.arrive(0, prompt(3, 5)) == []
    (plan,) = system.batch_done(1, "p1.b0")
    assert [r.request for r in plan.requests] == [2, 3]


def test_a_prefix_can_be_reused_once_its_batch_is_done() -> None:
    system = _system(units=1)
    system.arrive(0, prompt(0, 9, (1, 2)))
    system.arrive(1, prompt(1, 9, (1, 2)))
    (plan,) = system.batch_done(2, "p0.b0")
    (item,) = plan.requests
    assert (item.new_tokens, item.local_tokens, item.remote_tokens) == (1, 8, 0)
    assert _stage(plan, Stage.KV_REUSE) == []


def test_a_prefix_on_another_unit_is_fetched_from_there() -> None:
    """Turn by turn: request 0 to p0, request 1 to p1, which fetches two blocks in two layers.

    8 tokens x 16 B = 128 B per layer, from rank 0 (p0's first replica) to rank 2 (p1's).
    """
    system = _system(router="round-robin")
    system.arrive(0, prompt(0, 9, (1, 2)))
    system.batch_done(1, "p0.b0")
    (plan,) = system.arrive(2, prompt(1, 9, (1, 2)))
    assert plan.unit == "p1"
    assert (plan.requests[0].local_tokens, plan.requests[0].remote_tokens) == (0, 8)
    moved = [(t.src, t.dst, t.size_bytes) for t in _stage(plan, Stage.KV_REUSE)]
    assert moved == [(0, 2, 128), (0, 2, 128)]


def test_a_prefix_fetched_once_is_local_from_then_on() -> None:
    system = _system(router="round-robin")
    for number, batch in enumerate(("p0.b0", "p1.b0", "p0.b1")):
        system.arrive(number, prompt(number, 9, (1, 2)))
        system.batch_done(number, batch)
    (plan,) = system.arrive(9, prompt(3, 9, (1, 2)))
    assert (plan.unit, plan.requests[0].local_tokens) == ("p1", 8)


def test_a_bounded_cache_forgets() -> None:
    """Room for two blocks per replica, and a longer prompt in between on the only replica."""
    topology, placement = placed(units=1, per_unit=1, servers=2)
    system = ServingSystem(with_cache(job(topology, placement), blocks=2))
    for number, blocks in enumerate(((1, 2), (7, 8), (1, 2))):
        (plan,) = system.arrive(number, prompt(number, 9, blocks))
        assert plan.requests[0].local_tokens == 0
        system.batch_done(number, plan.id)


def test_prefix_affinity_sends_a_request_to_its_prefix() -> None:
    """p0 is as idle as p1 and comes first, but p1 holds the prefix."""
    system = _system(router="prefix-affinity")
    system.arrive(0, prompt(0, 12))
    assert _unit_of(system, prompt(1, 9, (1, 2))) == "p1"
    system.batch_done(1, "p0.b0")
    system.batch_done(1, "p1.b0")
    assert _unit_of(system, prompt(2, 9, (1, 2))) == "p1"


def test_the_least_loaded_decode_worker_has_the_fewest_tokens_on_their_way() -> None:
    """Workers 4 and 5: 12 tokens to 4, 8 to 5, the next to 5; once 4's token is out, to 4."""
    topology, placement = placed(decode=2, servers=6)
    system = ServingSystem(job(topology, placement, decode_choice="least-loaded"))
    chosen = []
    for number, tokens in enumerate((12, 8, 8)):
        for plan in system.arrive(0, prompt(number, tokens)):
            chosen.append(plan.requests[0].decode_rank)
    chosen += [plan.requests[0].decode_rank for plan in system.batch_done(1, "p1.b0")]
    system.first_token(2, 0)
    system.batch_done(3, "p0.b0")
    chosen += [plan.requests[0].decode_rank for plan in system.arrive(4, prompt(3, 8))]
    assert chosen == [4, 5, 5, 4]


def test_a_first_token_may_overtake_the_report_of_its_batch() -> None:
    system = _system()
    system.arrive(0, prompt(0, 8))
    system.first_token(1, 0)
    system.batch_done(2, "p0.b0")
    assert system.counts()[Phase.DONE] == 1


def test_events_that_cannot_be_are_refused() -> None:
    system = _system(units=1)
    system.arrive(0, prompt(0, 16))
    system.arrive(0, prompt(1, 16))
    with pytest.raises(ValueError, match="request 0 has already arrived"):
        system.arrive(1, prompt(0, 8))
    with pytest.raises(ValueError, match="request 2 has a prompt of 0 tokens"):
        system.arrive(1, prompt(2, 0))
    with pytest.raises(ValueError, match=r"batch 'p0\.b1' is not running"):
        system.batch_done(1, "p0.b1")
    with pytest.raises(ValueError, match="first token of request 9, which is unknown"):
        system.first_token(1, 9)
    with pytest.raises(ValueError, match="first token of request 1, which is queued"):
        system.first_token(1, 1)
    system.first_token(1, 0)
    with pytest.raises(ValueError, match="first token of request 0, which is done"):
        system.first_token(2, 0)


PROMPTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(PROMPTS)
def test_requests_are_conserved_and_all_their_kv_is_delivered(
    prompts: list[tuple[int, int, bool]],
) -> None:
    """Whatever arrives and in whatever order batches end, each request is in exactly one phase, is
    planned exactly once, computes at least one token, and delivers prompt tokens x 32 B of KV.
    """
    plans, system = _drive(prompts)
    requests = dict(enumerate(_requests(prompts)))
    planned = [item for plan in plans for item in plan.requests]
    assert sorted(item.request for item in planned) == sorted(requests)
    assert system.counts()[Phase.DONE] == len(requests)
    for item in planned:
        parts = (item.new_tokens, item.local_tokens, item.remote_tokens)
        assert sum(parts) == requests[item.request].prompt_tokens
        assert item.new_tokens >= 1
    for plan in plans:
        for item in plan.requests:
            delivered = [t for t in _stage(plan, Stage.P2D) if t.request == item.request]
            fetched = [t for t in _stage(plan, Stage.KV_REUSE) if t.request == item.request]
            per_token = kv_bytes_per_token(MOE)
            prompt_tokens = requests[item.request].prompt_tokens
            assert sum(t.size_bytes for t in delivered) == prompt_tokens * per_token
            assert len(delivered) == sum(item.p2d_flows)
            assert sum(t.size_bytes for t in fetched) == item.remote_tokens * per_token
            assert all(t.src not in item.replica for t in fetched)


@settings(max_examples=20, deadline=None)
@given(PROMPTS)
def test_the_same_events_give_the_same_plans(prompts: list[tuple[int, int, bool]]) -> None:
    assert _drive(prompts)[0] == _drive(prompts)[0]


@settings(max_examples=30, deadline=None)
@given(PROMPTS)
def test_a_batch_keeps_to_its_budget_unless_it_is_one_prompt(
    prompts: list[tuple[int, int, bool]],
) -> None:
    for plan in _drive(prompts)[0]:
        new_tokens = sum(item.new_tokens for item in plan.requests)
        assert new_tokens <= 16 or len(plan.requests) == 1


def _drive(prompts: list[tuple[int, int, bool]]) -> tuple[list[BatchPlan], ServingSystem]:
    """Feed the prompts in order; if a prompt's flag is set, the oldest running batch ends after it."""
    system = _system(tp=2, per_unit=4, servers=9)
    plans: list[BatchPlan] = []
    running: list[BatchPlan] = []

    def started(new: list[BatchPlan]) -> None:
        plans.extend(new)
        running.extend(new)

    def end_oldest(now_ns: int) -> None:
        plan = running.pop(0)
        started(system.batch_done(now_ns, plan.id))
        for item in plan.requests:
            system.first_token(now_ns, item.request)

    for now_ns, (request, (_, _, ends)) in enumerate(zip(_requests(prompts), prompts, strict=True)):
        started(system.arrive(now_ns, request))
        assert sum(system.counts().values()) == now_ns + 1
        if ends and running:
            end_oldest(now_ns)
    while running:
        end_oldest(len(prompts))
    return plans, system


def _requests(prompts: list[tuple[int, int, bool]]) -> list[Request]:
    """Prompts of one of four conversations, each a prefix of its conversation's blocks."""
    return [
        prompt(i, tokens, tuple(100 * talk + b for b in range(tokens // 4)), arrival_ns=i)
        for i, (tokens, talk, _) in enumerate(prompts)
    ]


def _system(
    *,
    units: int = 2,
    per_unit: int = 2,
    tp: int | None = None,
    servers: int = 5,
    router: str = "least-queued-tokens",
) -> ServingSystem:
    topology, placement = placed(units=units, per_unit=per_unit, tp=tp, servers=servers)
    return ServingSystem(job(topology, placement, router=router))


def _unit_of(system: ServingSystem, request: Request) -> str:
    (plan,) = system.arrive(0, request)
    return plan.unit


def _stage(plan: BatchPlan, stage: Stage) -> list[Transfer]:
    transfers: Iterable[Transfer] = (t for lp in plan.layers for t in (*lp.wait, *lp.post))
    return [t for t in transfers if t.stage is stage]

"""`serving.reuse`: a prefix that only another replica has is fetched or computed again.

A dense model on units of one rank: no collectives. The prompt has 9 tokens. Two blocks of it, 8 tokens,
are cached on p0, and it goes to p1. A layer takes 320 FLOPs per token and 16 per key, at 500 FLOP/s:

    1 new token    320 + 9 x 16 = 464             0.928 s, 1.856 s for both layers
    9 new tokens   9 x 320 + 45 x 16 = 3600       7.2 s, 14.4 s for both layers

S1 is 8 tokens x 32 B = 256 B. At 100 B/s, 2.56 s: prefill takes 1.856 + 2.56 - 1.856 / 2 = 3.488 s with it.
"""

import msgspec
import pytest
from serving_world import DENSE, job, placed, prompt

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Job, Request, ReuseRule
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, RequestPlan

PREFIX = (1, 2)


def system_with(
    rule: ReuseRule, *, nic_bps: int = 800, per_unit: int = 1, tp: int = 1, **options: int
) -> Job:
    topology, placement = placed(model=DENSE, per_unit=per_unit, tp=tp, nic_bps=nic_bps)
    made = job(topology, placement, model=DENSE, router="round-robin", max_batch_tokens=16)
    return msgspec.structs.replace(made, serving=msgspec.structs.replace(made.serving, reuse=rule, **options))


def warm(made: Job) -> ServingSystem:
    """A system whose unit p0 has the prefix. The next request goes to p1."""
    system = ServingSystem(made)
    name = system.arrive(0, prompt(0, 9, PREFIX))[0].id
    while following := system.batch_done(1, name):
        assert isinstance(following[0], BatchPlan)
        name = following[0].id
    system.first_token(1, 0)
    return system


def second(system: ServingSystem, request: Request) -> tuple[BatchPlan, RequestPlan]:
    [plan] = system.arrive(2, request)
    assert isinstance(plan, BatchPlan)
    assert plan.unit == "p1"
    return plan, plan.requests[0]


def tokens(item: RequestPlan) -> tuple[int, int, int, int]:
    return item.new_tokens, item.local_tokens, item.remote_tokens, item.recomputed_tokens


def test_a_prefix_is_fetched_by_default_and_nothing_is_decided() -> None:
    plan, item = second(warm(system_with(ReuseRule.FETCH)), prompt(1, 9, PREFIX))
    assert tokens(item) == (1, 0, 8, 0)
    assert item.fetch_estimate_ns is None
    assert sum(transfer.size_bytes for layer in plan.layers for transfer in layer.wait) == 256


def test_a_prefix_is_recomputed_without_any_s1() -> None:
    plan, item = second(warm(system_with(ReuseRule.RECOMPUTE)), prompt(1, 9, PREFIX))
    assert tokens(item) == (9, 0, 0, 8)
    assert [layer.wait for layer in plan.layers] == [(), ()]
    assert plan.compute_s == pytest.approx(14.4)


def test_the_cheaper_is_fetched_over_a_fast_nic() -> None:
    _, item = second(warm(system_with(ReuseRule.CHEAPER)), prompt(1, 9, PREFIX))
    assert tokens(item) == (1, 0, 8, 0)
    assert item.fetch_estimate_ns == pytest.approx(3.488e9)
    assert item.recompute_estimate_ns == pytest.approx(14.4e9)


def test_the_cheaper_is_recomputed_over_a_slow_nic() -> None:
    """10 B/s: 25.6 s of S1 instead of 2.56 s, so 26.528 s."""
    _, item = second(warm(system_with(ReuseRule.CHEAPER, nic_bps=80)), prompt(1, 9, PREFIX))
    assert tokens(item) == (9, 0, 0, 8)
    assert item.fetch_estimate_ns == pytest.approx(26.528e9)


def test_what_the_nic_has_still_to_send_can_make_recomputing_cheaper() -> None:
    """The first request has no first token yet: its 36 tokens x 32 B of S3 come first, 11.52 s more."""
    system = ServingSystem(system_with(ReuseRule.CHEAPER))
    [first] = system.arrive(0, prompt(0, 36, PREFIX))
    system.batch_done(1, first.id)
    _, item = second(system, prompt(1, 9, PREFIX))
    assert item.fetch_estimate_ns == pytest.approx(15.008e9)
    assert tokens(item) == (9, 0, 0, 8)


def test_what_was_recomputed_is_cached_there_and_counted() -> None:
    system = warm(system_with(ReuseRule.RECOMPUTE))
    plan, _ = second(system, prompt(1, 9, PREFIX))
    system.batch_done(3, plan.id)
    system.arrive(4, prompt(2, 60))  # to p0
    _, item = second(system, prompt(3, 9, PREFIX))
    assert tokens(item) == (1, 8, 0, 0)
    row = system.caches()[1]
    assert (row.recomputed_blocks, row.recomputed_tokens, row.missed_blocks, row.local_blocks) == (2, 8, 0, 2)


def test_recomputed_tokens_count_for_the_size_of_a_batch() -> None:
    """While p1 computes, two requests of 9 tokens queue there. With 1 new token each they would share a batch
    of 16; with 9 each they do not."""
    for rule, together in ((ReuseRule.FETCH, 2), (ReuseRule.RECOMPUTE, 1)):
        system = warm(system_with(rule))
        plan, _ = second(system, prompt(1, 5))
        for number in (2, 3, 4):
            system.arrive(3, prompt(number, 9, PREFIX))  # p0, p1, p0
        assert system.arrive(3, prompt(5, 9, PREFIX)) == []
        [batch] = system.batch_done(4, plan.id)
        assert isinstance(batch, BatchPlan)
        assert len(batch.requests) == together


def test_a_request_off_its_home_recomputes_there_and_the_batch_stays_in_its_bounds() -> None:
    """Replica 0 of the only unit has 8 of 9 tokens. At home each request has 1 new token, elsewhere 9.

    So all four stay at home, where fetching would have spread them.
    """
    topology, placement = placed(model=DENSE, units=1, per_unit=2, tp=1)
    made = job(topology, placement, model=DENSE, max_batch_tokens=16)
    made = msgspec.structs.replace(
        made, serving=msgspec.structs.replace(made.serving, reuse=ReuseRule.RECOMPUTE)
    )
    system = warm(made)
    [busy] = system.arrive(2, prompt(9, 40))
    for number in (1, 2, 3, 4):
        system.arrive(3, prompt(number, 9, PREFIX))
    [batch] = system.batch_done(4, busy.id)
    assert isinstance(batch, BatchPlan)
    assert sum(item.new_tokens for item in batch.requests) <= 16
    assert [item.recomputed_tokens for item in batch.requests] == [0, 0, 0, 0]


def test_a_recomputed_prompt_is_split_without_losing_tokens() -> None:
    """Parts of at most 4 new tokens: 9 tokens take three batches, and the whole prompt is delivered."""
    system = warm(system_with(ReuseRule.RECOMPUTE, chunk_tokens=4))
    plan, item = second(system, prompt(1, 9, PREFIX))
    parts = [item]
    while not item.last:
        [following] = system.batch_done(3, plan.id)
        assert isinstance(following, BatchPlan)
        plan, [item] = following, following.requests
        parts.append(item)
    assert [part.new_tokens for part in parts] == [4, 4, 1]
    assert [part.recomputed_tokens for part in parts] == [8, 0, 0]


def test_an_early_fetch_is_refused_with_a_choice() -> None:
    with pytest.raises(UserError, match=r"serving\.reuse: cheaper is decided when the batch is formed"):
        load_scenario("quickstart", [override("serving.reuse=cheaper"), override("serving.fetch=queue")])


def test_a_note_says_what_does_not_follow_the_choice() -> None:
    notes = resolve(load_scenario("quickstart", [override("serving.reuse=recompute")])).notes
    assert any(note.startswith("serving.reuse is recompute; workload.load") for note in notes)


def test_a_cold_unit_is_not_expected_to_compute_one_prefix_for_each_request() -> None:
    """p0 has the prefix, p1 has none, and 20 requests of 8 + 1 tokens arrive.

    The first goes to p1, which then has 9 tokens to compute. The next nine go to p0, for 1 token each, until
    both have 9. Those that follow leave 1 token on either unit, as p1 has the prefix by then, and take turns.
    If each of them counted 9 tokens on p1, it would get 2 of 20.
    """
    made = system_with(ReuseRule.RECOMPUTE)
    system = warm(
        msgspec.structs.replace(
            made, serving=msgspec.structs.replace(made.serving, router="least-queued-tokens")
        )
    )
    running = [plan for number in range(1, 21) for plan in system.arrive(2, prompt(number, 9, PREFIX))]
    taken = {"p0": 0, "p1": 0}
    for plan in running:
        assert isinstance(plan, BatchPlan)
        taken[plan.unit] += len(plan.requests)
        running += [one for one in system.batch_done(3, plan.id) if isinstance(one, BatchPlan)]
    assert taken == {"p0": 14, "p1": 6}

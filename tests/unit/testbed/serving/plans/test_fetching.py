"""When reused KV is fetched, worked out by hand in the tiny world.

Units p0 and p1 of one rank each, on h1 and h2, taken in turn; NICs of 100 B/s. Request 0 leaves a prefix on
p0. Request 1 keeps p1 busy; request 3, which wants the prefix, queues behind it (request 2 only takes p0's
turn). Per layer, of two, a block is 4 tokens x 16 B = 64 B, 0.64 s.
"""

import itertools
from typing import Any

import msgspec
import pytest
from serving_world import job, placed, prompt, with_cache

from controller.flow import Stage
from controller.scheduler import Scheduler
from testbed.fabrics import FABRICS
from testbed.job import Job, Request
from testbed.record import FlowRow, RequestRow, RunRecord
from testbed.serving.cache.assignment import Assigned, Fetch, Senders, assign, with_newer
from testbed.serving.cache.assignment import find_reuse as reuse_of
from testbed.serving.cache.prefix_index import PrefixIndex
from testbed.serving.plans.fetching import SendAhead, announced_fetch, by_sender, fetch_plan, with_fetches
from testbed.serving.replay import NotReplayable, plans_of
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, FetchPlan

S = 1_000_000_000
T = 1000 * S


def serving(
    *requests: Request, early: bool = False, ahead: int | None = None, policy: str = "fair", layers: int = 2
) -> Job:
    topology, placement = placed(per_unit=1, servers=3)
    made = job(topology, placement, router="round-robin", max_batch_tokens=64)
    return msgspec.structs.replace(
        made,
        requests=requests,
        policy=policy,
        simulation=msgspec.structs.replace(made.simulation, progress_ns=S),
        scheduler=msgspec.structs.replace(made.scheduler, recheck_ns=S),
        model=msgspec.structs.replace(made.model, layers=layers),
        serving=msgspec.structs.replace(made.serving, fetch_early=early, fetch_ahead=ahead),
    )


def one_in_the_queue(blocks: int, at_ns: int) -> tuple[Request, ...]:
    prefix = tuple(range(blocks))
    return (
        prompt(0, 4 * blocks + 1, prefix),
        prompt(1, 8, arrival_ns=T),
        prompt(2, 1, arrival_ns=T),
        prompt(3, 4 * blocks + 1, prefix, arrival_ns=at_ns),
    )


def played(a_job: Job) -> RunRecord:
    record = FABRICS["sim"]().run(a_job, lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record


def queued_request(record: RunRecord) -> RequestRow:
    return record.requests[3]


def s1(record: RunRecord) -> list[FlowRow]:
    flows = [flow for flow in record.flows if flow.stage is Stage.KV_REUSE]
    return sorted(flows, key=lambda flow: flow.layer or 0)


# --- on the simulated fabric ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["fair", "mfs", "mfs+requests", "sebf", "llf", "karuna"])
def test_s1_that_the_queue_hides_is_not_waited_for(policy: str) -> None:
    """Two blocks: 1.28 s per layer, so both layers are there by 5 + 2.56 s, while request 1 is computed
    (for over 17 s). If S1 is fetched with the batch, layer 0 waits for 1.28 s. Layer 1 waits for
    nothing: its S1 arrives 1.28 s later, and a layer of the one new token takes 1.376 s. All the rest is
    1.28 s later."""
    requests = one_in_the_queue(2, T + 5 * S)
    late, early = (played(serving(*requests, early=early, policy=policy)) for early in (False, True))
    begun = queued_request(early).start_ns
    assert begun == queued_request(late).start_ns
    assert begun is not None
    assert begun > T + 17 * S
    assert [flow.submit_ns for flow in s1(late)] == [begun, begun]
    assert [flow.submit_ns for flow in s1(early)] == [T + 5 * S] * 2
    assert [flow.finish_ns for flow in s1(early)] == [T + 6.28 * S, T + 7.56 * S]
    ttft_late, ttft_early = queued_request(late).ttft_ns, queued_request(early).ttft_ns
    assert ttft_late is not None
    assert ttft_early == ttft_late - 1.28 * S


def test_a_fetch_is_a_batch_of_its_own_that_departs_with_the_batch_of_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedulers: list[Scheduler] = []

    def made(*given: Any, **named: Any) -> Scheduler:
        schedulers.append(Scheduler(*given, **named))
        return schedulers[-1]

    monkeypatch.setattr("controller.spec.Scheduler", made)
    record = played(serving(*one_in_the_queue(2, T + 5 * S), early=True))
    assert {flow.batch for flow in s1(record)} == {"p1.f3"}
    assert queued_request(record).batch == "p1.b1"
    (scheduler,) = schedulers
    assert dict(scheduler.view.batches) == {}


def test_layer_by_layer_each_layer_waits_for_its_own_s1() -> None:
    """With nothing ahead, S1 of layer 1 is fetched when layer 1 begins, and costs another 1.28 s. If S1 is
    fetched from the queue, layer 0 is there, and layer 1 costs its 1.28 s. One ahead is both layers."""
    requests = one_in_the_queue(2, T + 5 * S)

    def prefill_ns(*, early: bool, ahead: int | None) -> int:
        row = queued_request(played(serving(*requests, early=early, ahead=ahead)))
        assert row.prefill_end_ns is not None
        return row.prefill_end_ns

    with_batch = prefill_ns(early=False, ahead=None)
    assert prefill_ns(early=False, ahead=0) == with_batch + 1.28 * S
    assert prefill_ns(early=False, ahead=1) == with_batch
    assert prefill_ns(early=True, ahead=0) == with_batch
    assert prefill_ns(early=True, ahead=1) == with_batch - 1.28 * S


def test_of_many_layers_so_many_are_sent_for_ahead() -> None:
    """Five layers, two ahead: layers 0 to 2 when the batch starts, 3 and 4 when layers 1 and 2 begin."""
    record = played(serving(*one_in_the_queue(1, T + 5 * S), ahead=2, layers=5))
    begins = sorted(
        span.start_ns for span in record.spans if span.batch == "p1.b1" and span.kind == "s1_wait"
    )
    assert [flow.submit_ns for flow in s1(record)] == [begins[0]] * 3 + begins[1:3]


def test_rli_counts_from_layer_0_in_the_queue_and_with_the_batch_after() -> None:
    """Four blocks, 2.56 s per layer, fetched 0.5 s before the batch starts. Layer 1 is one layer ahead
    until it begins, 2.06 s of waiting and a layer of compute after the start, and its S1 needs until
    4.62 s."""
    busy = played(serving(*one_in_the_queue(4, T + 5 * S)))
    ends = busy.requests[1].prefill_end_ns
    assert ends is not None
    record = played(serving(*one_in_the_queue(4, ends - S // 2), early=True, policy="mfs"))
    first, second = s1(record)
    assert (first.layer, second.layer) == (0, 1)
    told = [(d.level_to.name, d.reason) for d in record.decisions if d.flow == second.id]
    assert [level for level, _ in told] == ["P3", "P2"]
    assert [reason for _, reason in told] == ["RLI 1", "RLI 0"]
    begins = [span for span in record.spans if span.batch == "p1.b1" and span.kind == "s1_wait"]
    [promoted] = [d.time_ns for d in record.decisions if d.flow == second.id and d.level_from is not None]
    assert promoted == max(span.start_ns for span in begins)


def test_all_requests_are_served_whenever_their_kv_is_sent_for() -> None:
    """Many agents with a few prefixes, under every combination of the options."""
    requests = [
        prompt(i, 9 + 4 * (i % 5), tuple(100 * (i % 3) + b for b in range(2 + i % 5)), arrival_ns=i * S)
        for i in range(24)
    ]
    for policy, early, ahead in itertools.product(("fair", "mfs"), (False, True), (None, 0, 1)):
        record = played(serving(*requests, policy=policy, early=early, ahead=ahead))
        assert [row.status for row in record.requests] == ["completed"] * 24
        fetched = sum(flow.size_bytes for flow in s1(record))
        assert fetched == sum(row.remote_tokens for row in record.requests) * 32


def test_a_run_that_sends_for_kv_from_the_queue_cannot_be_replayed_and_one_layer_by_layer_can() -> None:
    requests = one_in_the_queue(2, T + 5 * S)
    early = serving(*requests, early=True)
    with pytest.raises(NotReplayable, match="while requests were queued"):
        plans_of(early, played(early).requests)
    ahead = serving(*requests, ahead=0)
    record = played(ahead)
    again = played(msgspec.structs.replace(ahead, plans=plans_of(ahead, record.requests)))
    assert list(again.flows) == list(record.flows)


# --- the serving system -----------------------------------------------------------------------------


def busy_system(*, ahead: int | None = None) -> ServingSystem:
    """p0 has blocks 1 and 2, and both units are busy."""
    system = ServingSystem(serving(early=True, ahead=ahead))
    system.arrive(0, prompt(0, 9, (1, 2)))
    system.batch_done(1, "p0.b0")
    system.arrive(2, prompt(1, 8))
    system.arrive(3, prompt(2, 8))
    return system


def test_a_queued_request_sends_for_what_its_replica_lacks() -> None:
    """p1's turn: 2 blocks of 4 tokens x 16 B = 128 B per layer from rank 0 to rank 1."""
    [fetch] = busy_system().arrive(4, prompt(3, 10, (1, 2)))
    assert isinstance(fetch, FetchPlan)
    assert (fetch.id, fetch.unit, fetch.request, fetch.ranks) == ("p1.f3", "p1", 3, (1,))
    assert fetch.deadline_ns == 1000
    [first], [second] = fetch.layers
    assert (first.src, first.dst, first.size_bytes, first.layer) == (0, 1, 128, 0)
    assert (first.batch, first.stage, second.layer) == ("p1.f3", Stage.KV_REUSE, 1)
    assert first.id == "p1.f3.r3.l0.s1.0-1"


def test_what_is_on_its_own_unit_is_not_sent_for() -> None:
    system = busy_system()
    assert isinstance(system.arrive(4, prompt(3, 10, (1, 2)))[0], FetchPlan)  # p1
    assert system.arrive(5, prompt(4, 10, (1, 2))) == []  # p0, which has it


def test_the_batch_waits_for_what_is_under_way_and_for_nothing_twice() -> None:
    system = busy_system()
    [fetch] = system.arrive(4, prompt(3, 10, (1, 2)))
    assert isinstance(fetch, FetchPlan)
    [plan] = system.batch_done(5, "p1.b0")
    assert isinstance(plan, BatchPlan)
    assert plan.fetches == ("p1.f3",)
    assert tuple(layer.under_way for layer in plan.layers) == fetch.layers
    assert [layer.wait for layer in plan.layers] == [(), ()]
    [item] = plan.requests
    assert (item.new_tokens, item.local_tokens, item.remote_tokens) == (2, 0, 8)


def test_kv_that_is_evicted_meanwhile_is_still_sent_and_used() -> None:
    """p0 keeps 2 blocks. Request 4 takes their place while request 3, which fetches them, is queued."""
    system = ServingSystem(with_cache(serving(early=True), blocks=2))
    system.arrive(0, prompt(0, 9, (1, 2)))
    system.batch_done(1, "p0.b0")
    system.arrive(2, prompt(1, 8))  # p1
    system.arrive(3, prompt(2, 9, (7, 8)))  # p0
    [fetch] = system.arrive(4, prompt(3, 10, (1, 2)))  # p1
    assert isinstance(fetch, FetchPlan)
    system.batch_done(5, "p0.b1")  # blocks 7 and 8 in, 1 and 2 out
    [plan] = system.batch_done(6, "p1.b0")
    assert isinstance(plan, BatchPlan)
    assert plan.requests[0].remote_tokens == 8


def test_a_longer_prefix_that_is_cached_meanwhile_is_reused_too() -> None:
    """Two blocks are under way to replica 0. By now p0 has a third one; then its own replica has all four."""
    request = prompt(0, 17, (1, 2, 3, 4))
    fixed = Assigned(
        request=request, replica=0, local_blocks=0, fetches=(Fetch(unit="p0", replica=0, blocks=2),)
    )
    indexes = {"p0": PrefixIndex(1), "p1": PrefixIndex(1)}
    indexes["p0"].insert((1, 2, 3), replica=0)
    item = with_newer(fixed, "p1", (), reuse_of(request, "p1", indexes), Senders())
    assert item.under_way == fixed.fetches
    assert item.fetches == (Fetch(unit="p0", replica=0, blocks=1, ends_prefix=True, spans=((2, 3),)),)
    assert (item.remote_tokens, item.new_tokens) == (12, 5)
    indexes["p1"].insert((1, 2, 3, 4), replica=0)
    [item] = assign([request], "p1", 1, indexes, fixed={0: fixed})
    assert (item.local_blocks, item.fetches, item.under_way) == (2, (), fixed.fetches)
    assert item.new_tokens == 1


def test_queued_requests_with_one_prefix_go_to_different_replicas() -> None:
    """Unit p1 has two replicas, ranks 2 and 3, and has computed a token on rank 2. So the first request
    goes to rank 3, with a new token of its own. The second finds a tie, and goes to rank 2."""
    topology, placement = placed()
    made = job(topology, placement, router="round-robin")
    made = msgspec.structs.replace(made, serving=msgspec.structs.replace(made.serving, fetch_early=True))
    system = ServingSystem(made)
    system.arrive(0, prompt(0, 9, (1, 2)))
    system.batch_done(1, "p0.b0")
    for number in (1, 2):
        system.arrive(2, prompt(number, 1))
    plans = [plan for number in (3, 4, 5) for plan in system.arrive(3, prompt(number, 9, (1, 2)))]
    assert [(plan.id, plan.ranks) for plan in plans] == [("p1.f3", (3,)), ("p1.f5", (2,))]


# --- in order ---------------------------------------------------------------------------------------


def planned() -> tuple[FetchPlan, BatchPlan]:
    system = busy_system(ahead=0)
    [fetch] = system.arrive(4, prompt(3, 10, (1, 2)))
    [plan] = system.batch_done(5, "p1.b0")
    assert isinstance(fetch, FetchPlan)
    assert isinstance(plan, BatchPlan)
    return fetch, plan


def test_to_the_scheduler_a_fetch_is_a_batch_with_the_load_of_its_s1() -> None:
    """128 B in each of two layers from h1 to h2. Its compute is two layers of its 2 new tokens."""
    fetch, plan = planned()
    topology, placement = placed(per_unit=1, servers=3)
    batch = announced_fetch(fetch, topology, placement)
    assert (batch.id, batch.layers, batch.load) == ("p1.f3", 2, {})
    [request] = batch.requests
    assert (request.id, request.deadline_ns, request.tail_ns) == ("3", 1000, 0)
    assert request.load == {"h1->s1": 256, "s1->h2": 256}
    assert batch.compute_ns == fetch.layers[0][0].downstream_ns
    # The batch itself has no other request, so this is the same.
    assert batch.compute_ns == pytest.approx(plan.compute_s * S)


def test_what_is_to_be_sent_ahead_goes_when_its_time_has_come() -> None:
    fetch, plan = planned()
    ahead = SendAhead(0)
    assert ahead.queued(fetch) == fetch.layers[0]
    assert ahead.formed(plan) == ()
    assert ahead.reached(plan, 0) == ()
    assert ahead.reached(plan, 1) == fetch.layers[1]
    assert ahead.reached(plan, 2) == ()


def test_without_a_bound_all_goes_at_once() -> None:
    fetch, plan = planned()
    ahead = SendAhead(None)
    unbounded = msgspec.structs.replace(plan, fetch_ahead=None)
    assert ahead.queued(fetch) == (*fetch.layers[0], *fetch.layers[1])
    assert ahead.formed(unbounded) == ()
    assert ahead.reached(unbounded, 1) == ()


def test_a_batch_may_begin_further_on_than_its_slowest_rank_was_seen() -> None:
    """Reports may skip layers: all transfers that are due by then are posted."""
    _, plan = planned()
    transfers = [layer.under_way[0] for layer in plan.layers]
    own = msgspec.structs.replace(
        plan,
        fetches=(),
        layers=tuple(
            msgspec.structs.replace(layer, wait=layer.under_way, under_way=()) for layer in plan.layers
        ),
    )
    ahead = SendAhead(0)
    assert ahead.formed(own) == (transfers[0],)
    assert ahead.reached(own, 2) == (transfers[1],)


def test_plans_without_early_fetches_are_left_alone() -> None:
    _, plan = planned()
    assert with_fetches(plan, (), None) is plan


def test_only_a_batch_of_one_request_becomes_a_fetch() -> None:
    _, plan = planned()
    two = msgspec.structs.replace(plan, requests=plan.requests * 2)
    with pytest.raises(ValueError, match="too many values"):
        fetch_plan(two, (1,))


def test_transfers_are_grouped_by_who_sends_them() -> None:
    fetch, _ = planned()
    [transfer] = fetch.layers[0]
    other = msgspec.structs.replace(transfer, src=5)
    assert by_sender([transfer, other, transfer]) == {0: (transfer, transfer), 5: (other,)}

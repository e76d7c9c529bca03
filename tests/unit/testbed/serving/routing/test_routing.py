"""Routers, decode choices and the batcher."""

from collections import Counter

import msgspec
import pytest
from serving_world import job, placed, prompt

from testbed.job import ServingOptions
from testbed.placement import Layout
from testbed.serving.batching.forming import take_batch
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.serving.routing.decode_choices import WorkerView, make_decode_choice
from testbed.serving.routing.estimates import delivery_ns, transfer_ns
from testbed.serving.routing.port_bytes import PortBytes
from testbed.serving.routing.routers import Router, UnitView, candidates, make_router
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan

ANY = prompt(0, 8)

CANDIDATES_OF_1_2 = (6, 1)


def test_least_queued_tokens_takes_the_emptiest_units_in_turn() -> None:
    router = _router("least-queued-tokens")
    views = _views((30, 0), (10, 0), (10, 99))
    assert [router.choose(ANY, views) for _ in range(3)] == [1, 2, 1]


def test_round_robin_takes_turns_whatever_the_load() -> None:
    router = _router("round-robin")
    assert [router.choose(ANY, _views((99, 0), (0, 0))) for _ in range(3)] == [0, 1, 0]


def test_prefix_affinity_prefers_the_longest_prefix() -> None:
    router = _router("prefix-affinity")
    assert router.choose(ANY, _views((0, 0), (60, 32), (50, 64))) == 2


def test_prefix_affinity_breaks_ties_by_queue() -> None:
    router = _router("prefix-affinity")
    assert router.choose(ANY, _views((50, 64), (40, 64), (0, 0))) == 1


def test_prefix_affinity_passes_over_a_unit_a_batch_behind() -> None:
    """The guard is one batch, 100 tokens: 100 more than the least loaded is fine, 101 is not."""
    router = _router("prefix-affinity")
    assert router.choose(ANY, _views((5, 0), (105, 64))) == 1
    assert router.choose(ANY, _views((5, 0), (106, 64))) == 0


def test_prefix_affinity_passes_over_a_unit_whose_ports_are_a_batch_behind() -> None:
    """A full batch takes 100 ns. The holder of the prefix has nothing to compute, but S3 to send."""

    def chosen(ports_ns: float) -> int:
        holder = UnitView(queued_tokens=0, cached_tokens=64, ports_ns=ports_ns)
        other = UnitView(queued_tokens=5, cached_tokens=0, queue_ns=5)
        return _router("prefix-affinity").choose(ANY, [holder, other])

    assert [chosen(105), chosen(106)] == [0, 1]


def test_prefix_affinity_takes_holders_that_tie_in_turn() -> None:
    router = _router("prefix-affinity")
    assert [router.choose(ANY, _views((0, 64), (0, 0), (0, 64))) for _ in range(3)] == [0, 2, 0]


def test_random_draws_the_same_units_for_the_same_seed_and_all_of_them() -> None:
    def drawn(seed: int) -> list[int]:
        router = make_router(_options(router="random"), seed=seed, token_ns=1.0)
        return [router.choose(ANY, _views((0, 0), (99, 0), (0, 9))) for _ in range(300)]

    assert drawn(1) == drawn(1) != drawn(2)
    counts = Counter(drawn(1))
    assert sorted(counts) == [0, 1, 2]
    # 100 each are expected, with a standard deviation of sqrt(300 x 1/3 x 2/3) = 8.2.
    assert all(abs(count - 100) < 33 for count in counts.values())


# --- dual-hash --------------------------------------------------------------------------------------


def test_the_two_candidates_depend_on_the_first_four_blocks_only() -> None:
    pair = candidates(prompt(0, 99, (1, 2, 3, 4, 5)), 8)
    assert pair == candidates(prompt(7, 50, (1, 2, 3, 4, 9, 9)), 8)
    assert len(set(pair)) == 2
    others = [candidates(prompt(0, 99, (1, 2, 3, tail)), 8) for tail in range(100, 120)]
    assert len(set(others)) > 10  # of 56 pairs


def test_the_candidates_are_the_same_in_every_process() -> None:
    """From `blake2b` by hand, of "blocks (1, 2)" with the personalisations "first" and "second": its first
    8 bytes modulo 8, then modulo 7 and on from there."""
    assert candidates(prompt(0, 9, (1, 2)), 8) == CANDIDATES_OF_1_2


def test_prefixes_spread_evenly_over_the_units() -> None:
    """2,000 first candidates over 8 units: 250 each, standard deviation 14.8; second ones the same."""
    pairs = [candidates(prompt(0, 9, (block,)), 8) for block in range(2000)]
    assert all(first != second for first, second in pairs)
    for place in (0, 1):
        counts = Counter(pair[place] for pair in pairs)
        assert len(counts) == 8
        assert all(abs(count - 250) < 60 for count in counts.values())


def test_a_request_without_blocks_is_hashed_by_its_id() -> None:
    assert len({candidates(prompt(number, 9), 8) for number in range(50)}) > 20
    assert candidates(prompt(3, 9), 8) == candidates(prompt(3, 500), 8)


def test_one_unit_is_the_only_candidate() -> None:
    assert candidates(prompt(0, 9, (1,)), 1) == (0,)
    assert _router("dual-hash").choose(prompt(0, 9, (1,)), _views((5, 0))) == 0


def test_dual_hash_takes_the_less_loaded_of_its_two_units() -> None:
    request = prompt(0, 9, (1, 2))
    first, second = CANDIDATES_OF_1_2
    queued = [(0, 0)] * 8
    queued[first], queued[second] = (30, 0), (20, 0)
    router = _router("dual-hash")
    assert router.choose(request, _views(*queued)) == second
    queued[second] = (30, 0)
    assert [router.choose(request, _views(*queued)) for _ in range(2)] == [first, second]


def test_dual_hash_leaves_its_units_when_both_would_be_too_late() -> None:
    """Alone it takes 400 of the 1000 ns allowed: 600 of queue are just in time, 601 are not."""
    request = msgspec.structs.replace(prompt(0, 9, (1, 2), slo_ns=1000), unloaded_ns=400)
    first, second = CANDIDATES_OF_1_2
    free = next(i for i in range(8) if i not in (first, second))

    def chosen(first_ns: float, second_ns: float) -> int:
        queued = {first: (70, first_ns), second: (80, second_ns), free: (10, 10.0)}
        views = [
            UnitView(queued_tokens=tokens, cached_tokens=0, queue_ns=ns)
            for tokens, ns in (queued.get(i, (50, 50.0)) for i in range(8))
        ]
        return _router("dual-hash").choose(request, views)

    assert chosen(601, 601) == free
    assert chosen(600, 601) == first
    assert chosen(600, 600) == first  # both are in time: the one with fewer tokens
    assert chosen(601, 600) == second


# --- kv-aware ---------------------------------------------------------------------------------------


def test_kv_aware_adds_up_the_times_of_a_unit() -> None:
    """500 + 100 + 350 + 50, 0 + 800 + 200 + 100 and 300 + 0 + 700 + 0: 1000, 1100 and 1000."""
    times = ((500, 100, 350, 50), (0, 800, 200, 100), (300, 0, 700, 0))
    views = [
        UnitView(
            queued_tokens=9,
            cached_tokens=0,
            queue_ns=queue,
            transfer_ns=transfer,
            compute_ns=compute,
            delivery_ns=delivery,
        )
        for queue, transfer, compute, delivery in times
    ]
    router = _router("kv-aware")
    assert [router.choose(ANY, views) for _ in range(3)] == [0, 2, 0]
    assert _router("kv-aware").choose(ANY, views[1:]) == 1


def test_kv_aware_takes_sums_within_a_twentieth_for_a_tie() -> None:
    def chosen(second: float) -> list[int]:
        router = _router("kv-aware")
        views = [UnitView(queued_tokens=0, cached_tokens=0, queue_ns=ns) for ns in (100.0, second)]
        return [router.choose(ANY, views) for _ in range(2)]

    assert chosen(105.0) == [0, 1]
    assert chosen(105.1) == [0, 0]


def test_delivery_waits_for_the_port_and_sends_most_layers_during_prefill() -> None:
    """Two layers, prefill until 100, S3 of 30 on the port. Layers end at 80 and 100.

    On an idle port, the first half leaves from 80 to 95 and the second from 100 to 115: 15 after prefill. A
    port that is busy until 90 sends both from 90 to 120, and one that is busy until 300 until 330.
    """

    def exposed(busy_ns: float) -> float:
        return delivery_ns([(0.0, 1.0), (busy_ns, 30.0)], layers=2, prefill_ns=100.0, layers_ns=40.0)

    assert [exposed(0.0), exposed(90.0), exposed(300.0)] == [15.0, 20.0, 230.0]
    assert delivery_ns([], layers=2, prefill_ns=100.0, layers_ns=40.0) == 0


TOPOLOGY, PLACEMENT = placed()
TINY = job(TOPOLOGY, PLACEMENT)
FETCHED = Assigned(
    request=prompt(0, 8, (1,)),
    replica=0,
    local_blocks=0,
    fetches=(Fetch(unit="p1", replica=0, blocks=1),),
)


def test_transfer_is_what_the_victims_nic_needs_and_compute_does_not_hide() -> None:
    """4 tokens x 32 B = 128 B at 100 B/s: 1.28 s. 1 s of compute over two layers hides 0.5 s of it."""
    idle = PortBytes(TOPOLOGY)
    assert transfer_ns(TINY, FETCHED, "p0", idle, hidden_ns=0, queue_ns=0) == pytest.approx(1.28e9)
    assert transfer_ns(TINY, FETCHED, "p0", idle, hidden_ns=1e9, queue_ns=0) == pytest.approx(0.78e9)
    assert transfer_ns(TINY, FETCHED, "p0", idle, hidden_ns=9e9, queue_ns=0) == pytest.approx(0.64e9)


def test_what_the_victim_has_still_to_send_comes_first() -> None:
    """100 B to another server leave through the same NIC: 1 s more, until they are taken off."""
    busy = PortBytes(TOPOLOGY)
    victim, other = PLACEMENT.node_of(2), PLACEMENT.node_of(1)
    busy.put("other", {(victim, other): 900.0})
    busy.put("other", {(victim, other): 100.0})  # instead of the 900 B
    assert transfer_ns(TINY, FETCHED, "p0", busy, hidden_ns=0, queue_ns=0) == pytest.approx(2.28e9)
    busy.take_off("other")
    assert transfer_ns(TINY, FETCHED, "p0", busy, hidden_ns=0, queue_ns=0) == pytest.approx(1.28e9)


def test_what_is_sent_for_while_queued_is_hidden_by_the_queue() -> None:
    early = msgspec.structs.replace(TINY, serving=msgspec.structs.replace(TINY.serving, fetch_early=True))
    idle = PortBytes(TOPOLOGY)
    assert transfer_ns(early, FETCHED, "p0", idle, hidden_ns=0, queue_ns=1e9) == pytest.approx(0.28e9)
    assert transfer_ns(early, FETCHED, "p0", idle, hidden_ns=0, queue_ns=2e9) == 0


def test_kv_aware_weighs_a_fetch_against_a_queue() -> None:
    """p0 has the prefix, but a long prompt to compute first. So the idle p1 fetches one block instead."""
    topology, placement = placed()
    system = ServingSystem(job(topology, placement, router="kv-aware", max_batch_tokens=64))
    system.arrive(0, prompt(0, 9, (1, 2)))
    system.batch_done(1, "p0.b0")
    [near] = system.arrive(2, prompt(1, 9, (1, 2)))
    assert near.unit == "p0"  # idle, and has the prefix
    [far] = system.arrive(3, prompt(2, 60))
    assert far.unit == "p1"
    system.batch_done(4, far.id)
    system.batch_done(4, near.id)
    [long] = system.arrive(5, prompt(3, 60))
    assert long.unit == "p0"
    [moved] = system.arrive(6, prompt(4, 9, (1, 2)))
    assert (moved.unit, moved.requests[0].remote_tokens) == ("p1", 8)


# --- decode workers ---------------------------------------------------------------------------------


def test_network_aware_looks_at_the_busiest_port_then_at_the_next() -> None:
    """All paths begin at a NIC with 4 s to send; the second worker's other port has the least."""
    choice = make_decode_choice(_options(decode_choice="network-aware"))
    ways = ((4.0, 3.0), (4.0, 1.0), (4.0, 2.0))
    assert choice.choose([WorkerView(tokens=0, ports_s=ports) for ports in ways]) == 1
    assert choice.choose([WorkerView(tokens=9, ports_s=()), WorkerView(tokens=0, ports_s=(0.1,))]) == 0


def test_decode_workers_behind_one_nic_share_what_is_on_its_way() -> None:
    """Servers of two ranks: workers 4 and 5 share one, 6 is alone. The first request goes to 4. The
    second goes to 6, because 5 shares a NIC with the first one's KV. The third finds 8 tokens on the way
    to one NIC and 12 to the other, and goes to worker 5. When its first token is out, it is 8 and 12
    again."""
    topology, placement = placed(decode=3, servers=4, layout=Layout.PACKED, ranks_per_server=2)
    system = ServingSystem(
        job(topology, placement, decode_choice="network-aware", router="round-robin", max_batch_tokens=64)
    )

    def worker(number: int, tokens: int) -> int:
        [plan] = system.arrive(number, prompt(number, tokens))
        assert isinstance(plan, BatchPlan)
        system.batch_done(number, plan.id)
        return plan.requests[0].decode_rank

    assert [worker(0, 8), worker(1, 12)] == [4, 6]
    assert worker(2, 4) == 5
    system.first_token(9, 2)
    assert worker(3, 8) == 5


def test_netkv_goes_by_what_flows_have_left_now_and_not_by_what_is_to_come() -> None:
    """Workers 4, 5 and 6 on servers of their own. The port to 4 needs 2 s for what it has, to 6 needs 1 s.

    All go to 5, although the requests before have left it ever more KV to come. Once its port is the busiest,
    they go to 6.
    """
    topology, placement = placed(decode=3, servers=7)
    made = job(topology, placement, decode_choice="netkv", router="round-robin", max_batch_tokens=64)
    busy_s = {f"s1->{placement.server_of(rank)}": seconds for rank, seconds in ((4, 2.0), (5, 0.0), (6, 1.0))}
    system = ServingSystem(made, busy=lambda port: busy_s.get(port, 0.0))

    def worker(number: int) -> int:
        [plan] = system.arrive(number, prompt(number, 12))
        assert isinstance(plan, BatchPlan)
        system.batch_done(number, plan.id)
        return plan.requests[0].decode_rank

    assert [worker(0), worker(1), worker(2)] == [5, 5, 5]
    busy_s[f"s1->{placement.server_of(5)}"] = 3.0
    assert worker(3) == 6


def test_netkv_needs_a_fabric_that_knows_its_ports() -> None:
    topology, placement = placed()
    with pytest.raises(ValueError, match="'netkv' has to know what is on the ports now"):
        ServingSystem(job(topology, placement, decode_choice="netkv"))


def test_decode_workers_take_turns() -> None:
    choice = make_decode_choice(_options(decode_choice="round-robin"))
    assert [choice.choose(_workers(7, 0)) for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("name", ["least-loaded", "network-aware", "netkv"])
def test_decode_workers_with_the_fewest_tokens_are_taken_in_turn(name: str) -> None:
    choice = make_decode_choice(_options(decode_choice=name))
    assert [choice.choose(_workers(7, 3, 3)) for _ in range(3)] == [1, 2, 1]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown router 'best' .*least-queued-tokens"):
        _router("best")
    with pytest.raises(ValueError, match=r"unknown decode choice 'random' .*round-robin"):
        make_decode_choice(_options(decode_choice="random"))


@pytest.mark.parametrize(
    ("new_tokens", "taken"),
    [
        ((40, 60, 1), 2),  # exactly full
        ((40, 61, 1), 1),  # the second does not fit, and the third does not overtake it
        ((250, 1), 1),  # larger than any batch: by itself
        ((1, 250), 1),
        ((), 0),
    ],
)
def test_a_batch_is_the_head_of_the_queue_up_to_the_budget(new_tokens: tuple[int, ...], taken: int) -> None:
    queue = [prompt(i, 500) for i in range(len(new_tokens))]
    batch = take_batch(queue, lambda request: new_tokens[request.id], 100)
    assert [part.request.id for part in batch] == list(range(taken))


def _router(name: str) -> Router:
    return make_router(_options(router=name), seed=1, token_ns=1.0)


def _workers(*tokens: int) -> list[WorkerView]:
    return [WorkerView(tokens=number) for number in tokens]


def _options(router: str = "least-queued-tokens", decode_choice: str = "round-robin") -> ServingOptions:
    return ServingOptions(router=router, max_batch_tokens=100, decode_choice=decode_choice)


def _views(*units: tuple[int, int]) -> list[UnitView]:
    """(queued tokens, cached tokens) of each unit. A token takes 1 ns."""
    return [UnitView(queued_tokens=queued, cached_tokens=cached, queue_ns=queued) for queued, cached in units]

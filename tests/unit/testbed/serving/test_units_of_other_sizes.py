"""Prefill units of different sizes and shapes in one cluster.

The dense model of `serving_world` with 4 heads: per token and layer, a KV head is 2 x 2 x 2 B = 8 B, and all
KV is 32 B. A layer has 2 x 4 x 2 x (4 + 4) = 128 weights in attention and 96 in the MLP.
"""

from collections import Counter

import msgspec
import pytest
from serving_world import BLOCK_TOKENS, DENSE, GPU, job, planned, prompt

from testbed.job import Placement, Request, UnitShape
from testbed.placement import Layout, kinds_of_units, place
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.serving.capacity import demand_of
from testbed.serving.plans.batch_time import BatchTimes
from testbed.serving.plans.kv_moves import fetched, ways
from testbed.serving.routing.estimates import fetch_traffic
from testbed.serving.routing.traffic_ahead import TrafficAhead
from testbed.serving.slo import IdleCluster
from testbed.serving.system import ServingSystem
from testbed.topology import NicRates, Topology, star
from testbed.unit_shape import PlacementError, Pool
from workers.plan import BatchPlan

MODEL = msgspec.structs.replace(DENSE, q_heads=4, kv_heads=4)
FAST = 10**15


def placed(*more: Pool, ranks: int = 1, nic_bps: int = FAST) -> tuple[Topology, Placement]:
    """p0 has `ranks` tensor-parallel ranks, and `more` units follow; every rank has a server of its own."""
    topology = star(servers=40, nic_bps=nic_bps)
    placement = place(
        topology,
        prefill_units=1,
        ranks_per_unit=ranks,
        decode_ranks=1,
        ranks_per_server=None,
        tp=None,
        ep=None,
        layout=Layout.SPREAD,
        model=MODEL,
        more=more,
    )
    return topology, placement


def waiting(request: Request) -> Assigned:
    return Assigned(request=request, replica=0, local_blocks=0, fetches=())


def test_units_are_numbered_on_and_each_has_its_shape() -> None:
    topology, placement = placed(Pool(units=2, ranks=2), Pool(units=1, ranks=4, tp=2, pp=2), ranks=1)
    assert placement.units == {"p0": (0,), "p1": (1, 2), "p2": (3, 4), "p3": (5, 6, 7, 8)}
    assert placement.replicas["p3"] == ((5, 6, 7, 8),)
    assert placement.decode == (9,)
    assert placement.groups == {
        "p1.tp0": (1, 2),
        "p2.tp0": (3, 4),
        "p3.tp0": (5, 6),
        "p3.tp1": (7, 8),
        "p3.pp0": (5, 7),
        "p3.pp1": (6, 8),
    }
    assert placement.shapes["p1"] == UnitShape(tp=2)
    assert placement.shapes["p3"] == UnitShape(tp=2, pp=2)
    assert kinds_of_units(placement, topology) == {"p0": ("p0",), "p1": ("p1", "p2"), "p3": ("p3",)}
    assert placement.most_stages == 2


@pytest.mark.parametrize(
    ("pool", "key"),
    [
        (Pool(units=1, ranks=3, section="units.more[0]"), "units.more[0].tp"),
        (Pool(units=1, ranks=4, pp=3, section="units.more[0]"), "units.more[0].pp"),
        (Pool(units=1, ranks=4, ep=2, section="units.more[0]"), "units.more[0].ep"),
        (Pool(units=1, ranks=4, sp=3, section="units.more[0]"), "units.more[0].sp"),
        (Pool(units=0, ranks=4, section="units.more[0]"), "units.more[0].prefill_units"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_its_own_key(pool: Pool, key: str) -> None:
    with pytest.raises(PlacementError) as caught:
        placed(pool)
    assert caught.value.key == key


# --- reused KV between them ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("src", "dst", "tokens", "pieces"),
    [
        # 10 tokens, 80 B a head. Two heads each to four ranks with one head each.
        (UnitShape(tp=2), UnitShape(tp=4), 10, {(0, 0): 80, (0, 1): 80, (1, 2): 80, (1, 3): 80}),
        (UnitShape(tp=4), UnitShape(tp=1), 10, {(i, 0): 80 for i in range(4)}),
        # Tokens 0, 2, .. are in part 0 and tokens 1, 3, .. in part 1: 5 and 4 of 9, 32 B each.
        (UnitShape(sp=2), UnitShape(), 9, {(0, 0): 160, (1, 0): 128}),
        # Token t is in part t mod 2 there, and in part t mod 3 here. Of 8: 0 6 | 4 | 2 and 3 | 1 7 | 5.
        (
            UnitShape(sp=2),
            UnitShape(sp=3),
            8,
            {(0, 0): 64, (0, 1): 32, (0, 2): 32, (1, 0): 32, (1, 1): 64, (1, 2): 32},
        ),
        # Part 0 of 2 has the tokens of parts 0 and 2 of 4. Of 6: 0 4 | 2 and 1 5 | 3. Both with 2 ranks.
        (
            UnitShape(sp=2, tp=2),
            UnitShape(sp=4, tp=2),
            6,
            {
                (0, 0): 32,
                (1, 1): 32,
                (0, 4): 16,
                (1, 5): 16,
                (2, 2): 32,
                (3, 3): 32,
                (2, 6): 16,
                (3, 7): 16,
            },
        ),
    ],
)
def test_a_replica_gets_reused_kv_from_those_who_have_its_tokens_and_heads(
    src: UnitShape, dst: UnitShape, tokens: int, pieces: dict[tuple[int, int], int]
) -> None:
    assert {(p.src, p.dst): p.size for p in fetched(tokens, src, dst, MODEL, MODEL.attention)} == pieces


def test_a_copy_of_a_head_sends_and_receives_a_share_of_it() -> None:
    """8 ranks for 4 heads: each of two copies has half of a head's 80 B to send, or to receive."""
    model = msgspec.structs.replace(MODEL, q_heads=8)
    sent = fetched(10, UnitShape(tp=8), UnitShape(tp=4), model, model.attention)
    assert {(p.src, p.dst): p.size for p in sent} == {(i, i // 2): 40 for i in range(8)}
    back = fetched(10, UnitShape(tp=4), UnitShape(tp=8), model, model.attention)
    assert {(p.dst, p.src): p.size for p in back} == {(p.src, p.dst): p.size for p in sent}


def test_every_layer_comes_from_the_stage_that_has_it() -> None:
    """p1 has two stages of one layer and p2 has two ranks. 2 blocks of 4 tokens: 8 x 8 B a head."""
    topology, placement = placed(Pool(units=1, ranks=2, tp=1, pp=2), Pool(units=1, ranks=2), ranks=4)
    reused = (
        Fetch(unit="p1", replica=0, blocks=2),
        Fetch(unit="p2", replica=0, blocks=1),
    )
    plan = _plan(topology, placement, reused)
    wait = [{(move.src, move.dst): move.size_bytes for move in layer.wait} for layer in plan.layers]
    from_p2 = {(6, 0): 32, (6, 1): 32, (7, 2): 32, (7, 3): 32}
    assert wait[0] == {(4, i): 64 for i in range(4)} | from_p2
    assert wait[1] == {(5, i): 64 for i in range(4)} | from_p2


def test_the_estimate_of_a_fetch_has_the_same_bytes() -> None:
    topology, placement = placed(Pool(units=1, ranks=2, tp=1, pp=2), ranks=4)
    item = _item(placement, (Fetch(unit="p1", replica=0, blocks=2),))
    plan = _plan(topology, placement, item.fetches)
    moved: Counter[tuple[str, str]] = Counter()
    for layer in plan.layers:
        for move in layer.wait:
            moved[placement.node_of(move.src), placement.node_of(move.dst)] += move.size_bytes
    assert fetch_traffic(job(topology, placement, model=MODEL), item, "p0") == moved
    assert sum(share for _, _, share in ways(UnitShape(pp=3, sp=2), UnitShape(pp=2, tp=4))) == pytest.approx(
        6
    )


# --- their speeds ----------------------------------------------------------------------------------


def test_a_larger_unit_gets_more_requests_from_a_router_that_counts_time() -> None:
    """A unit of 4 ranks takes a quarter of the time. With 16 tokens queued at each, it is free sooner."""
    topology, placement = placed(Pool(units=1, ranks=4))
    made = job(topology, placement, model=MODEL, router="kv-aware")
    system = ServingSystem(made)
    counts = Counter(_unit_of(system, number) for number in range(20))
    assert counts == {"p0": 4, "p1": 16}


def test_the_capacity_is_that_of_all_units_together() -> None:
    """Per token and layer 2 x (128 + 96) = 448 FLOPs, in 2 layers 896: 10 tokens are 8,960. Scores 4 heads x
    2 x 2 x 2 = 32 FLOPs a key, 55 keys, 2 layers: 3,520. At 500 FLOP/s and rank 24.96 s, on 4 ranks 6.24 s.
    """
    topology, placement = placed(Pool(units=2, ranks=4))
    rate = demand_of(
        [prompt(0, 10)],
        placement=placement,
        model=MODEL,
        gpu=msgspec.structs.replace(GPU, memory_bytes_per_s=1e15),
        topology=topology,
        max_batch_tokens=1000,
    ).capacity_rps
    assert rate == pytest.approx(1 / 24.96 + 2 / 6.24)


def test_ports_carry_the_kv_of_all_units() -> None:
    """At 1 B/s, all 10 x 64 B of a request's KV go through the port of the decode worker, from any unit."""
    topology, placement = placed(Pool(units=1, ranks=4), nic_bps=8)
    rate = demand_of(
        [prompt(0, 10)],
        placement=placement,
        model=MODEL,
        gpu=GPU,
        topology=topology,
        max_batch_tokens=1000,
    ).capacity_rps
    assert rate == pytest.approx(1 / 640)


def test_a_request_is_promised_what_the_fastest_unit_takes() -> None:
    topology, placement = placed(Pool(units=1, ranks=4))
    both = IdleCluster(placement=placement, model=MODEL, gpu=GPU, topology=topology)
    _, large = placed(ranks=4)
    alone = IdleCluster(placement=large, model=MODEL, gpu=GPU, topology=topology)
    _, small = placed()
    slow = IdleCluster(placement=small, model=MODEL, gpu=GPU, topology=topology)
    assert both.unloaded_ttft_ns(10, 0) == alone.unloaded_ttft_ns(10, 0) < slow.unloaded_ttft_ns(10, 0)


def test_units_behind_slower_nics_are_of_another_kind() -> None:
    """p0 is on h1 and h2, p1 on h3 and h4. The NIC of h2 is slow."""
    _, placement = placed(Pool(units=1, ranks=2), ranks=2)
    slow = NicRates(usual=(800,), others={"h2": (80,)})
    topology = star(servers=40, nic_bps=slow)
    assert kinds_of_units(placement, topology) == {"p0": ("p0",), "p1": ("p1",)}
    assert len(kinds_of_units(placement, star(servers=40, nic_bps=800))) == 1
    everywhere = star(servers=40, nic_bps=80)
    mixed, fast, slowest = (
        IdleCluster(placement=placement, model=MODEL, gpu=GPU, topology=of).unloaded_ttft_ns(10, 0)
        for of in (topology, star(servers=40, nic_bps=800), everywhere)
    )
    assert mixed == fast < slowest


def test_a_batch_takes_as_long_as_its_own_unit_does() -> None:
    """As above, 24.96 s for 10 tokens on the unit of one rank, and a quarter on the one of four."""
    topology, placement = placed(Pool(units=1, ranks=4))
    times = BatchTimes(job(topology, placement, model=MODEL))
    item = _item(placement, ())
    item = msgspec.structs.replace(item, request=prompt(0, 10))
    assert [times.ns(unit, [item]) for unit in ("p0", "p1")] == pytest.approx([24.96e9, 6.24e9])
    assert times.even("p1", [item]) == [item]


def test_the_kv_of_a_queued_request_leaves_over_the_ports_of_its_own_unit() -> None:
    """10 tokens x 64 B at 1 B/s: 640 s over the one NIC of p0, 160 s over each of four NICs of p1.

    p2 has two stages of two ranks, and each of the four sends a quarter too.
    """
    topology, placement = placed(Pool(units=1, ranks=4), Pool(units=1, ranks=4, tp=2, pp=2), nic_bps=8)
    made = job(topology, placement, model=MODEL)
    for unit, busy_s in (("p0", 640), ("p1", 160), ("p2", 160)):
        ahead = TrafficAhead(made)
        ahead.queued(unit, waiting(prompt(0, 10)))
        assert [ahead.ports_ns(name) for name in placement.units] == pytest.approx(
            [busy_s * 1e9 if name == unit else 0 for name in placement.units]
        )


def test_kv_that_stays_in_its_server_leaves_over_no_port() -> None:
    """Both ranks of p0 share their server with the decode rank of the same heads. p1 is by itself."""
    topology = star(servers=3, nic_bps=8)
    placement = place(
        topology,
        prefill_units=1,
        ranks_per_unit=2,
        decode_ranks=2,
        decode_tp=2,
        ranks_per_server=None,
        tp=None,
        ep=None,
        layout=Layout.SPREAD,
        model=MODEL,
        more=(Pool(units=1, ranks=1),),
    )
    ahead = TrafficAhead(job(topology, placement, model=MODEL))
    ahead.queued("p0", waiting(prompt(0, 10)))
    ahead.queued("p1", waiting(prompt(1, 10)))
    assert [ahead.ports_ns(unit) for unit in ("p0", "p1")] == pytest.approx([0, 640e9])


def test_every_copy_of_a_head_that_decode_ranks_keep_is_sent() -> None:
    """Eight decode ranks keep four heads twice: 1280 B instead of 640 B."""
    topology = star(servers=10, nic_bps=8)
    placement = place(
        topology,
        prefill_units=1,
        ranks_per_unit=1,
        decode_ranks=8,
        decode_tp=8,
        ranks_per_server=None,
        tp=None,
        ep=None,
        layout=Layout.SPREAD,
        model=msgspec.structs.replace(MODEL, q_heads=8),
    )
    ahead = TrafficAhead(job(topology, placement, model=MODEL))
    item = _item(placement, ())
    item = msgspec.structs.replace(item, request=prompt(0, 10))
    ahead.queued("p0", item)
    assert ahead.ports_ns("p0") == pytest.approx(1280e9)
    ahead.delivering("p0", item, placement.decode_workers[0])
    assert ahead.ports_ns("p0") == pytest.approx(1280e9)


def test_a_pipeline_beside_a_single_stage_runs_several_batches() -> None:
    topology, placement = placed(Pool(units=1, ranks=2, pp=2))
    system = ServingSystem(job(topology, placement, model=MODEL, router="round-robin"))
    started = [len(system.arrive(0, prompt(number, 4))) for number in range(6)]
    assert started == [1, 1, 0, 1, 0, 0]


# --- helpers ---------------------------------------------------------------------------------------


def _item(placement: Placement, fetches: tuple[Fetch, ...]) -> Assigned:
    blocks = sum(fetch.blocks for fetch in fetches)
    request = prompt(0, blocks * BLOCK_TOKENS + 2, tuple(range(blocks)))
    return Assigned(request=request, replica=0, local_blocks=0, fetches=fetches)


def _plan(topology: Topology, placement: Placement, fetches: tuple[Fetch, ...]) -> BatchPlan:
    return planned([_item(placement, fetches)], topology, placement, model=MODEL)


def _unit_of(system: ServingSystem, number: int) -> str:
    """The unit that a request of 8 tokens goes to."""
    before = {name: unit.queued_tokens() for name, unit in system._units.items()}
    system.arrive(0, prompt(number, 8))
    (unit,) = (name for name, unit in system._units.items() if unit.queued_tokens() > before[name])
    return unit

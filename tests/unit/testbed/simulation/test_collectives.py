"""Collectives of the simulated fabric, flow by flow: times worked out by hand."""

from statistics import fmean

import pytest
from collective_world import BPS, MB, MS, all_to_all, collective, compute, ends_ms, played, world

from controller.flow import Stage
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Overheads
from testbed.record import FlowRow, RunRecord
from testbed.serving.plans.idle_network import layer_s
from testbed.simulation.collectives import even
from workers.plan import Collective, CollectiveKind

ALL_TO_ALL, ALL_GATHER = CollectiveKind.ALL_TO_ALL, CollectiveKind.ALL_GATHER
RING, TREE = CollectiveKind.ALL_REDUCE, CollectiveKind.TREE_ALL_REDUCE
RING_ATTENTION = CollectiveKind.RING_ATTENTION

# --- as they are ------------------------------------------------------------------------------------


def test_a_ring_all_reduce_goes_round_twice() -> None:
    """8 MB among 4: 2 x 3 rounds of 2 MB at 1 GB/s, 12 ms."""
    assert ends_ms(played(4, collective(RING, (8 * MB,)))) == [12] * 4


def test_a_ring_waits_for_its_slowest_link() -> None:
    """Member 1 needs 4 ms for 2 MB: six times, 24 ms for it and member 2. Member 0 cannot send to 1, nor
    2 to 3, before these begin the round, at 20 ms the last one: that takes 2 ms.
    """
    record = played(4, collective(RING, (8 * MB,)), bps={"h2->s1": BPS // 2})
    assert ends_ms(record) == [22, 24, 24, 22]


def test_an_all_gather_goes_round_once() -> None:
    """2 MB of each of 4: 3 rounds of 2 ms."""
    assert ends_ms(played(4, collective(ALL_GATHER, [2 * MB] * 4))) == [6] * 4


def test_a_large_shard_holds_up_those_behind_it() -> None:
    """Shards of 1, 1, 1 and 4 MB. Member 3 sends its own until 4 ms, 0 passes it on until 8 ms and 1 until
    12 ms, when 2 has it. From 8 ms on 0 also sends 2's shard and is sent 1's, each 1 MB.
    """
    step = collective(ALL_GATHER, [MB, MB, MB, 4 * MB])
    topology, placement = world(4)
    assert ends_ms(played(4, step)) == [9, 12, 12, 9]
    assert layer_s([step], placement, topology) == pytest.approx(0.012)


def test_an_all_to_all_fills_all_links_at_once() -> None:
    """2 MB to each of 3 others: 6 MB up and 6 MB down, 6 ms."""
    assert ends_ms(played(4, all_to_all(4, 2 * MB))) == [6] * 4


def test_an_all_to_all_is_over_for_whom_it_is_over() -> None:
    """Member 0 sends 1 MB to 1 and 3 MB to 2, both at half of its link: 2 ms, then the rest alone by 4 ms."""
    record = played(3, collective(ALL_TO_ALL, [0, MB, 3 * MB], [0, 0, 0], [0, 0, 0]))
    assert ends_ms(record) == [4, 2, 4]


def test_a_small_tree_takes_a_round_for_each_level_up_and_down() -> None:
    """1 MB among 4, one chunk: halves of 0.5 MB. 0 - 2 - (1, 3) and 3 - 1 - (0, 2): two leaves send to
    members 1 and 2, 1 ms; these to the roots, 0.5 ms; back, 0.5 ms; to two leaves each, 1 ms.
    """
    assert ends_ms(played(4, collective(TREE, (MB,)))) == [3] * 4


def test_a_tree_sends_chunks_up_and_down_at_once() -> None:
    """8 MB between 2: each is the root of one half, so 8 chunks of 0.5 MB go up and, a round later, down:
    0.5 ms, 7 x 1 ms, 0.5 ms. A ring takes 8 ms as well."""
    assert ends_ms(played(2, collective(TREE, (8 * MB,)))) == [8, 8]
    assert ends_ms(played(2, collective(RING, (8 * MB,)))) == [8, 8]


@pytest.mark.parametrize("members", [3, 4, 7, 8])
def test_a_large_tree_takes_its_rounds_as_if_all_members_kept_step(members: int) -> None:
    """They nearly do: a member that waits for little runs ahead and takes bandwidth from the others.

    16 MB in 16 chunks a half; 4 members: 33 ms, of which the busiest links are busy for 32.
    """
    step = collective(TREE, (16 * MB,))
    topology, placement = world(members)
    took_ms = max(ends_ms(played(members, step)))
    assert took_ms == pytest.approx(1000 * layer_s([step], placement, topology), rel=0.01)
    assert took_ms == pytest.approx(33) or members != 4


# --- ring attention ---------------------------------------------------------------------------------


def spans(kind: str, block_ms: float) -> list[tuple[float, float]]:
    """Begin and end, in ms, of a kind of spans of member 0 of 3, with blocks of 3 MB, 3 ms on a link."""
    attention = collective(RING_ATTENTION, [3 * MB] * 3, rounds_s=[[block_ms / 1000] * 3] * 3)
    record = played(3, attention)
    mine = [span for span in record.spans if span.rank == 0 and span.kind == kind]
    return [(span.start_ns / 1e6, span.end_ns / 1e6) for span in mine]


def test_ring_attention_that_computes_longer_than_it_sends_hides_the_network() -> None:
    assert spans("compute", 5) == [(0, 5), (5, 10), (10, 15)]
    assert spans("collective", 5) == []


def test_ring_attention_that_sends_longer_than_it_computes_waits_for_the_rest() -> None:
    """A round is 3 ms, 2 of which are waiting; the third block comes with the second round."""
    assert spans("compute", 1) == [(0, 1), (3, 4), (6, 7)]
    assert spans("collective", 1) == [(1, 3), (4, 6)]


def test_what_a_machine_adds_to_compute_is_added_to_each_block_of_ring_attention() -> None:
    """Half a millisecond on top of 5 ms. The next block is there by then."""
    attention = collective(RING_ATTENTION, [3 * MB] * 3, rounds_s=[[0.005] * 3] * 3)
    record = played(3, attention, overheads=Overheads(compute_ns=MS // 2))
    ends = [span.end_ns / MS for span in record.spans if span.rank == 0 and span.kind == "compute"]
    assert ends == [5.5, 11, 16.5]


@pytest.mark.parametrize(("block_ms", "expected_ms"), [(5, 15), (1, 7)])
def test_the_ideal_time_of_ring_attention_is_the_longer_of_both(block_ms: int, expected_ms: int) -> None:
    topology, placement = world(3)
    attention = collective(RING_ATTENTION, [3 * MB] * 3, rounds_s=[[block_ms / 1000] * 3] * 3)
    assert layer_s([attention], placement, topology) == pytest.approx(expected_ms / 1000)


def test_ring_attention_without_compute_is_an_all_gather() -> None:
    assert ends_ms(played(3, collective(RING_ATTENTION, [3 * MB] * 3))) == [6] * 3


# --- members that are not together ------------------------------------------------------------------


def test_nothing_is_sent_to_a_member_that_has_not_come() -> None:
    """Members 0 and 1 exchange 4 MB, then wait for 2, which computes for 10 ms. Then both exchange 4 MB
    with it, each at half of its link."""
    record = played(3, compute(0, 0, 0.010), all_to_all(3, 4 * MB))
    assert ends_ms(record) == [18, 18, 18]
    shares = [row for row in record.flows if row.coflow == "b.l0.c"]
    assert sorted((row.submit_ns / MS, row.finish_ns / MS) for row in shares) == [(0, 18), (0, 18), (10, 18)]


@pytest.mark.parametrize("kind", [RING, TREE, ALL_GATHER])
def test_a_member_that_comes_late_is_waited_for(kind: CollectiveKind) -> None:
    sizes = [3 * MB] * 3 if kind is ALL_GATHER else [3 * MB]
    record = played(3, compute(0, 0, 0.010), collective(kind, sizes))
    assert all(end > 10 for end in ends_ms(record))


def test_ranks_of_one_server_exchange_in_no_time() -> None:
    for step in (all_to_all(4, MB), *(collective(kind, (MB,)) for kind in (RING, TREE))):
        assert ends_ms(played(4, step, servers=1)) == [0] * 4


@pytest.mark.parametrize("grouped", [False, True])
def test_a_group_of_one_has_nothing_to_wait_for(grouped: bool) -> None:
    for step in (all_to_all(1, MB), *(collective(kind, (MB,)) for kind in (RING, TREE, ALL_GATHER))):
        assert ends_ms(played(1, step, grouped=grouped)) == [0]


@pytest.mark.parametrize("kind", CollectiveKind)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_collective_of_nothing_takes_no_time(kind: CollectiveKind, grouped: bool) -> None:
    sizes = [[0] * 3] * 3 if kind is ALL_TO_ALL else [[0] * 3]
    assert ends_ms(played(3, collective(kind, *sizes), grouped=grouped)) == [0] * 3


# --- in one stream ----------------------------------------------------------------------------------

SYMMETRIC = [all_to_all(4, 2 * MB), collective(RING, (8 * MB,)), collective(ALL_GATHER, [2 * MB] * 4)]


@pytest.mark.parametrize("step", SYMMETRIC, ids=lambda step: step.kind.value)
@pytest.mark.parametrize("slow", [None, "h2->s1", "s1->h2"])
def test_alone_a_symmetric_collective_ends_as_if_it_were_sent_flow_by_flow(
    step: Collective, slow: str | None
) -> None:
    bps = None if slow is None else {slow: BPS // 2}
    exact = played(4, step, bps=bps)
    grouped = played(4, step, bps=bps, grouped=True)
    assert ends_ms(grouped) == [max(ends_ms(exact))] * 4
    assert [row.id for row in grouped.flows if row.coflow == "b.l0.c"] == ["b.l0.c"]
    sent = [sum(row.size_bytes for row in run.flows) for run in (exact, grouped)]
    assert sent[0] == sent[1]


def test_one_stream_begins_with_the_last_member() -> None:
    record = played(2, compute(0, 0.010), all_to_all(2, 4 * MB), grouped=True)
    [flow] = [row for row in record.flows if row.coflow == "b.l0.c"]
    assert (flow.submit_ns, flow.finish_ns) == (10 * MS, 14 * MS)
    assert ends_ms(record) == [14, 14]


@pytest.mark.parametrize(
    ("step", "grouped"),
    [
        (collective(RING, (8,)), True),
        (collective(TREE, (8,)), False),
        (all_to_all(3, 1000), True),
        (collective(ALL_TO_ALL, [7, 1000, 1000], [5, 7, 5], [0, 0, 7]), True),
        (collective(ALL_TO_ALL, [7, 1000, 5], [0, 7, 5], [0, 1000, 7]), True),
        (collective(ALL_TO_ALL, [7, 1000, 990], [5, 7, 5], [0, 0, 7]), True),
        (collective(ALL_TO_ALL, [7, 1000, 989], [5, 7, 5], [0, 0, 7]), False),
        (collective(ALL_GATHER, [1000, 990, 1000]), True),
        (collective(ALL_GATHER, [1000, 989, 1000]), False),
        (collective(RING_ATTENTION, [1000] * 3), False),
        (all_to_all(3, 0), False),
        (collective(RING, (0,)), False),
    ],
)
def test_only_collectives_whose_members_send_alike_go_in_one_stream(step: Collective, grouped: bool) -> None:
    """Equally much to all others, or from all others, within a hundredth. The diagonal is not sent."""
    assert even(step, 3) is grouped
    assert not even(step, 1)


# --- in serving -------------------------------------------------------------------------------------


def served(policy: str, *settings: str) -> RunRecord:
    texts = [f'policies=["{policy}"]', "fabric=sim", *settings]
    job = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    return FABRICS["sim"]().run(job, lambda progress: None)


def completion_ns(record: RunRecord) -> list[int]:
    """Time from the last member's share to the last byte, for every collective, the shortest first."""
    shares: dict[str | None, list[FlowRow]] = {}
    for row in record.flows:
        if row.stage is Stage.COLLECTIVE:
            shares.setdefault(row.coflow, []).append(row)
    return sorted(
        max(row.finish_ns for row in rows) - max(row.submit_ns for row in rows) for rows in shares.values()
    )


def mean_ttft_ns(record: RunRecord) -> float:
    return fmean(row.ttft_ns for row in record.requests if row.ttft_ns is not None)


DENSE = ("model=llama-3-8b", "units.tp=4")
OVERSUBSCRIBED = (
    "topology.kind=leaf-spine",
    "topology.leaves=5",
    "topology.hosts_per_leaf=2",
    "topology.oversubscription=4",
)


@pytest.mark.parametrize(
    ("settings", "mean", "p99", "ttft"),
    [((), 0.01, 0.05, 0.01), (DENSE, 0.001, 0.01, 0.001), (OVERSUBSCRIBED, 0.05, 0.10, 0.05)],
    ids=["experts", "dense", "oversubscribed"],
)
@pytest.mark.parametrize("policy", ["fair", "mfs"])
def test_in_one_stream_serving_takes_about_as_long_as_message_by_message(
    policy: str, settings: tuple[str, ...], mean: float, p99: float, ttft: float
) -> None:
    """The bounds of docs/concepts/collectives.md. All collectives of these jobs go in one stream each."""
    exact = served(policy, "workload.requests=8", *settings)
    grouped = served(policy, "workload.requests=8", "simulation.collectives=grouped", *settings)
    one, other = completion_ns(exact), completion_ns(grouped)
    assert len(other) == sum(row.stage is Stage.COLLECTIVE for row in grouped.flows)
    assert fmean(other) == pytest.approx(fmean(one), rel=mean)
    assert other[len(other) * 99 // 100] == pytest.approx(one[len(one) * 99 // 100], rel=p99)
    assert mean_ttft_ns(grouped) == pytest.approx(mean_ttft_ns(exact), rel=ttft)


def test_a_request_alone_takes_its_unloaded_ttft_with_trees_as_well() -> None:
    """This holds if S2 goes before S3. If they share, it takes 1 % more."""
    [row] = served("stage", "workload.requests=1", "serving.all_reduce=tree", *DENSE).requests
    assert row.ttft_ns == pytest.approx(row.unloaded_ttft_ns, rel=1e-4)


def test_serving_reduces_over_trees_where_it_is_told_to() -> None:
    """To reduce n bytes among 4, each member of a ring sends 3/2 n; in a tree n, or 2 n with children."""
    sent = {}
    for kind in ("ring", "tree"):
        record = served("fair", "workload.requests=1", f"serving.all_reduce={kind}", *DENSE)
        sent[kind] = [
            row.size_bytes for row in record.flows if (row.coflow or "").startswith("p0.b0.l0.mlp-reduce")
        ]
    [each] = set(sent["ring"])
    assert sorted(sent["tree"]) == [each * 2 // 3] * 2 + [each * 4 // 3] * 2

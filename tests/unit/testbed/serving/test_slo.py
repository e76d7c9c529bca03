"""Unloaded TTFT, SLOs and the estimated capacity, worked out on the tiny world."""

from collections.abc import Sequence

import msgspec
import pytest
from serving_world import DENSE, GPU, MOE, placed, prompt

from testbed.job import Placement, Request
from testbed.models.shape import ModelShape
from testbed.serving.capacity import demand_of
from testbed.serving.plans.idle_network import drain_s, step_traffic
from testbed.serving.slo import IdleCluster, Reference, SloTarget, ideal_reuse_tokens, with_slos
from testbed.topology import Topology, leaf_spine, star
from workers.plan import Collective, CollectiveKind


def test_unloaded_ttft_pipelines_s1_compute_and_s3() -> None:
    """8 tokens, 4 of them reused from p1; ranks 0 .. 4 on five servers.

    Per layer: attention 4 x 160 + 16 x (4 x 4 + 10) = 1056 FLOPs, 2.112 s. Dispatch: rank 0 sends
    4 x 16 / 2 = 32 B to rank 1, 0.32 s, and combine brings them back, 0.32 s. Experts:
    4 x 2 x 192 / 2 = 768 FLOPs, 1.536 s. So c = 4.288 s. S1: 4 x 16 B, 0.64 s. S3: 8 x 16 B, 1.28 s.
    t_0 = 0.64 + 4.288 = 4.928; t_1 = 9.216; S3 has arrived at 6.208 and 10.496.
    Decode step: 1088 B of weights and 8 x 32 B of KV at 1000 B/s, 1.344 s. Together 11.84 s.
    """
    topology, placement = placed()
    assert _unloaded(8, 4, topology, placement) == 11_840_000_000


def test_without_reuse_there_is_no_s1() -> None:
    """Attention 8 x 160 + 16 x 36 = 1856 FLOPs, 3.712 s; dispatch and combine 0.64 s each; experts
    8 x 2 x 192 / 2 = 1536 FLOPs, 3.072 s: c = 8.064 s. Then 16.128 + 1.28 + 1.344 = 18.752 s.
    """
    topology, placement = placed()
    assert _unloaded(8, 0, topology, placement) == 18_752_000_000


def test_on_a_slow_network_layers_wait_for_s1_and_s3_queues_at_the_nic() -> None:
    """1 B/s NICs and a dense model on one rank, so no collectives: s1 = 64 s, s3 = 128 s.

    c = (4 x 128 + 16 x 26 + 4 x 192) / 500 = 3.392 s; t_0 = 67.392, d_0 = 195.392; t_1 = 131.392,
    d_1 = d_0 + 128 = 323.392. Decode: 2 x (64 + 96) x 2 + 256 = 896 B, 0.896 s.
    """
    topology, placement = placed(per_unit=1, servers=3, model=DENSE, nic_bps=8)
    assert _unloaded(8, 4, topology, placement, DENSE) == 324_288_000_000


def test_the_busiest_port_bounds_the_ttft() -> None:
    """8 layers at 1 B/s: c = 3.712 + 64 + 3.072 + 64 = 134.784 s, longer than s3 = 128 s, so the
    pipeline alone would end at 8 c + s3 = 1206.272 s. But rank 0's uplink has to carry 64 B of
    dispatch and 128 B of S3 per layer: 1536 s. Decode: 8 x 272 x 2 + 8 x 128 = 5376 B, 5.376 s.
    """
    deep = msgspec.structs.replace(MOE, layers=8)
    topology, placement = placed(model=deep, nic_bps=8)
    assert _unloaded(8, 0, topology, placement, deep) == 1_541_376_000_000


def test_a_lone_replica_reuses_locally() -> None:
    """One unit, one rank: nothing to fetch from. c = 3.392 s as above, s3 = 1.28 s at 100 B/s.

    2 x 3.392 + 1.28 + 0.896 = 8.96 s.
    """
    topology, placement = placed(units=1, per_unit=1, servers=2, model=DENSE)
    assert _unloaded(8, 4, topology, placement, DENSE) == 8_960_000_000


def test_the_decode_worker_is_on_another_server_where_there_is_one() -> None:
    """Two servers: rank 0 and the first decode worker on h1, the second on h2.

    2 x 8 tokens x 16 B cross the network: without reuse 2 c + s3 + decode step, where
    c = (8 x 128 + 16 x 36 + 8 x 192) / 500 = 6.272 s: 12.544 + 1.28 + 0.896 = 14.72 s.
    """
    topology, placement = placed(per_unit=1, decode=2, servers=2, model=DENSE)
    assert placement.server_of(0) == placement.server_of(placement.decode[0]) == "h1"
    assert _unloaded(8, 0, topology, placement, DENSE) == 14_720_000_000


def test_ideal_reuse_is_the_longest_prefix_of_any_earlier_request() -> None:
    """Order is by arrival, not by position; the last token of request 3 is never reused."""
    requests = [
        prompt(0, 12, (1, 2, 9), arrival_ns=30),
        prompt(1, 12, (1, 2, 3), arrival_ns=10),
        prompt(2, 12, (7, 8, 9), arrival_ns=20),
        prompt(3, 12, (1, 2, 3), arrival_ns=40),
    ]
    assert ideal_reuse_tokens(requests) == {1: 0, 2: 0, 0: 8, 3: 8}


def test_slos_are_multiples_or_absolute_by_class() -> None:
    """Alone, 8 tokens without reuse take 18.752 s (above); a class without a target is default."""
    topology, placement = placed()
    promised = with_slos(
        [
            prompt(0, 8),
            prompt(1, 8, slo_class="strict"),
            prompt(2, 8, slo_class="other"),
        ],
        targets={"default": SloTarget(multiple=3.0), "strict": SloTarget(absolute_s=2.5)},
        placement=placement,
        model=MOE,
        gpu=GPU,
        topology=topology,
    )
    assert [r.id for r in promised] == [0, 1, 2]
    assert [r.unloaded_ns for r in promised] == [18_752_000_000] * 3
    assert [r.slo_ns for r in promised] == [56_256_000_000, 2_500_000_000, 56_256_000_000]


def test_the_reuse_that_a_workload_offers_is_in_its_slos() -> None:
    topology, placement = placed()
    first, second = with_slos(
        [prompt(0, 8, (1, 2)), prompt(1, 8, (1, 2), arrival_ns=1)],
        targets={"default": SloTarget(multiple=1.0)},
        placement=placement,
        model=MOE,
        gpu=GPU,
        topology=topology,
    )
    assert (first.slo_ns, second.slo_ns) == (18_752_000_000, 11_840_000_000)


def test_a_multiple_can_be_one_of_the_mean_over_all_requests() -> None:
    """Alone 18.752 s and 11.84 s (above): 15.296 s on average."""
    topology, placement = placed()
    promised = with_slos(
        [prompt(0, 8, (1, 2)), prompt(1, 8, (1, 2), arrival_ns=1, slo_class="strict")],
        targets={"default": SloTarget(multiple=2.0), "strict": SloTarget(multiple=1.5)},
        placement=placement,
        model=MOE,
        gpu=GPU,
        topology=topology,
        reference=Reference.MEAN,
    )
    assert [r.unloaded_ns for r in promised] == [18_752_000_000, 11_840_000_000]
    assert [r.slo_ns for r in promised] == [30_592_000_000, 22_944_000_000]


def test_slos_without_a_default_are_refused() -> None:
    topology, placement = placed()
    with pytest.raises(ValueError, match="lack 'default'"):
        with_slos([], targets={}, placement=placement, model=MOE, gpu=GPU, topology=topology)


@pytest.mark.parametrize(("multiple", "absolute_s"), [(None, None), (3.0, 1.0), (0.0, None), (None, -1.0)])
def test_a_target_is_one_positive_number(multiple: float | None, absolute_s: float | None) -> None:
    with pytest.raises(ValueError, match="SLO"):
        SloTarget(multiple=multiple, absolute_s=absolute_s)


def test_a_compute_bound_cluster_sustains_what_its_units_compute() -> None:
    """One request of 8 tokens. A full batch of 8, 4 per rank: attention 4 x 160 FLOPs, 1.28 s;
    dispatch and combine 32 B, 0.32 s each; experts 8 x 2 x 192 / 2, 3.072 s: 4.992 s per layer.
    Scores: 16 x 36 / 2 ranks / 500 = 0.576 s. Two layers: 11.136 s, on two units: 5.568 s.
    The busiest port is the decode worker's: 8 x 32 B, 2.56 s.
    """
    topology, placement = placed()
    assert _capacity([prompt(0, 8)], topology, placement) == pytest.approx(1 / 5.568)


def test_a_network_bound_cluster_sustains_what_its_busiest_port_carries() -> None:
    """10 B/s: the unit takes 2 x (1.28 + 3.2 + 3.072 + 3.2 + 0.576) / 2 = 11.328 s per request,
    the decode worker's port 256 B / 10 = 25.6 s.
    """
    topology, placement = placed(nic_bps=80)
    assert _capacity([prompt(0, 8)], topology, placement) == pytest.approx(1 / 25.6)


def test_collectives_and_s3_share_the_ports_of_the_prefill_servers() -> None:
    """Four decode workers on four more servers, 1 B/s. An uplink of a prefill server carries per
    request, on average over the two units, 2 layers x (32 + 32) B / 2 = 64 B of collectives and
    256 / 4 = 64 B of S3. A decode downlink carries 256 / 4 = 64 B. So 128 s; the units, at
    2 x (1.28 + 32 + 3.072 + 32 + 0.576) / 2 = 68.928 s, are faster.
    """
    topology, placement = placed(decode=4, servers=8, nic_bps=8)
    assert _capacity([prompt(0, 8)], topology, placement) == pytest.approx(1 / 128)


def test_reuse_raises_the_capacity_of_units() -> None:
    topology, placement = placed()
    fresh = [prompt(0, 8, (1, 2)), prompt(1, 8, (3, 4), arrival_ns=1)]
    shared = [prompt(0, 8, (1, 2)), prompt(1, 8, (1, 2), arrival_ns=1)]
    assert _capacity(shared, topology, placement) > _capacity(fresh, topology, placement)


def test_the_capacity_for_no_requests_is_refused() -> None:
    topology, placement = placed()
    with pytest.raises(ValueError, match="no requests"):
        _capacity([], topology, placement)


def test_a_ring_all_reduce_sends_its_vector_twice_less_one_part() -> None:
    """4 ranks on 4 servers, 80 B: 2 x 3 / 4 x 80 = 120 B from each to the next."""
    _, placement = placed(units=1, per_unit=4, servers=5)
    ring = Collective(id="x", group="p0.ep0", kind=CollectiveKind.ALL_REDUCE, sizes=((80,),), label="x")
    assert step_traffic([ring], placement) == pytest.approx(
        {("h1", "h2"): 120.0, ("h2", "h3"): 120.0, ("h3", "h4"): 120.0, ("h4", "h1"): 120.0}
    )


def test_incast_drains_at_the_receiver() -> None:
    """Two senders of 100 B into one NIC of 100 B/s; what stays on a server takes no time."""
    topology = star(servers=3, nic_bps=800)
    assert drain_s({("h1", "h3"): 100.0, ("h2", "h3"): 100.0}, topology) == pytest.approx(2.0)
    assert drain_s({("h1", "h1"): 100.0}, topology) == 0.0


def test_an_oversubscribed_leaf_is_the_bottleneck() -> None:
    """4:1 and two spines: each uplink runs at 2 x 800 / (2 x 4) = 200 bit/s, 25 B/s.

    100 B, half over each spine: 50 / 25 = 2 s, against 1 s at the NIC.
    """
    topology = leaf_spine(leaves=2, spines=2, hosts_per_leaf=2, nic_bps=800, oversubscription=4.0)
    assert drain_s({("h1", "h3"): 100.0}, topology) == pytest.approx(2.0)


def _unloaded(
    prompt_tokens: int,
    reused_tokens: int,
    topology: Topology,
    placement: Placement,
    model: ModelShape = MOE,
) -> int:
    cluster = IdleCluster(placement=placement, model=model, gpu=GPU, topology=topology)
    return cluster.unloaded_ttft_ns(prompt_tokens, reused_tokens)


def _capacity(requests: Sequence[Request], topology: Topology, placement: Placement) -> float:
    return demand_of(
        requests,
        placement=placement,
        model=MOE,
        gpu=GPU,
        topology=topology,
        max_batch_tokens=8,
    ).capacity_rps

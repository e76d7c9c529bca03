"""Who sends which KV to whom, if prefill and decode ranks divide the heads differently.

The dense model of `serving_world` with more heads: per token and layer, a KV head is 2 x 2 x 2 B = 8 B. So
10 tokens are 80 B per head. `LATENT` has a latent of 3 + 2 elements, 10 B a token, 100 B for 10 tokens.
"""

from itertools import product

import msgspec
import pytest
from serving_world import DENSE, GPU, job, placed, planned, prompt

from testbed.models.shape import LatentAttention, ModelShape
from testbed.serving.cache.assignment import Assigned
from testbed.serving.capacity import demand_of
from testbed.serving.decoding import batch_step_s, step_traffic
from testbed.serving.plans.build import decode_step_s
from testbed.serving.plans.resharding import pairs, resharded, share_of_sender
from testbed.serving.routing.estimates import delivery_traffic
from testbed.serving.slo import IdleCluster
from testbed.topology import star
from testbed.unit_shape import PlacementError
from workers.plan import BatchPlan
from workers.rounds import split

LATENT = msgspec.structs.replace(
    DENSE,
    q_heads=8,
    latent=LatentAttention(q_rank=0, kv_rank=3, nope_dim=2, rope_dim=2, v_dim=3),
)


def heads(number: int) -> ModelShape:
    return msgspec.structs.replace(DENSE, q_heads=8, kv_heads=number)


def plan_of(
    model: ModelShape, prefill_tp: int, decode_tp: int, *, tokens: int = 10, sp: int = 1, pp: int = 1
) -> BatchPlan:
    """One request on one replica; rank numbers of the decode worker follow those of the replica."""
    ranks = prefill_tp * sp * pp
    topology, placement = placed(
        units=1,
        per_unit=ranks,
        decode=decode_tp,
        servers=ranks + decode_tp,
        tp=prefill_tp,
        sp=sp,
        pp=pp,
        decode_tp=decode_tp,
        model=model,
    )
    item = Assigned(request=prompt(0, tokens), replica=0, local_blocks=0, fetches=())
    return planned([item], topology, placement, model=model)


def sent(plan: BatchPlan, layer: int = 0) -> dict[tuple[int, int], int]:
    """Bytes of S3 of a layer by rank of the replica and rank of the decode worker, both from 0."""
    first = len(plan.ranks)
    return {(move.src, move.dst - first): move.size_bytes for move in plan.layers[layer].post}


@pytest.mark.parametrize(
    ("model", "prefill_tp", "decode_tp", "bytes_"),
    [
        # 8 heads, 2 on each prefill rank: decode rank 0 has heads 0 to 3, from ranks 0 and 1.
        (heads(8), 4, 2, {(0, 0): 160, (1, 0): 160, (2, 1): 160, (3, 1): 160}),
        # 4 on each prefill rank, 2 on each decode rank.
        (heads(8), 2, 4, {(0, 0): 160, (0, 1): 160, (1, 2): 160, (1, 3): 160}),
        # The same on both sides: every rank has its counterpart.
        (heads(8), 2, 2, {(0, 0): 320, (1, 1): 320}),
        # 4 heads on 8 decode ranks: each head is wanted twice, whole, and its one holder sends it twice.
        (heads(4), 4, 8, {(i // 2, i): 80 for i in range(8)}),
        # 4 heads on 8 prefill ranks: each of the two holders of a head sends half of it.
        (heads(4), 8, 2, {(i, i // 4): 40 for i in range(8)}),
        # Both sides have every head twice: each copy serves one.
        (heads(4), 8, 8, {(i, i): 80 for i in range(8)}),
        # 2 heads: four copies of each at the prefill ranks, two wanted of each. A copy sends half of one.
        (heads(2), 8, 4, {(i, i // 2): 40 for i in range(8)}),
        # All KV of a single head to each decode rank.
        (heads(1), 1, 2, {(0, 0): 80, (0, 1): 80}),
        # One decode rank has all heads.
        (heads(8), 4, 1, {(i, 0): 160 for i in range(4)}),
        # The latent is whole on every rank, and every decode rank wants it whole.
        (LATENT, 4, 2, {(0, 0): 50, (1, 0): 50, (2, 1): 50, (3, 1): 50}),
        (LATENT, 2, 4, {(0, 0): 100, (0, 1): 100, (1, 2): 100, (1, 3): 100}),
        (LATENT, 4, 1, {(i, 0): 25 for i in range(4)}),
    ],
)
def test_a_decode_rank_gets_its_heads_from_those_who_have_them(
    model: ModelShape, prefill_tp: int, decode_tp: int, bytes_: dict[tuple[int, int], int]
) -> None:
    plan = plan_of(model, prefill_tp, decode_tp)
    assert sent(plan, 0) == sent(plan, 1) == bytes_


def test_head_counts_that_do_not_divide_each_other_meet_head_by_head() -> None:
    """12 heads, 3 on each of 4 prefill ranks and 2 on each of 6 decode ranks."""
    model = msgspec.structs.replace(DENSE, q_heads=12, kv_heads=12)
    assert sent(plan_of(model, 4, 6)) == {
        (0, 0): 160,  # heads 0, 1
        (0, 1): 80,  # head 2
        (1, 1): 80,  # head 3
        (1, 2): 160,
        (2, 3): 160,
        (2, 4): 80,
        (3, 4): 80,
        (3, 5): 160,
    }


def test_every_part_of_a_sequence_sends_its_own_tokens() -> None:
    """9 tokens on 2 parts: 5 and 4. 4 heads, 2 on each rank of a part and 1 on each decode rank."""
    model = msgspec.structs.replace(heads(4), q_heads=4)
    assert sent(plan_of(model, 2, 4, tokens=9, sp=2)) == {
        (0, 0): 40,
        (0, 1): 40,
        (1, 2): 40,
        (1, 3): 40,
        (2, 0): 32,
        (2, 1): 32,
        (3, 2): 32,
        (3, 3): 32,
    }


def test_every_pipeline_stage_sends_its_own_layers() -> None:
    plan = plan_of(heads(8), 2, 2, pp=2)
    assert sent(plan, 0) == {(0, 0): 320, (1, 1): 320}
    assert sent(plan, 1) == {(2, 0): 320, (3, 1): 320}


@pytest.mark.parametrize(("prefill_tp", "decode_tp"), [(4, 2), (2, 4), (4, 6), (6, 4), (1, 3), (12, 12)])
def test_every_decode_rank_knows_how_many_transfers_it_waits_for(prefill_tp: int, decode_tp: int) -> None:
    model = msgspec.structs.replace(DENSE, q_heads=12, kv_heads=12)
    plan = plan_of(model, prefill_tp, decode_tp, tokens=1, sp=2)
    (request,) = plan.requests
    got = dict.fromkeys(request.decode_ranks, 0)
    for layer in plan.layers:
        for move in layer.post:
            got[move.dst] += 1
    assert request.p2d_flows == tuple(got.values())
    assert min(got.values()) >= 1


def test_all_bytes_are_dealt_out_evenly_and_the_same_pairs_meet_whatever_their_number() -> None:
    for size, p, q in product((0, 1, 5, 7, 640, 1001), (1, 2, 3, 4, 6, 8), (1, 2, 3, 4, 6, 8)):
        pieces = resharded(size, p, q)
        assert tuple((piece.src, piece.dst) for piece in pieces) == pairs(p, q)
        assert all(piece.size >= 0 for piece in pieces)
        assert sum(piece.size for piece in pieces) == size
        for of in ([0] * p, [0] * q):
            for piece in pieces:
                of[piece.src if len(of) == p else piece.dst] += piece.size
            assert all(abs(each - size / len(of)) < 2 for each in of)
        for src in range(p):
            shares = [share_of_sender(src, dst, p, q) for i, dst in pairs(p, q) if i == src]
            assert all(share > 0 for share in shares)
            assert sum(shares) == pytest.approx(1)


def test_one_receiver_gets_the_even_parts_of_all() -> None:
    assert tuple(piece.size for piece in resharded(1001, 6, 1)) == split(1001, 6)


# --- what follows from it --------------------------------------------------------------------------


def test_the_ranks_of_a_worker_share_the_weights_and_each_reads_the_kv_that_it_keeps() -> None:
    """Attention 2 x 4 x 2 x (8 + 4) = 192 weights, MLP 96: 576 B a layer, 1,152 in all. KV of 10 tokens: 4
    heads x 80 B x 2 layers = 640 B. On 8 ranks every head is there twice.
    """
    model = heads(4)
    assert decode_step_s(model, GPU, 10) == pytest.approx((1152 + 640) / 1000)
    assert decode_step_s(model, GPU, 10, tp=4) == pytest.approx((1152 + 640) / 4 / 1000)
    assert decode_step_s(model, GPU, 10, tp=8) == pytest.approx((1152 / 8 + 160) / 1000)
    reader = msgspec.structs.replace(GPU, peak_flops=1e12)
    assert batch_step_s(model, reader, [10], tp=8) == pytest.approx((1152 / 8 + 160) / 1000)


def test_decode_ranks_hold_the_experts_together_and_share_a_workers_tokens() -> None:
    """4 ranks in workers of 2: a rank has half of its worker's tokens."""
    moe = msgspec.structs.replace(heads(2), q_heads=2, experts=4, top_k=2)
    alone = step_traffic(ranks=4, batch=4, context=1, model=moe, gpu=GPU)
    shared = step_traffic(ranks=4, batch=4, context=1, model=moe, gpu=GPU, tp=2)
    assert alone is not None
    assert shared is not None
    assert (alone.size_bytes, shared.size_bytes) == (64, 32)


def test_an_idle_network_takes_the_copies_over_the_link_of_each_rank() -> None:
    """4 heads, TP 4 to TP 8: a prefill NIC sends 2 x 80 B a layer at 100 B/s, a decode NIC takes in 80 B.

    The S3 of layer 1 follows that of layer 0. The last layer's 1.6 s, the decode step and the compute are
    the rest of the TTFT.
    """
    model = heads(4)
    topology, placement = placed(
        units=1, per_unit=4, decode=8, servers=12, tp=4, decode_tp=8, model=model, nic_bps=800
    )
    cluster = IdleCluster(placement=placement, model=model, gpu=GPU, topology=topology)
    plan = plan_of(model, 4, 8)
    # A ring all-reduce of 10 tokens x 8 B = 80 B on 4 ranks: 120 B out of a NIC, twice a layer: 2.4 s.
    layer_s = plan.compute_s / 2 + 2.4
    assert layer_s > 1.6
    expected_s = 2 * layer_s + 1.6 + (1152 / 8 + 160) / 1000
    assert cluster.unloaded_ttft_ns(10, 0) == pytest.approx(expected_s * 1e9)


def test_the_routers_and_the_capacity_see_the_same_bytes() -> None:
    """4 heads x 80 B x 2 layers = 640 B of KV, twice for 8 decode ranks: 320 B leave each of 4 NICs."""
    model = heads(4)
    topology, placement = placed(units=1, per_unit=4, decode=8, servers=12, tp=4, decode_tp=8, model=model)
    a_job = job(topology, placement, model=model)
    traffic = delivery_traffic(a_job, 10, "p0", 0, placement.decode_workers[0])
    assert traffic == {(f"h{i // 2 + 1}", f"h{5 + i}"): 160.0 for i in range(8)}

    # With links so slow that nothing else counts, S2 and S3 of a NIC set the pace: 2 layers x 240 + 320 B.
    slow = star(servers=12, nic_bps=8)
    rate = demand_of(
        [prompt(0, 10)], placement=placement, model=model, gpu=GPU, topology=slow, max_batch_tokens=10
    ).capacity_rps
    assert rate == pytest.approx(1 / 800)


@pytest.mark.parametrize(
    ("decode", "decode_tp", "reason"),
    [
        (3, 2, "3 decode ranks do not divide into workers of 2; decode_tp can be 1$"),
        (3, 3, "the 8 query heads of tiny-dense do not divide by 3"),
    ],
)
def test_workers_that_cannot_be_are_refused(decode: int, decode_tp: int, reason: str) -> None:
    with pytest.raises(PlacementError, match=reason) as caught:
        placed(units=1, per_unit=2, decode=decode, decode_tp=decode_tp, model=heads(8))
    assert caught.value.key == "units.decode_tp"

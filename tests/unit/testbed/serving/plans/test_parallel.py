"""Tensor, expert, sequence and pipeline parallelism together: what each rank computes and sends.

The numbers of the tiny models are in `serving_world`: per token 16 B of KV, 8 B of hidden state,
projections 128 FLOPs, gate 32, MLP or a visit to an expert 192, per key 16 FLOPs of scores.
"""

from collections.abc import Sequence

import msgspec
import pytest
from serving_world import DENSE, GPU, MOE, job, placed, planned, prompt

from testbed.job import Placement
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import LatentAttention, ModelShape
from testbed.serving.batching.forming import token_ns
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.serving.capacity import demand_of
from testbed.serving.plans.stage_work import PLAIN, StepOptions
from testbed.serving.slo import IdleCluster
from testbed.topology import star
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute, LayerPlan

ULYSSES = StepOptions(sequence=CollectiveKind.ALL_TO_ALL)


# --- sequence parallelism --------------------------------------------------------------------------


def test_kv_goes_round_a_ring_while_attention_is_computed_over_it() -> None:
    """10 tokens on 2 parts, 4 of them cached: 3 new ones and 5 x 16 = 80 B of KV each.

    Projections: 3 x 128 = 384 FLOPs. Scores: 16 x (6 x 4 + 21) = 720 FLOPs, a quarter for each part and
    block: 180 FLOPs, 0.36 s. MLP: 3 x 192 = 576 FLOPs.
    """
    _, placement = placed(units=1, sp=2, model=DENSE)
    layer = _plan([_whole(0, 10, cached=1)], placement, DENSE).layers[0]
    assert _flops(layer) == {"attention": (384.0, 384.0), "mlp": (576.0, 576.0)}
    [ring] = _collectives(layer, "ring")
    assert (ring.group, ring.kind) == ("p0.sp0", CollectiveKind.RING_ATTENTION)
    assert ring.sizes == ((80, 80),)
    assert ring.round_seconds == (pytest.approx((0.36, 0.36)), pytest.approx((0.36, 0.36)))
    assert [step.label for step in layer.steps] == ["attention", "ring", "mlp"]


def test_in_round_r_a_part_has_the_block_of_the_one_r_before_it() -> None:
    """7 tokens: 4 and 3 of them, 64 and 48 B. Scores 16 x 28 = 448 FLOPs, by queries and keys: 16, 12,
    12 and 9 of 49 parts of 448 / 500 s.
    """
    _, placement = placed(units=1, sp=2, model=DENSE)
    [ring] = _collectives(_plan([_whole(0, 7)], placement, DENSE).layers[0], "ring")
    assert ring.sizes == ((64, 48),)
    part = 448 / 500 / 49
    assert ring.round_seconds[0] == pytest.approx((16 * part, 12 * part))  # its own block, then that of 1
    assert ring.round_seconds[1] == pytest.approx((9 * part, 12 * part))


def test_ulysses_gives_each_part_all_tokens_of_some_heads_and_takes_the_results_back() -> None:
    """As above, one head to a part. There: 3 queries x 4 B and 5 tokens' KV x 8 B = 52 B to each part.
    Back: 3 x 4 = 12 B from each. Scores: 720 / 2 = 360 FLOPs.
    """
    _, placement = placed(units=1, sp=2, model=DENSE, sequence=CollectiveKind.ALL_TO_ALL)
    layer = _plan([_whole(0, 10, cached=1)], placement, DENSE, ULYSSES).layers[0]
    assert [step.label for step in layer.steps] == ["attention", "heads", "scores", "tokens", "mlp"]
    [there], [back] = _collectives(layer, "heads"), _collectives(layer, "tokens")
    assert there.sizes == ((52, 52), (52, 52))
    assert back.sizes == ((12, 12), (12, 12))
    assert _flops(layer)["scores"] == (360.0, 360.0)


def test_uneven_parts_of_ulysses_send_what_they_have() -> None:
    """7 tokens: 4 x (4 + 8) = 48 and 3 x 12 = 36 B to each; 4 x 4 = 16 and 3 x 4 = 12 B back to each."""
    _, placement = placed(units=1, sp=2, model=DENSE, sequence=CollectiveKind.ALL_TO_ALL)
    layer = _plan([_whole(0, 7)], placement, DENSE, ULYSSES).layers[0]
    assert _collectives(layer, "heads")[0].sizes == ((48, 48), (36, 36))
    assert _collectives(layer, "tokens")[0].sizes == ((16, 12), (16, 12))


def test_ranks_that_share_heads_have_a_ring_each() -> None:
    """8 tokens, 2 parts of 2 ranks: rings of the ranks with the same head, 4 x 16 / 2 = 32 B to a block.

    Each part reduces the vectors of its 4 tokens, 32 B.
    """
    _, placement = placed(units=1, per_unit=4, tp=2, sp=2, model=DENSE)
    layer = _plan([_whole(0, 8)], placement, DENSE).layers[0]
    rings = _collectives(layer, "ring")
    assert [(ring.group, placement.groups[ring.group], ring.sizes) for ring in rings] == [
        ("p0.sp0", (0, 2), ((32, 32),)),
        ("p0.sp1", (1, 3), ((32, 32),)),
    ]
    for label in ("attention-reduce", "mlp-reduce"):
        reduces = _collectives(layer, label)
        assert [(step.group, step.sizes) for step in reduces] == [
            ("p0.tp0", ((32,),)),
            ("p0.tp1", ((32,),)),
        ]


def test_a_ring_of_copied_heads_has_whole_heads() -> None:
    """4 query heads on 4 ranks, 2 KV heads of 8 B a token: a block of 4 tokens is 32 B on each, not 16."""
    model = msgspec.structs.replace(DENSE, q_heads=4)
    _, placement = placed(units=1, per_unit=8, tp=4, sp=2, model=model, servers=9)
    rings = _collectives(_plan([_whole(0, 8)], placement, model).layers[0], "ring")
    assert [ring.sizes for ring in rings] == [((32, 32),)] * 4


def test_ulysses_of_a_latent_sends_it_whole_to_everyone() -> None:
    """A latent of 3 + 2 elements, 10 B a token, and a query of 2 + 2, 8 B: of 4 tokens 4 x 18 = 72 B.
    Results: 4 x 3 elements x 2 B = 24 B.
    """
    latent = LatentAttention(q_rank=0, kv_rank=3, nope_dim=2, rope_dim=2, v_dim=3)
    model = msgspec.structs.replace(DENSE, latent=latent)
    _, placement = placed(units=1, sp=2, model=model, sequence=CollectiveKind.ALL_TO_ALL)
    layer = _plan([_whole(0, 8)], placement, model, ULYSSES).layers[0]
    assert _collectives(layer, "heads")[0].sizes == ((72, 72), (72, 72))
    assert _collectives(layer, "tokens")[0].sizes == ((24, 24), (24, 24))


def test_parts_of_a_sequence_dispatch_their_own_tokens() -> None:
    """7 tokens: 4 x 16 / 2 = 32 and 3 x 16 / 2 = 24 B to each, 7 x 2 x 8 = 112 B in all.

    Experts: 7 x 2 x 192 / 2 = 1344 FLOPs.
    """
    _, placement = placed(units=1, sp=2)
    layer = _plan([_whole(0, 7)], placement, MOE).layers[0]
    [dispatch] = _collectives(layer, "dispatch")
    assert dispatch.sizes == ((32, 32), (24, 24))
    assert _flops(layer)["experts"] == (1344.0, 1344.0)


# --- pipelines -------------------------------------------------------------------------------------


def test_a_stage_takes_over_from_the_one_before() -> None:
    """8 tokens: 8 x 128 + 16 x 36 = 1600 FLOPs of attention; 8 x 8 = 64 B of hidden states to rank 1."""
    _, placement = placed(units=1, pp=2, tp=1, model=DENSE)
    plan = _plan([_whole(0, 8)], placement, DENSE)
    first, second = plan.layers
    assert _flops(first) == {"attention": (1600.0, 0.0), "mlp": (1536.0, 0.0)}
    assert _flops(second) == {"attention": (0.0, 1600.0), "mlp": (0.0, 1536.0)}
    assert [step.label for step in first.steps] == ["attention", "mlp"]
    assert [step.label for step in second.steps] == ["stage", "attention", "mlp"]
    [handed] = _collectives(second, "stage")
    assert (handed.id, handed.group) == ("p0.b7.l1.stage.p0.pp0", "p0.pp0")
    assert handed.sizes == ((0, 64), (0, 0))
    assert plan.compute_s == pytest.approx(2 * (1600 + 1536) / 500)


def test_each_stage_delivers_the_kv_of_its_layers() -> None:
    _, placement = placed(units=1, pp=2, tp=1, model=DENSE)
    plan = _plan([_whole(0, 8)], placement, DENSE)
    assert [[(t.src, t.size_bytes) for t in layer.post] for layer in plan.layers] == [[(0, 128)], [(1, 128)]]
    assert plan.requests[0].p2d_flows == (2,)


def test_only_the_first_layer_of_a_stage_waits_for_hidden_states() -> None:
    deep = msgspec.structs.replace(DENSE, layers=5)
    _, placement = placed(units=1, pp=2, tp=1, model=deep)
    plan = _plan([_whole(0, 8)], placement, deep)
    assert [bool(_collectives(layer, "stage")) for layer in plan.layers] == [False, False, True, False, False]


def test_tensor_parallel_ranks_hand_over_to_their_likes() -> None:
    """2 stages of 2 ranks: each rank has all 8 tokens' hidden states. Stage 1 reduces in its own group."""
    _, placement = placed(units=1, per_unit=4, tp=2, pp=2, model=DENSE)
    layer = _plan([_whole(0, 8)], placement, DENSE).layers[1]
    handed = _collectives(layer, "stage")
    assert [(placement.groups[step.group], step.sizes) for step in handed] == [
        ((0, 2), ((0, 64), (0, 0))),
        ((1, 3), ((0, 64), (0, 0))),
    ]
    assert [step.group for step in _collectives(layer, "attention-reduce")] == ["p0.tp1"]
    assert _flops(layer)["attention"] == (0.0, 0.0, 800.0, 800.0)


def test_experts_of_a_stage_are_in_that_stage() -> None:
    """Replicas of 4 and 6 tokens: 32 and 48 B handed over, and to each of the 2 ranks dispatched."""
    _, placement = placed(units=1, per_unit=4, pp=2)
    layer = _plan([_whole(0, 4), _whole(1, 6, replica=1)], placement, MOE).layers[1]
    assert [step.sizes[0][1] for step in _collectives(layer, "stage")] == [32, 48]
    [dispatch] = _collectives(layer, "dispatch")
    assert (dispatch.group, placement.groups[dispatch.group]) == ("p0.ep1", (2, 3))
    assert dispatch.sizes == ((32, 32), (48, 48))
    assert _flops(layer)["experts"] == (0.0, 0.0, 1920.0, 1920.0)


def test_parts_of_a_sequence_hand_over_part_by_part() -> None:
    """8 tokens on 2 parts in 2 stages: 4 x 8 = 32 B each; the ring of stage 1 has 64 B blocks."""
    _, placement = placed(units=1, per_unit=4, sp=2, pp=2, tp=1, model=DENSE)
    layer = _plan([_whole(0, 8)], placement, DENSE).layers[1]
    assert [(placement.groups[s.group], s.sizes[0][1]) for s in _collectives(layer, "stage")] == [
        ((0, 2), 32),
        ((1, 3), 32),
    ]
    [ring] = _collectives(layer, "ring")
    assert (placement.groups[ring.group], ring.sizes) == ((2, 3), ((64, 64),))


def test_alone_a_request_goes_through_all_stages() -> None:
    """c = (1600 + 1536) / 500 = 6.272 s, 64 B handed over at 100 B/s in 0.64 s, s3 = 1.28 s.

    t_0 = 6.272, t_1 = t_0 + 0.64 + 6.272 = 13.184, S3 at 14.464. Decode: 896 B (`test_slo`), 0.896 s.
    """
    topology, placement = placed(units=1, pp=2, tp=1, model=DENSE)
    cluster = IdleCluster(placement=placement, model=DENSE, gpu=GPU, topology=topology)
    assert cluster.unloaded_ttft_ns(8, 0) == 15_360_000_000


def test_the_slowest_stage_sets_the_pace_of_a_pipeline() -> None:
    """A full batch of 8 tokens: (1024 + 1536) / 500 = 5.12 s a stage, and 0.64 s more in stage 1.

    The capacity counts 16 x 36 / 500 = 1.152 s of scores too: 6.912 s per request.
    """
    topology, placement = placed(units=1, pp=2, tp=1, model=DENSE)
    world = job(topology, placement, model=DENSE, max_batch_tokens=8)
    assert token_ns(world, "p0") == pytest.approx(5.76e9 / 8)
    capacity = demand_of(
        [prompt(0, 8)], placement=placement, model=DENSE, gpu=GPU, topology=topology, max_batch_tokens=8
    ).capacity_rps
    assert capacity == pytest.approx(1 / 6.912)


def test_what_comes_after_a_flow_of_a_pipeline_is_in_all_later_stages() -> None:
    """As above, but 8 new tokens after 4: (8 x 128 + 16 x (8 x 4 + 36) + 1536) / 500 = 7.296 s a layer.

    After S1 of layer 0 that is 7.296 + 0.64 + 7.296 s. A stage gets its S1 from the holder's same stage.
    """
    _, placement = placed(units=2, pp=2, tp=1, model=DENSE)
    item = Assigned(
        request=prompt(0, 12, (1,)),
        replica=0,
        local_blocks=0,
        fetches=(Fetch(unit="p1", replica=0, blocks=1),),
    )
    first, second = _plan([item], placement, DENSE).layers
    assert [(t.src, t.dst, t.size_bytes) for t in (*first.wait, *second.wait)] == [(2, 0, 64), (3, 1, 64)]
    assert first.wait[0].downstream_ns == 15_232_000_000
    assert second.wait[0].downstream_ns == 7_936_000_000
    assert _collectives(second, "stage")[0].downstream_ns == 7_296_000_000
    # S3: 12 x 16 B at 100 B/s, 1.92 s; decode 640 + 12 x 32 B, 1.024 s.
    assert [layer.post[0].downstream_ns for layer in (first, second)] == [2_944_000_000, 1_024_000_000]


# --- KV --------------------------------------------------------------------------------------------


def test_reused_and_delivered_kv_goes_shard_by_shard() -> None:
    """A block of 4 tokens on 2 parts: 32 B from each to the same part. A prompt of 9: 5 x 16, 4 x 16 B."""
    _, placement = placed(sp=2, model=DENSE)
    item = Assigned(
        request=prompt(0, 9, (1, 2)),
        replica=0,
        local_blocks=0,
        fetches=(Fetch(unit="p1", replica=0, blocks=1),),
    )
    plan = _plan([item], placement, DENSE)
    assert [(t.src, t.dst, t.size_bytes) for t in plan.layers[1].wait] == [(2, 0, 32), (3, 1, 32)]
    assert [(t.src, t.size_bytes) for t in plan.layers[1].post] == [(0, 80), (1, 64)]
    assert sum(plan.requests[0].p2d_flows) == sum(len(layer.post) for layer in plan.layers) == 4


# --- mixed layers, rooflines -----------------------------------------------------------------------

MIXED = msgspec.structs.replace(MOE, dense_layers=(0,), dense_ffn=16, shared_ffn=4)
"""Layer 0 has an MLP of 3 x 4 x 16 weights, 384 FLOPs/token; layer 1 a shared expert of 96 FLOPs/token."""


def test_a_dense_layer_has_no_gate_and_no_all_to_all() -> None:
    """4 tokens: 4 x 128 + 16 x 10 = 672 FLOPs of attention, 4 x 384 of MLP; 6: 1104 and 2304."""
    _, placement = placed(units=1)
    layer = _plan([_whole(0, 4), _whole(1, 6, replica=1)], placement, MIXED).layers[0]
    assert [step.label for step in layer.steps] == ["attention", "mlp"]
    assert _flops(layer) == {"attention": (672.0, 1104.0), "mlp": (1536.0, 2304.0)}


def test_a_shared_expert_is_visited_by_every_token_where_it_is() -> None:
    """10 x 2 x 192 / 2 = 1920 FLOPs of routed experts on each rank, 4 x 96 and 6 x 96 of the shared one."""
    _, placement = placed(units=1)
    plan = _plan([_whole(0, 4), _whole(1, 6, replica=1)], placement, MIXED)
    assert _flops(plan.layers[1])["experts"] == (2304.0, 2496.0)
    # Attention of layer 1 has the gate: 6 x 160 + 16 x 21 = 1296.
    assert plan.compute_s == pytest.approx((1104 + 2304 + 1296 + 2496) / 500)


def test_a_dense_layer_of_a_mixture_is_reduced_twice_with_tensor_parallelism() -> None:
    _, placement = placed(units=1, tp=2)
    layers = _plan([_whole(0, 4)], placement, MIXED).layers
    assert [step.label for step in layers[0].steps] == [
        "attention", "attention-reduce", "mlp", "mlp-reduce",
    ]  # fmt: skip
    assert [step.label for step in layers[1].steps] == [
        "attention", "attention-reduce", "dispatch", "experts", "combine",
    ]  # fmt: skip


def test_the_unloaded_ttft_has_both_kinds_of_layers() -> None:
    """8 tokens on rank 0 of 2. Layer 0: (8 x 128 + 16 x 36 + 8 x 384) / 500 = 9.344 s. Layer 1: attention
    3.712 s, dispatch and combine 64 B, 0.64 s each, experts (1536 + 8 x 96) / 500 = 4.608 s: 9.6 s.

    S3 of layer 1: 1.28 s. Decode: layer 0 has 64 + 192 weights, layer 1 64 + 16 + 2 x 96 + 48 = 320:
    1152 B, and 256 B of KV: 1.408 s.
    """
    topology, placement = placed()
    cluster = IdleCluster(placement=placement, model=MIXED, gpu=GPU, topology=topology)
    assert cluster.unloaded_ttft_ns(8, 0) == 9_344_000_000 + 9_600_000_000 + 1_280_000_000 + 1_408_000_000


SLOW_MEMORY = msgspec.structs.replace(GPU, memory_bytes_per_s=100.0)


def test_a_small_batch_takes_as_long_as_reading_the_weights() -> None:
    """One token on rank 0, 4 cached before it. Attention reads 128 B of projections, 32 B of the gate and
    4 x 16 B of KV: 2.24 s, against (160 + 16 x 5) / 500 = 0.48 s. On average, each rank has one visit to
    its two experts: 192 B, 1.92 s. Rank 1 has no attention to do.
    """
    _, placement = placed(units=1)
    layer = _plan([_whole(0, 5, cached=1)], placement, MOE, gpu=SLOW_MEMORY).layers[0]
    assert _seconds(layer) == {
        "attention": pytest.approx((2.24, 0.0)),
        "experts": pytest.approx((1.92, 1.92)),
    }


def test_a_large_batch_takes_as_long_as_computing() -> None:
    """40 tokens: 40 x 2 x 192 / 2 = 7680 FLOPs, 15.36 s, where reading both experts takes 3.84 s."""
    _, placement = placed(units=1)
    layer = _plan([_whole(0, 40)], placement, MOE, gpu=SLOW_MEMORY).layers[0]
    assert _seconds(layer)["experts"] == pytest.approx((15.36, 15.36))


def test_weights_are_shared_by_tensor_parallel_ranks() -> None:
    """One token: 128 B of projections and 192 B of MLP, half on each rank: 0.64 and 0.96 s."""
    _, placement = placed(units=1, model=DENSE)
    layer = _plan([_whole(0, 1)], placement, DENSE, gpu=SLOW_MEMORY).layers[0]
    assert _seconds(layer) == {
        "attention": pytest.approx((0.64, 0.64)),
        "mlp": pytest.approx((0.96, 0.96)),
    }


def test_a_step_is_launched_only_where_there_is_work() -> None:
    """4 tokens on replica 0: (4 x 128 + 16 x 10) / 500 = 1.344 s, 4 x 192 / 500 = 1.536 s, and 1 s each."""
    launched = msgspec.structs.replace(GPU, launch_s=1.0)
    _, placement = placed(units=1, tp=1, model=DENSE)
    layer = _plan([_whole(0, 4)], placement, DENSE, gpu=launched).layers[0]
    assert _seconds(layer) == {
        "attention": pytest.approx((2.344, 0.0)),
        "mlp": pytest.approx((2.536, 0.0)),
    }


# --- helpers ---------------------------------------------------------------------------------------


def _whole(number: int, tokens: int, *, replica: int = 0, cached: int = 0) -> Assigned:
    """A request whose first `cached` blocks of 4 tokens its replica has."""
    blocks = tuple(range(100 * number, 100 * number + cached))
    return Assigned(request=prompt(number, tokens, blocks), replica=replica, local_blocks=cached, fetches=())


def _plan(
    items: Sequence[Assigned],
    placement: Placement,
    model: ModelShape,
    options: StepOptions = PLAIN,
    *,
    gpu: GpuSpeed = GPU,
) -> BatchPlan:
    servers = {spec.server for spec in placement.ranks}
    return planned(
        items,
        star(servers=max(5, len(servers)), nic_bps=800),
        placement,
        model=model,
        gpu=gpu,
        batch="p0.b7",
        options=options,
    )


def _collectives(layer: LayerPlan, label: str) -> list[Collective]:
    return [step for step in layer.steps if isinstance(step, Collective) and step.label == label]


def _flops(layer: LayerPlan) -> dict[str, tuple[float, ...]]:
    return {step.label: step.flops for step in layer.steps if isinstance(step, Compute)}


def _seconds(layer: LayerPlan) -> dict[str, tuple[float, ...]]:
    return {step.label: step.seconds for step in layer.steps if isinstance(step, Compute)}

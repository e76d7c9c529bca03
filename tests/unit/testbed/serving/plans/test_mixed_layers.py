"""Plans of models whose layers differ: each layer's steps, S1 and S3 follow from its own shape.

The models are made of `DENSE` of `serving_world`: per token and layer 16 B of KV, 128 FLOPs of projections,
16 FLOPs per key, 192 FLOPs of MLP, 8 B of hidden state.
"""

import msgspec
import pytest
from serving_world import DENSE, GPU, job, placed, planned, prompt

from controller.flow import Stage
from testbed.job import Job, Placement
from testbed.models.shape import Attention, ModelShape, OtherLayers, Recurrent
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.serving.capacity import demand_of
from testbed.serving.plans.build import decode_step_s
from testbed.serving.routing.estimates import delivery_traffic, fetch_traffic
from testbed.serving.slo import IdleCluster
from testbed.topology import star
from testbed.unit_shape import PlacementError
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute, LayerPlan

# Layer 1: 4 query heads and one KV head of 4 elements, so KV of 16 B in one head; window of 2.
# Projections: Q 64, K 16, V 16 and output 64 weights, so 320 FLOPs/token.
# Scores: 2 x 4 x (4 + 4) = 64 FLOPs per key.
WINDOWED = Attention(q_heads=4, kv_heads=1, head_dim=4, v_dim=4, window=2)
WIDE = Attention(q_heads=4, kv_heads=2, head_dim=4, v_dim=2)  # KV: 2 x (4 + 2) x 2 B = 24 B
SHARING = Attention(q_heads=2, kv_heads=2, head_dim=2, v_dim=2, shares_kv=True)
STATE = Recurrent(kind="linear attention", heads=2, weights=50, flops=20, state_bytes=40)


def mixed(mixer: Attention | Recurrent, *, layers: int = 2, others: tuple[int, ...] = (1,)) -> ModelShape:
    other = OtherLayers(layers=others, mixer=mixer)
    return msgspec.structs.replace(DENSE, layers=layers, other_layers=(other,))


def plan_of(
    model: ModelShape, *assigned: Assigned, per_unit: int = 1, tp: int = 1, sp: int = 1, pp: int = 1
) -> BatchPlan:
    _, placement = placed(per_unit=per_unit, tp=tp, sp=sp, pp=pp, model=model, servers=9)
    return planned(assigned, star(servers=9, nic_bps=800), placement, model=model)


def whole(tokens: int, *, cached: int = 0, fetches: tuple[Fetch, ...] = ()) -> Assigned:
    return Assigned(request=prompt(0, tokens), replica=0, local_blocks=cached, fetches=fetches)


def fetch(*, blocks: int = 1, ends_prefix: bool = True) -> tuple[Fetch, ...]:
    return (Fetch(unit="p1", replica=0, blocks=blocks, ends_prefix=ends_prefix),)


def flops(layer: LayerPlan, label: str) -> tuple[float, ...]:
    [step] = [step for step in layer.steps if isinstance(step, Compute) and step.label == label]
    return step.flops


def posted(plan: BatchPlan) -> list[list[int]]:
    return [[transfer.size_bytes for transfer in layer.post] for layer in plan.layers]


def fetched(plan: BatchPlan) -> list[list[int]]:
    return [[transfer.size_bytes for transfer in layer.wait] for layer in plan.layers]


# --- heads and windows ----------------------------------------------------------------------------


def test_a_layer_computes_and_sends_by_its_own_heads() -> None:
    """10 tokens. Layer 0: 10 x 128 + 16 x 55 = 2160 FLOPs. Layer 1: 10 x 320 + 64 x (1 + 9 x 2) = 4416."""
    plan = plan_of(mixed(WINDOWED), whole(10))
    assert [flops(layer, "attention") for layer in plan.layers] == [(2160.0,), (4416.0,)]
    assert [flops(layer, "mlp") for layer in plan.layers] == [(1920.0,), (1920.0,)]
    assert posted(plan) == [[160], [160]]


def test_s1_and_s3_have_the_bytes_of_their_layer() -> None:
    """8 tokens, 4 of them fetched: 16 B per token in layer 0, 24 B in layer 1."""
    plan = plan_of(mixed(WIDE), whole(8, fetches=fetch()))
    assert fetched(plan) == [[64], [96]]
    assert posted(plan) == [[128], [192]]


def test_a_layer_reads_only_the_keys_in_its_window() -> None:
    """One token after 4 cached ones at 1000 B/s: 2 x 64 + 64 B, and 2 x 160 + 2 x 16 B with a window of 2.

    A GPU that computes without end takes only the time to read.
    """
    quick = msgspec.structs.replace(GPU, peak_flops=1e12)
    model = mixed(WINDOWED)
    _, placement = placed(per_unit=1, model=model)
    item = whole(5, cached=1)
    plan = planned([item], star(servers=5, nic_bps=800), placement, model=model, gpu=quick)
    attention = [layer.steps[0] for layer in plan.layers]
    assert [step.seconds for step in attention if isinstance(step, Compute)] == [(0.192,), (0.352,)]


def test_tensor_parallel_ranks_have_their_share_of_each_layer() -> None:
    """The all-reduces are those of the hidden state, 10 x 8 B, whatever heads a layer has."""
    plan = plan_of(mixed(WINDOWED), whole(10), per_unit=2, tp=2)
    assert [flops(layer, "attention") for layer in plan.layers] == [(1080.0,) * 2, (2208.0,) * 2]
    assert posted(plan) == [[80, 80], [80, 80]]
    reduces = [step.sizes for layer in plan.layers for step in layer.steps if isinstance(step, Collective)]
    assert reduces == [((80,),)] * 4


def test_what_goes_round_a_ring_is_the_kv_of_the_layer() -> None:
    plan = plan_of(mixed(WIDE), whole(8), per_unit=2, sp=2)
    rings = [step.sizes for layer in plan.layers for step in layer.steps if isinstance(step, Collective)]
    assert rings == [((64, 64),), ((96, 96),)]


# --- sharing --------------------------------------------------------------------------------------


def test_a_layer_that_uses_the_kv_of_another_one_sends_none() -> None:
    """It lacks the projections of K and V: 10 x 64 + 16 x 55 FLOPs. A request has one S3 flow, not two."""
    plan = plan_of(mixed(SHARING), whole(10, fetches=()))
    assert [flops(layer, "attention") for layer in plan.layers] == [(2160.0,), (1520.0,)]
    assert posted(plan) == [[160], []]
    assert plan.requests[0].p2d_flows == (1,)
    assert fetched(plan_of(mixed(SHARING), whole(8, fetches=fetch()))) == [[64], []]


def test_shared_kv_still_goes_round_a_ring() -> None:
    plan = plan_of(mixed(SHARING), whole(8), per_unit=2, sp=2)
    rings = [step.sizes for layer in plan.layers for step in layer.steps if isinstance(step, Collective)]
    assert rings == [((64, 64),)] * 2
    assert posted(plan) == [[64, 64], []]


def test_kv_cannot_be_shared_with_another_pipeline_stage() -> None:
    with pytest.raises(PlacementError, match="layer 1 of tiny-dense uses the KV of layer 0") as refused:
        placed(per_unit=2, pp=2, tp=1, model=mixed(SHARING))
    assert refused.value.key == "units.pp"
    placed(per_unit=2, pp=2, tp=1, model=mixed(SHARING, layers=4, others=(1, 3)))


# --- states ---------------------------------------------------------------------------------------


def test_a_state_is_sent_once_whatever_the_prompt() -> None:
    """40 B in S3, and in S1 from the holder of the last reused block. 10 tokens x (2 x 50 + 20) FLOPs."""
    plan = plan_of(mixed(STATE), whole(10))
    assert [flops(layer, "attention") for layer in plan.layers] == [(2160.0,), (1200.0,)]
    assert posted(plan) == [[160], [40]]
    assert posted(plan_of(mixed(STATE), whole(20))) == [[320], [40]]
    assert fetched(plan_of(mixed(STATE), whole(8, fetches=fetch()))) == [[64], [40]]
    assert fetched(plan_of(mixed(STATE), whole(8, fetches=fetch(ends_prefix=False)))) == [[64], []]


def test_ranks_divide_a_state() -> None:
    plan = plan_of(mixed(STATE), whole(10, fetches=()), per_unit=2, tp=2)
    assert posted(plan) == [[80, 80], [20, 20]]
    assert plan.requests[0].p2d_flows == (4,)


def test_a_split_prompt_delivers_its_state_with_its_last_part() -> None:
    """6 of 10 tokens, then 4: the decode worker waits for KV of both parts and one state."""
    first = Assigned(request=prompt(0, 10), replica=0, local_blocks=0, fetches=(), part_tokens=6)
    last = Assigned(
        request=prompt(0, 10), replica=0, local_blocks=0, fetches=(), earlier_parts=1, earlier_tokens=6
    )
    assert posted(plan_of(mixed(STATE), first)) == [[96], []]
    plan = plan_of(mixed(STATE), last)
    assert posted(plan) == [[64], [40]]
    assert plan.requests[0].p2d_flows == (3,)


def test_parts_of_a_sequence_are_not_modelled_for_states() -> None:
    with pytest.raises(PlacementError, match="not modelled for the layers with linear attention") as refused:
        placed(per_unit=2, sp=2, tp=1, model=mixed(STATE))
    assert refused.value.key == "units.sp"


def test_what_comes_after_a_flow_is_that_of_the_later_layers() -> None:
    """S3 at 100 B/s: 1.6 s in layer 0, 0.4 s in layer 1. Decode: KV of 10 tokens, 160 B, a state of 40 B, and
    weights of 2 x (64 + 96 + 50 + 96) B, at 1000 B/s: 0.812 s."""
    plan = plan_of(mixed(STATE), whole(10))
    assert plan.requests[0].decode_step_s == pytest.approx(0.812)
    after = [layer.post[0].downstream_ns for layer in plan.layers]
    assert after == [1_212_000_000, 812_000_000]


def test_the_unloaded_ttft_follows_from_each_layer() -> None:
    """8 tokens, 4 of them reused, one rank. Layer 0: (4 x 128 + 16 x 26 + 4 x 192) / 500 = 3.392 s, layer 1:
    (4 x 120 + 4 x 192) / 500 = 2.496 s. S1: 0.64 s and 0.4 s. S3: 1.28 s and 0.4 s.

    t_0 = 0.64 + 3.392 = 4.032, t_1 = 6.528; S3 has arrived at 5.312 and 6.928. Decode: 612 + 128 + 40 B.
    """
    model = mixed(STATE)
    topology, placement = placed(per_unit=1, servers=3, model=model)
    cluster = IdleCluster(placement=placement, model=model, gpu=GPU, topology=topology)
    assert cluster.unloaded_ttft_ns(8, 4) == 7_708_000_000


def test_a_decode_step_reads_what_each_layer_needs() -> None:
    """100 tokens: 1600 B in layer 0, a window of 2 in layer 1, 32 B. Weights: 2 x (64 + 160 + 192) B."""
    assert decode_step_s(mixed(WINDOWED), GPU, 100) == pytest.approx(0.832 + 1.632)


def test_routers_count_states() -> None:
    """8 tokens x 16 B of KV and a state of 40 B; of a prefix of 4 tokens, 64 B and a state."""
    a_job = _job(mixed(STATE))
    assert delivery_traffic(a_job, 8, "p0", 0, a_job.placement.decode_workers[0]) == {("h1", "h3"): 168.0}
    assert fetch_traffic(a_job, whole(8, fetches=fetch()), "p0") == {("h2", "h1"): 104.0}


def test_the_capacity_counts_states() -> None:
    """A network of 1 B/s and requests of one token: S3 of 16 + 40 B from two units to one decode worker."""
    model = mixed(STATE)
    topology, placement = placed(per_unit=1, servers=3, model=model, nic_bps=8)
    rate = demand_of(
        [prompt(0, 1)], placement=placement, model=model, gpu=GPU, topology=topology, max_batch_tokens=8
    ).capacity_rps
    assert rate == pytest.approx(1 / 56)


# --- layers without a feed-forward ----------------------------------------------------------------


def test_a_layer_without_a_feed_forward_ends_with_its_attention() -> None:
    """Both have 10 x 8 B to reduce after attention; only layer 0 has an MLP, and reduces again."""
    model = msgspec.structs.replace(DENSE, bare_layers=(1,))
    first, second = plan_of(model, whole(10), per_unit=2, tp=2).layers
    assert [step.label for step in first.steps] == ["attention", "attention-reduce", "mlp", "mlp-reduce"]
    assert [step.label for step in second.steps] == ["attention", "attention-reduce"]
    # A decode step reads no weights of an MLP there: 2 x (64 + 64 + 96) B and 10 x 32 B of KV.
    assert decode_step_s(model, GPU, 10) == pytest.approx(0.448 + 0.32)


# --- which tp fits --------------------------------------------------------------------------------


def test_a_refused_tp_says_which_fit() -> None:
    """4 and 2 query heads, one and two KV heads: 2 divides all of these, and 4 does not."""
    with pytest.raises(PlacementError, match=r"do not divide by 4; tp can be 1, 2$") as refused:
        _placed(mixed(WINDOWED), tp=4, per_unit=4)
    assert refused.value.key == "units.tp"
    wide = msgspec.structs.replace(mixed(STATE), q_heads=4, kv_heads=4)
    with pytest.raises(PlacementError, match="the 2 heads of linear attention of tiny-dense do not divide"):
        _placed(wide, tp=4, per_unit=4)


def test_ulysses_needs_heads_for_all_parts_in_every_layer() -> None:
    wide = msgspec.structs.replace(DENSE, q_heads=4, kv_heads=4)
    narrow = OtherLayers(layers=(1,), mixer=msgspec.structs.replace(SHARING, shares_kv=False))
    model = msgspec.structs.replace(wide, other_layers=(narrow,))
    with pytest.raises(
        PlacementError, match=r"2 query heads of tiny-dense do not divide by 4 parts x 1; sp can be 1, 2$"
    ):
        placed(per_unit=4, sp=4, tp=1, servers=9, model=model, sequence=CollectiveKind.ALL_TO_ALL)


def test_every_s3_flow_that_is_posted_is_waited_for() -> None:
    """Whatever a layer has: KV, the KV of another one, or a state."""
    others = (OtherLayers(layers=(1, 4), mixer=SHARING), OtherLayers(layers=(2, 5), mixer=STATE))
    model = msgspec.structs.replace(DENSE, layers=6, other_layers=others)
    plan = plan_of(model, whole(10), per_unit=2, tp=2)
    assert [len(sizes) for sizes in posted(plan)] == [2, 0, 2, 2, 0, 2]
    assert plan.requests[0].p2d_flows == (8,)
    assert {t.stage for layer in plan.layers for t in layer.post} == {Stage.P2D}


def _placed(model: ModelShape, *, tp: int, per_unit: int) -> Placement:
    return placed(tp=tp, per_unit=per_unit, servers=9, model=model)[1]


def _job(model: ModelShape) -> Job:
    topology, placement = placed(per_unit=1, servers=3, model=model)
    return job(topology, placement, model=model)

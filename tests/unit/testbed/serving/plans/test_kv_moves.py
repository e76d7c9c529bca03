"""KV and states between ranks that divide heads differently, in layers that have different heads.

The dense model of `serving_world` with 4 heads: layer 0 has 4 KV heads of 8 B a token. In `NARROW`, layer 1
has one KV head of 8 B. In `STATE`, it has a state of 40 B, whose 4 heads the ranks divide.
"""

import msgspec
import pytest
from serving_world import DENSE, GPU, job, planned, prompt

from testbed.job import Placement, UnitShape
from testbed.models.shape import Attention, LatentAttention, Mixer, ModelShape, OtherLayers, Recurrent
from testbed.placement import Layout, place
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.serving.capacity import demand_of
from testbed.serving.decoding import batch_step_s
from testbed.serving.plans.build import decode_step_s
from testbed.serving.plans.kv_moves import fetched
from testbed.serving.routing.estimates import delivery_traffic, fetch_traffic
from testbed.serving.slo import IdleCluster
from testbed.topology import Topology, star
from testbed.unit_shape import PlacementError, Pool
from workers.plan import BatchPlan


def two_layers(mixer: Mixer) -> ModelShape:
    others = (OtherLayers(layers=(1,), mixer=mixer),)
    return msgspec.structs.replace(DENSE, q_heads=4, kv_heads=4, other_layers=others)


NARROW = two_layers(Attention(q_heads=4, kv_heads=1, head_dim=2, v_dim=2))
STATE = two_layers(Recurrent(kind="linear attention", heads=4, weights=80, flops=0, state_bytes=40))


def placed(
    model: ModelShape, *, tp: int, decode_tp: int = 1, more: tuple[Pool, ...] = (), nic_bps: int = 800
) -> tuple[Topology, Placement]:
    topology = star(servers=20, nic_bps=nic_bps)
    placement = place(
        topology,
        prefill_units=1,
        ranks_per_unit=tp,
        decode_ranks=decode_tp,
        ranks_per_server=None,
        tp=tp,
        ep=None,
        layout=Layout.SPREAD,
        model=model,
        decode_tp=decode_tp,
        more=more,
    )
    return topology, placement


def item_of(tokens: int, fetches: tuple[Fetch, ...] = ()) -> Assigned:
    return Assigned(request=prompt(0, tokens), replica=0, local_blocks=0, fetches=fetches)


def plan_of(topology: Topology, placement: Placement, model: ModelShape, item: Assigned) -> BatchPlan:
    return planned([item], topology, placement, model=model)


def test_kv_is_shared_by_part_and_head() -> None:
    """7 tokens: 4 x 16 = 64 B on part 0, 3 x 16 = 48 B on part 1, half of it on each of two ranks."""
    shape = UnitShape(tp=2, sp=2)
    pieces = fetched(7, shape, shape, DENSE, DENSE.attention)
    assert pieces == ((0, 0, 32), (1, 1, 32), (2, 2, 24), (3, 3, 24))


def test_the_shares_of_a_latent_are_as_even_as_whole_bytes() -> None:
    """7 tokens x 10 B = 70 B on 4 ranks."""
    latent = LatentAttention(q_rank=0, kv_rank=3, nope_dim=2, rope_dim=2, v_dim=3)
    model = msgspec.structs.replace(DENSE, q_heads=4, latent=latent)
    shape = UnitShape(tp=4)
    pieces = fetched(7, shape, shape, model, model.attention)
    assert [piece.size for piece in pieces] == [18, 18, 17, 17]


# --- to a decode worker with a tp of its own -------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "tp", "decode_tp", "first", "second"),
    [
        # 4 heads x 80 B are divided. The single head of layer 1 is wanted whole by each decode rank.
        (NARROW, 2, 2, {(0, 0): 160, (1, 1): 160}, {(0, 0): 80, (1, 1): 80}),
        (NARROW, 2, 1, {(0, 0): 160, (1, 0): 160}, {(0, 0): 40, (1, 0): 40}),
        (NARROW, 1, 4, {(0, i): 80 for i in range(4)}, {(0, i): 80 for i in range(4)}),
        # Nobody wants a copy of a state.
        (STATE, 2, 2, {(0, 0): 160, (1, 1): 160}, {(0, 0): 20, (1, 1): 20}),
        (STATE, 4, 2, {(i, i // 2): 80 for i in range(4)}, {(i, i // 2): 10 for i in range(4)}),
        (STATE, 1, 4, {(0, i): 80 for i in range(4)}, {(0, i): 10 for i in range(4)}),
    ],
)
def test_the_heads_of_each_layer_say_what_a_decode_rank_gets(
    model: ModelShape,
    tp: int,
    decode_tp: int,
    first: dict[tuple[int, int], int],
    second: dict[tuple[int, int], int],
) -> None:
    topology, placement = placed(model, tp=tp, decode_tp=decode_tp)
    plan = plan_of(topology, placement, model, item_of(10))
    sent = [{(move.src, move.dst - tp): move.size_bytes for move in layer.post} for layer in plan.layers]
    assert sent == [first, second]
    (request,) = plan.requests
    assert request.p2d_flows == tuple(
        sum(dst == rank for moves in sent for _, dst in moves) for rank in range(decode_tp)
    )
    # Routers and the capacity count the same bytes.
    size = sum(sum(moves.values()) for moves in sent)
    a_job = job(topology, placement, model=model)
    assert sum(delivery_traffic(a_job, 10, "p0", 0, placement.decode).values()) == pytest.approx(size)


def test_a_decode_rank_reads_the_copies_that_it_keeps_in_each_layer() -> None:
    """Weights: attention 128 and 80, MLP 96 each, so 800 B. KV of 10 tokens: 320 B, and 80 B on each rank.
    The state is divided: 40 B in all."""
    reader = msgspec.structs.replace(GPU, peak_flops=1e12)
    for model, read in ((NARROW, 800 + 320 + 2 * 80), (STATE, 800 + 320 + 40)):
        assert decode_step_s(model, GPU, 10, 2) == pytest.approx(read / 2 / 1000)
        assert batch_step_s(model, reader, [10], 2) == pytest.approx(read / 2 / 1000)


def test_the_capacity_counts_the_copies_of_each_layer() -> None:
    """One rank sends 10 x 4 x 8 B and four copies of 10 x 8 B over a NIC of 1 B/s.
    With a state, these are 320 + 40 B."""
    for model, size in ((NARROW, 640), (STATE, 360)):
        topology, placement = placed(model, tp=1, decode_tp=4, nic_bps=8)
        demand = demand_of(
            [prompt(0, 10)], placement=placement, model=model, gpu=GPU, topology=topology, max_batch_tokens=10
        )
        assert demand.port_s == pytest.approx(size)


def test_a_refused_decode_tp_says_which_fit() -> None:
    """The 4 heads do not divide by 3; of 6 ranks, 1 and 2 do."""
    with pytest.raises(PlacementError, match=r"query heads .* do not divide by 3; decode_tp can be 1, 2$"):
        place(
            star(servers=20, nic_bps=800),
            prefill_units=1,
            ranks_per_unit=1,
            decode_ranks=6,
            ranks_per_server=None,
            tp=1,
            ep=None,
            layout=Layout.SPREAD,
            model=NARROW,
            decode_tp=3,
        )


# --- between units of other sizes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "second"),
    [
        # 8 tokens, 64 B of the single head: each of 4 ranks sends a quarter.
        (NARROW, {(2 + i, i // 2): 16 for i in range(4)}),
        (STATE, {(2 + i, i // 2): 10 for i in range(4)}),
    ],
)
def test_units_of_other_sizes_send_by_the_heads_of_each_layer(
    model: ModelShape, second: dict[tuple[int, int], int]
) -> None:
    topology, placement = placed(model, tp=2, more=(Pool(units=1, ranks=4, tp=4),))
    item = item_of(12, (Fetch(unit="p1", replica=0, blocks=2, ends_prefix=True),))
    plan = plan_of(topology, placement, model, item)
    come = [{(move.src, move.dst): move.size_bytes for move in layer.wait} for layer in plan.layers]
    assert come == [{(2 + i, i // 2): 64 for i in range(4)}, second]
    size = sum(sum(moves.values()) for moves in come)
    assert sum(fetch_traffic(job(topology, placement, model=model), item, "p0").values()) == size


def test_the_unloaded_ttft_counts_s1_from_the_other_unit_layer_by_layer() -> None:
    """8 of 9 tokens come from two ranks to one NIC of 100 B/s: 2.56 s in layer 0, 0.4 s in layer 1.

    Layer 0: 256 + 16 x 2 x 9 + 192 FLOPs, 1.472 s; layer 1: 160 + 192, 0.704 s, at 500 FLOP/s. S3: 2.88 s
    and 0.4 s, from when layers 0 and 1 have ended, at 4.032 s and 4.736 s. Decode: 800 + 288 + 40 B at
    1000 B/s.
    """
    topology, placement = placed(STATE, tp=1, more=(Pool(units=1, ranks=2, tp=2),))
    cluster = IdleCluster(placement=placement, model=STATE, gpu=GPU, topology=topology)
    on_one = 4.032 + 2.88 + 0.4 + 1.128
    assert cluster._homes[0].ttft_ns(9, 8) == pytest.approx(on_one * 1e9)


def test_another_unit_must_hold_the_kv_that_its_layers_share() -> None:
    shares = two_layers(Attention(q_heads=4, kv_heads=4, head_dim=2, v_dim=2, shares_kv=True))
    with pytest.raises(PlacementError, match="in another stage") as refused:
        placed(shares, tp=1, more=(Pool(units=1, ranks=2, tp=1, pp=2, section="units.more[0]"),))
    assert refused.value.key == "units.more[0].pp"


def test_another_unit_has_no_parts_of_a_sequence_for_a_state() -> None:
    with pytest.raises(PlacementError, match="parts of a sequence are not modelled") as refused:
        placed(STATE, tp=1, more=(Pool(units=1, ranks=2, tp=1, sp=2, section="units.more[0]"),))
    assert refused.value.key == "units.more[0].sp"

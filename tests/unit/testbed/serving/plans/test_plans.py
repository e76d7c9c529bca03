"""Batch plans: the steps of a layer and the transfers around it, against the tiny world's numbers."""

from itertools import pairwise

import pytest
from serving_world import DENSE, MOE, placed, planned, prompt

from controller.flow import Stage
from testbed.job import Placement
from testbed.models.shape import ModelShape
from testbed.serving.cache.assignment import Assigned, Fetch
from testbed.topology import star
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute, Fetched


def test_a_moe_layer_is_attention_dispatch_experts_combine() -> None:
    """Replica 0 has 4 new tokens after 4 cached ones, replica 1 has 6 and no prefix.

    Attention: 4 x (128 + 32) + 16 x (4 x 4 + 10) = 1056 and 6 x 160 + 16 x 21 = 1296 FLOPs.
    Dispatch: 4 x 16 / 2 = 32 and 6 x 16 / 2 = 48 B to each of the two ranks.
    Experts: 10 tokens x 2 visits x 192 / 2 ranks = 1920 FLOPs on both.
    """
    attention, dispatch, experts, combine = _moe_plan().layers[1].steps
    assert isinstance(attention, Compute)
    assert attention.flops == (1056.0, 1296.0)
    assert attention.seconds == pytest.approx((2.112, 2.592))
    assert isinstance(dispatch, Collective)
    assert (dispatch.id, dispatch.group) == ("p0.b7.l1.dispatch.p0.ep0", "p0.ep0")
    assert dispatch.kind is CollectiveKind.ALL_TO_ALL
    assert dispatch.sizes == ((32, 32), (48, 48))
    assert isinstance(experts, Compute)
    assert experts.flops == (1920.0, 1920.0)
    assert isinstance(combine, Collective)
    assert combine.sizes == ((32, 48), (32, 48))


def test_compute_s_is_the_slowest_rank_of_each_step_in_all_layers() -> None:
    """2 layers x (1296 + 1920) FLOPs / 500 FLOP/s = 12.864 s."""
    assert _moe_plan().compute_s == pytest.approx(12.864)


def test_a_dense_layer_is_two_sharded_computes_each_followed_by_an_all_reduce() -> None:
    """10 tokens on a replica of two ranks. Attention: 10 x 128 + 16 x 55 = 2160, 1080 per rank.

    MLP: 10 x 192 / 2 = 960 per rank. Both all-reduces: 10 tokens x 8 B.
    """
    _, placement = placed(model=DENSE)
    attention, first, mlp, second = _plan([_whole(0, 10)], placement, DENSE).layers[0].steps
    assert isinstance(attention, Compute)
    assert attention.flops == (1080.0, 1080.0)
    assert isinstance(mlp, Compute)
    assert mlp.flops == (960.0, 960.0)
    assert isinstance(first, Collective)
    assert isinstance(second, Collective)
    assert first.kind is second.kind is CollectiveKind.ALL_REDUCE
    assert first.sizes == second.sizes == ((80,),)
    assert first.group == second.group == "p0.tp0"
    assert first.id != second.id


def test_each_tensor_parallel_rank_dispatches_its_share_of_the_tokens() -> None:
    """Two replicas of two ranks, one expert group of four; replica 0 has 8 tokens, replica 1 none.

    Each rank of replica 0 dispatches 4 tokens x 16 B over 4 ranks = 16 B to each. Only replica 0
    has something to all-reduce. Experts: 8 x 2 x 192 / 4 = 768 FLOPs on every rank.
    """
    _, placement = placed(per_unit=4, tp=2, servers=9)
    steps = _plan([_whole(0, 8)], placement, MOE).layers[0].steps
    labels = [step.label for step in steps]
    assert labels == ["attention", "attention-reduce", "dispatch", "experts", "combine"]
    assert isinstance(steps[1], Collective)
    assert steps[1].group == "p0.tp0"
    assert isinstance(steps[2], Collective)
    assert steps[2].sizes == ((16,) * 4, (16,) * 4, (0,) * 4, (0,) * 4)
    assert isinstance(steps[3], Compute)
    assert steps[3].flops == (768.0,) * 4


def test_expert_groups_balance_only_their_own_tokens() -> None:
    """Two groups of two ranks; 6 tokens on rank 0 only: 6 x 2 x 192 / 2 = 1152 on ranks 0 and 1."""
    _, placement = placed(per_unit=4, ep=2, servers=9)
    steps = _plan([_whole(0, 6)], placement, MOE).layers[0].steps
    assert [step.group for step in steps if isinstance(step, Collective)] == ["p0.ep0", "p0.ep0"]
    experts = next(step for step in steps if step.label == "experts")
    assert isinstance(experts, Compute)
    assert experts.flops == (1152.0, 1152.0, 0.0, 0.0)


def test_without_expert_parallelism_there_is_no_collective() -> None:
    """Every rank has all experts: 6 tokens x 2 visits x 192 on rank 0."""
    _, placement = placed(ep=1)
    attention, experts = _plan([_whole(0, 6)], placement, MOE).layers[0].steps
    assert attention.label == "attention"
    assert isinstance(experts, Compute)
    assert experts.flops == (2304.0, 0.0)


def test_what_is_dispatched_comes_back() -> None:
    """Combine is the transpose: rank j gets back from i what it sent to i."""
    _, dispatch, _, combine = _moe_plan().layers[0].steps
    assert isinstance(dispatch, Collective)
    assert isinstance(combine, Collective)
    assert combine.sizes == tuple(zip(*dispatch.sizes, strict=True))


def test_every_dispatched_byte_is_a_token_copy() -> None:
    """Over the group, 10 tokens x 2 copies x 8 B = 160 B, the ones that stay on a rank included."""
    dispatch = _moe_plan().layers[0].steps[1]
    assert isinstance(dispatch, Collective)
    assert sum(map(sum, dispatch.sizes)) == 160


def test_a_remote_prefix_is_one_transfer_per_layer_owner_and_shard() -> None:
    """Replicas of two ranks: each shard of a block is 4 tokens x 16 B / 2 = 32 B."""
    _, placement = placed(per_unit=4, tp=2, servers=9)
    fetches = (Fetch(unit="p1", replica=0, blocks=2), Fetch(unit="p1", replica=1, blocks=1))
    item = Assigned(request=prompt(3, 20, (1, 2, 3)), replica=1, local_blocks=0, fetches=fetches)
    plan = _plan([item], placement, MOE)
    for layer in plan.layers:
        assert [(t.src, t.dst, t.size_bytes) for t in layer.wait] == [
            (4, 2, 64),
            (5, 3, 64),
            (6, 2, 32),
            (7, 3, 32),
        ]
        assert {(t.stage, t.layer, t.request) for t in layer.wait} == {(Stage.KV_REUSE, layer.index, 3)}
        assert [t.deadline_ns for t in layer.wait] == [None] * 4
    assert plan.layers[1].wait[0].id == "p0.b7.r3.l1.s1.4-2"


def test_a_plan_says_which_tokens_come_from_which_replica() -> None:
    """Blocks have four tokens. Replicas 0 and 1 of p1 are ranks 4 and 5, 6 and 7."""
    _, placement = placed(per_unit=4, tp=2, servers=9)
    fetches = (
        Fetch(unit="p1", replica=0, blocks=2, spans=((0, 1), (2, 3))),
        Fetch(unit="p1", replica=1, blocks=1, spans=((1, 2),)),
    )
    item = Assigned(request=prompt(3, 20, (1, 2, 3)), replica=1, local_blocks=0, fetches=fetches)
    (request,) = _plan([item], placement, MOE).requests
    assert request.fetched == (
        Fetched(ranks=(4, 5), spans=((0, 4), (8, 12))),
        Fetched(ranks=(6, 7), spans=((4, 8),)),
    )
    assert request.earlier_tokens == 0


def test_a_plan_says_how_many_tokens_are_from_earlier_parts() -> None:
    _, placement = placed()
    item = Assigned(
        request=prompt(3, 20), replica=0, local_blocks=0, fetches=(), earlier_parts=1, earlier_tokens=12
    )
    (request,) = _plan([item], placement, MOE).requests
    assert (request.earlier_tokens, request.local_tokens, request.new_tokens) == (12, 12, 8)


def test_a_local_prefix_is_not_transferred() -> None:
    assert [layer.wait for layer in _moe_plan().layers] == [(), ()]


def test_all_kv_of_the_prompt_goes_to_the_decode_worker_by_the_deadline() -> None:
    """Request 0: 8 prompt tokens, half of them reused, x 16 B = 128 B per layer from rank 0."""
    plan = _moe_plan()
    posted = [t for layer in plan.layers for t in layer.post if t.request == 0]
    assert [(t.src, t.dst, t.size_bytes) for t in posted] == [(0, 4, 128), (0, 4, 128)]
    assert {(t.stage, t.deadline_ns) for t in posted} == {(Stage.P2D, 1000)}
    assert posted[1].id == "p0.b7.r0.l1.s3.0-4"
    assert sum(t.size_bytes for t in posted) == 8 * 2 * 16


def test_shards_deliver_together_what_a_whole_replica_would() -> None:
    """10 tokens x 2 layers x 16 B = 320 B in 2 layers x 2 shards = 4 flows."""
    _, placement = placed(model=DENSE)
    plan = _plan([_whole(0, 10)], placement, DENSE)
    posted = [t for layer in plan.layers for t in layer.post]
    assert sum(t.size_bytes for t in posted) == 320
    assert len(posted) == sum(plan.requests[0].p2d_flows) == 4


def test_a_request_plan_says_what_its_first_token_waits_for() -> None:
    """Decode step: 2 layers x (64 + 16 + 2 x 96) weights x 2 B = 1088 B, and 8 x 32 B of KV."""
    plan = _moe_plan()
    first = plan.requests[0]
    assert (first.request, first.replica, first.decode_rank) == (0, (0,), 4)
    assert (first.new_tokens, first.local_tokens, first.remote_tokens) == (4, 4, 0)
    assert (first.p2d_flows, first.deadline_ns) == ((2,), 1000)
    assert first.decode_step_s == pytest.approx(1.344)
    assert (plan.id, plan.unit, plan.ranks, plan.formed_ns) == ("p0.b7", "p0", (0, 1), 5)


def test_all_ids_of_a_plan_are_different() -> None:
    plan = _moe_plan()
    ids = [t.id for layer in plan.layers for t in (*layer.wait, *layer.post)]
    ids += [s.id for layer in plan.layers for s in layer.steps if isinstance(s, Collective)]
    assert all(a != b for a, b in pairwise(sorted(ids)))


def _whole(number: int, tokens: int) -> Assigned:
    """A request on replica 0 that reuses nothing."""
    return Assigned(request=prompt(number, tokens), replica=0, local_blocks=0, fetches=())


def _moe_plan() -> BatchPlan:
    """8 tokens, one block of them cached, on replica 0; 6 tokens on replica 1."""
    _, placement = placed()
    return _plan(
        [
            Assigned(request=prompt(0, 8, (1,)), replica=0, local_blocks=1, fetches=()),
            Assigned(request=prompt(1, 6), replica=1, local_blocks=0, fetches=()),
        ],
        placement,
        MOE,
    )


def _plan(assigned: list[Assigned], placement: Placement, model: ModelShape) -> BatchPlan:
    return planned(assigned, star(servers=9, nic_bps=800), placement, model=model, batch="p0.b7", formed_ns=5)

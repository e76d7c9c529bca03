"""Experts that are not in balance: some are more popular than others."""

import msgspec
import pytest
from serving_world import placed, planned, prompt

from testbed.job import Placement
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.expert_steps import member_shares
from testbed.serving.plans.outlook import announced
from testbed.serving.plans.steps import StepOptions
from testbed.topology import star
from workers.plan import BatchPlan, Collective, Compute

ZIPF_OF_4 = (12 / 25, 6 / 25, 4 / 25, 3 / 25)
"""1, 1/2, 1/3 and 1/4 over their sum, 25/12."""


def test_popularity_falls_as_one_over_the_rank() -> None:
    assert sorted(_shares(4), reverse=True) == pytest.approx(ZIPF_OF_4)


def test_no_expert_has_more_than_one_visit_of_each_token() -> None:
    """Of 3 visits of a token at most one is to the same expert: 1/3 of all, not 12/25. The other 2/3 go to
    the others as 6 to 4 to 3: 12/39, 8/39 and 6/39.
    """
    shares = sorted(_shares(4, top_k=3), reverse=True)
    assert shares == pytest.approx([1 / 3, 12 / 39, 8 / 39, 6 / 39])
    assert _shares(4, top_k=4) == pytest.approx([1 / 4] * 4)


def test_a_rank_has_the_shares_of_its_experts() -> None:
    """Two experts to a rank: the first two, and the last two."""
    one, two, three, four = _shares(4)
    assert _shares(2) == pytest.approx((one + two, three + four))
    assert max(_shares(2)) > 1 / 2


def test_who_is_popular_depends_on_seed_and_layer_alone() -> None:
    assert _shares(4, seed=3, layer=5) == _shares(4, seed=3, layer=5)
    orders = {_shares(4, layer=layer) for layer in range(24)}
    assert len(orders) > 6
    assert {_shares(4, seed=2, layer=layer) for layer in range(24)} != orders
    assert [_shares(4, layer=layer) for layer in range(24)] != [
        _shares(4, seed=2, layer=layer) for layer in range(24)
    ]


def test_popular_experts_are_drawn_evenly() -> None:
    """In 2000 layers, each of 4 experts is the most popular one 500 times; 80 is 4 standard deviations."""
    most = [max(range(4), key=lambda i: shares[i]) for shares in (_shares(4, layer=x) for x in range(2000))]
    for expert in range(4):
        assert abs(most.count(expert) - 500) < 80


def test_tokens_are_sent_where_the_popular_experts_are() -> None:
    """Replicas of 4 and 6 tokens dispatch 64 and 96 B, by the ranks' shares; a layer has its own shares.

    Experts: 10 x 2 x 192 = 3840 FLOPs, by the same shares.
    """
    _, placement = placed(units=1)
    plan = _plan(placement, skew=1.0)
    for layer in plan.layers:
        _, dispatch, experts, combine = layer.steps
        assert isinstance(dispatch, Collective)
        assert isinstance(experts, Compute)
        assert isinstance(combine, Collective)
        shares = member_shares(2, experts=4, top_k=2, skew=1.0, seed=7, layer=layer.index)
        first = round(64 * shares[0]), round(96 * shares[0])
        assert dispatch.sizes == ((first[0], 64 - first[0]), (first[1], 96 - first[1]))
        assert combine.sizes == tuple(zip(*dispatch.sizes, strict=True))
        assert experts.flops == pytest.approx([3840 * share for share in shares])
        assert sum(map(sum, dispatch.sizes)) == 10 * 2 * 8


def test_without_skew_all_experts_are_alike() -> None:
    _, placement = placed(units=1)
    layer = _plan(placement, skew=0.0).layers[0]
    assert isinstance(layer.steps[1], Collective)
    assert layer.steps[1].sizes == ((32, 32), (48, 48))


def test_the_busiest_rank_of_each_layer_makes_the_batch_longer() -> None:
    """Attention 1296 / 500 s, experts 3840 / 500 s times the larger share, in each of 2 layers. With
    top-2, the most popular expert has 12/25 of the visits, below the cap of 1/2."""
    _, placement = placed(units=1)
    largest = [max(member_shares(2, experts=4, top_k=2, skew=1.0, seed=7, layer=layer)) for layer in (0, 1)]
    seconds = sum(1296 / 500 + 3840 * share / 500 for share in largest)
    assert _plan(placement, skew=1.0).compute_s == pytest.approx(seconds)
    assert _plan(placement, skew=1.0).compute_s > _plan(placement, skew=0.0).compute_s


def test_every_layer_is_announced_with_its_own_bytes() -> None:
    """Layers 0 and 2 are alike and layer 1 is not. Rank 0 dispatches to rank 1, and returns its results."""
    topology, placement = placed(units=1)
    plan = _plan(placement, skew=1.0)
    plan = msgspec.structs.replace(plan, layers=(*plan.layers, plan.layers[0]))
    assert plan.layers[0].steps[1].sizes != plan.layers[1].steps[1].sizes  # type: ignore[union-attr]
    collectives = [step for layer in plan.layers for step in layer.steps if isinstance(step, Collective)]
    load = announced(plan, topology, placement).load
    assert load[f"{placement.server_of(0)}->s1"] == sum(step.sizes[0][1] for step in collectives)


def _shares(members: int, *, top_k: int = 1, seed: int = 1, layer: int = 0) -> tuple[float, ...]:
    return member_shares(members, experts=4, top_k=top_k, skew=1.0, seed=seed, layer=layer)


def _plan(placement: Placement, *, skew: float) -> BatchPlan:
    items = [
        Assigned(request=prompt(0, 4), replica=0, local_blocks=0, fetches=()),
        Assigned(request=prompt(1, 6), replica=1, local_blocks=0, fetches=()),
    ]
    return planned(
        items,
        star(servers=5, nic_bps=800),
        placement,
        options=StepOptions(expert_skew=skew, seed=7),
    )

"""Ranks on servers, and the process groups they form."""

import pytest
from serving_world import DENSE, MOE, placed

from testbed.job import ModelShape, Role
from testbed.serving.models import MODELS
from testbed.serving.placement import (
    Layout,
    PlacementError,
    expert_groups,
    place,
    tensor_parallel,
)
from testbed.topology import star


def test_ranks_are_numbered_unit_by_unit_and_decode_last() -> None:
    _, placement = placed(units=2, per_unit=4, decode=2, servers=5)
    assert placement.units == {"p0": (0, 1, 2, 3), "p1": (4, 5, 6, 7)}
    assert placement.decode == (8, 9)
    assert [spec.rank for spec in placement.ranks] == list(range(10))
    assert [(s.role, s.unit, s.index) for s in placement.ranks[7:9]] == [
        (Role.PREFILL, "p1", 3),
        (Role.DECODE, None, 0),
    ]


def test_spread_puts_consecutive_ranks_on_different_servers() -> None:
    _, placement = placed(units=1, per_unit=4, decode=2, servers=3, layout=Layout.SPREAD)
    assert [spec.server for spec in placement.ranks] == ["h1", "h2", "h3", "h1", "h2", "h3"]


def test_packed_fills_server_after_server() -> None:
    _, placement = placed(units=1, per_unit=4, decode=2, servers=5, layout=Layout.PACKED, ranks_per_server=4)
    assert [spec.server for spec in placement.ranks] == ["h1"] * 4 + ["h2"] * 2


def test_without_a_limit_a_server_takes_as_few_ranks_as_fit_all() -> None:
    """10 ranks on 4 servers: 3 each, so packed they are 3, 3, 3 and 1."""
    _, placement = placed(units=2, per_unit=4, decode=2, servers=4, layout=Layout.PACKED)
    servers = [spec.server for spec in placement.ranks]
    assert [servers.count(f"h{i}") for i in range(1, 5)] == [3, 3, 3, 1]


def test_experts_take_the_whole_unit_unless_told_otherwise() -> None:
    _, placement = placed(units=2, per_unit=4)
    assert placement.groups == {"p0.ep0": (0, 1, 2, 3), "p1.ep0": (4, 5, 6, 7)}
    assert placement.replicas["p0"] == ((0,), (1,), (2,), (3,))
    assert tensor_parallel(placement) == 1


def test_a_dense_model_takes_the_whole_unit_as_one_replica() -> None:
    _, placement = placed(units=2, per_unit=2, model=DENSE)
    assert placement.groups == {"p0.tp0": (0, 1), "p1.tp0": (2, 3)}
    assert placement.replicas == {"p0": ((0, 1),), "p1": ((2, 3),)}
    assert tensor_parallel(placement) == 2


def test_tensor_and_expert_groups_are_consecutive_ranks() -> None:
    _, placement = placed(units=1, per_unit=4, tp=2, ep=2)
    assert placement.groups == {
        "p0.tp0": (0, 1),
        "p0.tp1": (2, 3),
        "p0.ep0": (0, 1),
        "p0.ep1": (2, 3),
    }


def test_without_expert_parallelism_every_rank_is_by_itself() -> None:
    _, placement = placed(units=1, per_unit=2, ep=1)
    assert placement.groups == {}
    assert expert_groups(placement, "p0") == ((None, (0,)), (None, (1,)))


def test_the_groups_of_unit_1_are_not_those_of_unit_10() -> None:
    _, placement = placed(units=11, per_unit=2, servers=23)
    assert expert_groups(placement, "p1") == (("p1.ep0", (2, 3)),)


@pytest.mark.parametrize(
    ("model", "given", "key", "reason"),
    [
        (MOE, {"tp": 3}, "units.tp", "4 ranks do not divide into replicas of 3"),
        (DENSE, {"tp": 4}, "units.tp", "2 query heads of tiny-dense do not divide by 4"),
        (MOE, {"ep": 3}, "units.ep", "4 ranks do not divide into groups of 3"),
        (DENSE, {"tp": 2, "ep": 2}, "units.ep", "tiny-dense has no experts"),
        (MOE, {"ranks_per_server": 1}, "units.ranks_per_server", "9 ranks do not fit on 5 servers"),
        (MOE, {"decode_ranks": 0}, "units.decode_ranks", "must be at least 1, is 0"),
        (MOE, {"prefill_units": 0}, "units.prefill_units", "must be at least 1, is 0"),
        (MOE, {"tp": 0}, "units.tp", "must be at least 1, is 0"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(
    model: ModelShape, given: dict[str, int], key: str, reason: str
) -> None:
    with pytest.raises(PlacementError, match=reason) as refused:
        _place(model, **given)
    assert refused.value.key == key
    assert str(refused.value).startswith(f"{key}: ")


def test_experts_that_do_not_divide_over_the_unit_are_refused() -> None:
    """Mixtral has 8 experts; a unit of 16 ranks would need ep to be given."""
    with pytest.raises(PlacementError, match="8 experts of mixtral-8x7b do not divide by 16"):
        _place(MODELS["mixtral-8x7b"], ranks_per_unit=16)


def test_kv_heads_limit_tensor_parallelism() -> None:
    """Llama 3 8B has 32 query heads but only 8 KV heads."""
    with pytest.raises(PlacementError, match="8 KV heads of llama-3-8b do not divide by 16"):
        _place(MODELS["llama-3-8b"], ranks_per_unit=16)


def _place(model: ModelShape, **given: int) -> None:
    values: dict[str, int | None] = {
        "prefill_units": 2,
        "ranks_per_unit": 4,
        "decode_ranks": 1,
        "ranks_per_server": None,
        "tp": None,
        "ep": None,
    }
    values |= given
    place(
        star(servers=5, nic_bps=800),
        layout=Layout.SPREAD,
        model=model,
        **values,  # type: ignore[arg-type]
    )

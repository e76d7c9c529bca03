"""Ranks on servers, and the process groups they form."""

import msgspec
import pytest
from serving_world import DENSE, MOE, placed

from testbed.job import Placement, Role
from testbed.models.known_models import MODELS
from testbed.models.shape import ModelShape
from testbed.placement import (
    Coordinates,
    ExpertGroups,
    Layout,
    coordinates,
    expert_groups,
    layers_of,
    place,
    stage_of,
    stage_shards,
)
from testbed.topology import star
from testbed.unit_shape import PlacementError
from workers.plan import CollectiveKind


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
    assert placement.shapes["p0"].tp == 1


def test_a_dense_model_takes_the_whole_unit_as_one_replica() -> None:
    _, placement = placed(units=2, per_unit=2, model=DENSE)
    assert placement.groups == {"p0.tp0": (0, 1), "p1.tp0": (2, 3)}
    assert placement.replicas == {"p0": ((0, 1),), "p1": ((2, 3),)}
    assert placement.shapes["p0"].tp == 2


def test_tensor_and_expert_groups_are_consecutive_ranks() -> None:
    _, placement = placed(units=1, per_unit=4, tp=2, ep=2)
    assert placement.groups == {
        "p0.tp0": (0, 1),
        "p0.tp1": (2, 3),
        "p0.ep0": (0, 1),
        "p0.ep1": (2, 3),
    }


def test_strided_expert_groups_have_the_same_heads() -> None:
    _, placement = placed(units=1, per_unit=8, servers=9, tp=2, ep=4, experts=ExpertGroups.STRIDED)
    assert placement.groups["p0.ep0"] == (0, 2, 4, 6)
    assert placement.groups["p0.ep1"] == (1, 3, 5, 7)
    assert placement.groups["p0.tp0"] == (0, 1)
    assert coordinates(placement, "p0", 5).experts == "p0.ep1"


def test_strided_expert_groups_are_as_many_as_a_stage_has_room_for() -> None:
    _, placement = placed(units=1, per_unit=8, servers=9, tp=2, ep=2, experts=ExpertGroups.STRIDED)
    experts = [members for name, members in placement.groups.items() if ".ep" in name]
    assert experts == [(0, 2), (1, 3), (4, 6), (5, 7)]


def test_strided_expert_groups_do_not_leave_a_stage() -> None:
    with pytest.raises(PlacementError, match=r"strided groups: these take .* = 4 x 2 ranks"):
        placed(units=1, per_unit=4, tp=2, ep=4, experts=ExpertGroups.STRIDED)


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
        (MOE, {"tp": 3}, "units.tp", "4 ranks do not divide into replicas of 3; tp can be 1, 2"),
        (DENSE, {"tp": 4}, "units.tp", "2 query heads of tiny-dense do not divide by 4; tp can be 1, 2$"),
        (MOE, {"ep": 3}, "units.ep", "4 ranks do not divide into groups of 3; ep can be 1, 2, 4$"),
        (DENSE, {"tp": 2, "ep": 2}, "units.ep", "tiny-dense has no experts"),
        (
            MOE,
            {"ranks_per_server": 1},
            "units.ranks_per_server",
            "9 ranks do not fit on 5 servers of 1; .* 2 on",
        ),
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
    with pytest.raises(PlacementError) as refused:
        _place(MODELS["mixtral-8x7b"], ranks_per_unit=16)
    assert str(refused.value) == (
        "units.ep: the 8 experts of mixtral-8x7b do not divide by 16; ep can be 1, 2, 4, 8;"
        " it is null, which means a unit's 16 ranks"
    )


def test_kv_heads_limit_tensor_parallelism() -> None:
    """Qwen2.5 32B has 40 query heads, 8 KV heads: 5 ranks can neither divide nor copy them evenly."""
    with pytest.raises(PlacementError, match=r"8 KV heads of .* do not divide by 5"):
        _place(MODELS["qwen2.5-32b"], ranks_per_unit=5)


def test_more_ranks_than_kv_heads_have_copies_of_them() -> None:
    """Llama 3 8B has 32 query heads and 8 KV heads: on 16 ranks each KV head is there twice."""
    placement = _place(MODELS["llama-3-8b"], ranks_per_unit=16, prefill_units=1)
    assert placement.shapes["p0"].tp == 16


def test_a_latent_has_no_heads_to_divide() -> None:
    placement = _place(MODELS["deepseek-v3"], ranks_per_unit=16, prefill_units=1, tp=16)
    assert placement.shapes["p0"].tp == 16


@pytest.mark.parametrize(
    ("layers", "pp", "stages"),
    [(4, 2, [0, 0, 1, 1]), (5, 2, [0, 0, 1, 1, 1]), (5, 3, [0, 1, 1, 2, 2]), (3, 1, [0, 0, 0])],
)
def test_layers_are_split_evenly_over_stages(layers: int, pp: int, stages: list[int]) -> None:
    """Stage s has layers s L // pp up to (s + 1) L // pp - 1: of 5 layers in 3 stages 0, 1-2, 3-4."""
    assert [stage_of(layer, layers, pp) for layer in range(layers)] == stages
    assert [layers_of(stage, layers, pp) for stage in range(pp)] == [
        range(stages.index(stage), stages.index(stage) + stages.count(stage)) for stage in range(pp)
    ]


def test_a_unit_is_stages_of_replicas_of_parts_of_tensor_parallel_ranks() -> None:
    """16 ranks: 2 stages x 2 replicas x 2 parts x 2 ranks. Replica 1 is the second half of each stage."""
    _, placement = placed(units=1, per_unit=16, tp=2, sp=2, pp=2, ep=4, servers=17)
    assert placement.replicas["p0"] == ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
    groups = placement.groups
    tensor = [groups[f"p0.tp{i}"] for i in range(8)]
    assert tensor == [(i, i + 1) for i in range(0, 16, 2)]
    assert [groups[f"p0.sp{i}"] for i in range(8)] == [
        (0, 2), (1, 3), (4, 6), (5, 7), (8, 10), (9, 11), (12, 14), (13, 15),
    ]  # fmt: skip
    assert [groups[f"p0.ep{i}"] for i in range(4)] == [tuple(range(i, i + 4)) for i in range(0, 16, 4)]
    assert [groups[f"p0.pp{i}"] for i in range(8)] == [(i, i + 8) for i in range(8)]
    assert len(groups) == 8 + 8 + 4 + 8
    assert expert_groups(placement, "p0", 1) == (("p0.ep2", (8, 9, 10, 11)), ("p0.ep3", (12, 13, 14, 15)))


def test_the_shards_of_a_replica_are_its_ranks_in_a_stage() -> None:
    _, placement = placed(units=1, per_unit=16, tp=2, sp=2, pp=2, ep=4, servers=17)
    assert stage_shards(placement, "p0", 1, 0) == (4, 5, 6, 7)
    assert stage_shards(placement, "p0", 1, 1) == (12, 13, 14, 15)


def test_a_rank_has_coordinates_in_its_unit() -> None:
    _, placement = placed(units=2, per_unit=16, tp=2, sp=2, pp=2, ep=4, servers=33)
    assert coordinates(placement, "p1", 11) == Coordinates(
        unit="p1", stage=1, replica=0, part=1, tp=1, experts="p1.ep2"
    )


def test_of_three_stages_each_hands_over_to_the_next() -> None:
    deep = msgspec.structs.replace(DENSE, layers=3)
    _, placement = placed(units=1, per_unit=3, pp=3, model=deep)
    assert placement.groups == {"p0.pp0": (0, 1), "p0.pp1": (1, 2)}


@pytest.mark.parametrize(
    ("given", "key", "reason"),
    [
        ({"pp": 3}, "units.pp", "tiny-moe has 2 layers, too few for 3 stages; pp can be 1, 2$"),
        (
            {"pp": 2, "ranks_per_unit": 5},
            "units.pp",
            "a unit's 5 ranks do not divide into 2 stages; pp can be 1$",
        ),
        ({"pp": 0}, "units.pp", "must be at least 1, is 0"),
        ({"sp": 3}, "units.sp", "a unit's 4 ranks do not divide into 3 parts; sp can be 1, 2, 4$"),
        ({"sp": 3, "tp": 2}, "units.sp", "a unit's 4 ranks do not divide into 3 parts; sp can be 1, 2$"),
        ({"sp": 0}, "units.sp", "must be at least 1, is 0"),
        (
            {"sp": 2, "tp": 4},
            "units.tp",
            "4 ranks do not divide into replicas of 2 parts x 4; tp can be 1, 2$",
        ),
        ({"pp": 2, "ep": 4}, "units.ep", "a stage's 2 ranks do not divide into groups of 4; ep can be 1, 2$"),
    ],
)
def test_stages_and_parts_that_cannot_be_are_refused(given: dict[str, int], key: str, reason: str) -> None:
    with pytest.raises(PlacementError, match=reason) as refused:
        _place(MOE, **given)
    assert refused.value.key == key


def test_ulysses_needs_heads_for_all_parts() -> None:
    """2 query heads on 2 parts of 2 ranks: half a head."""
    with pytest.raises(PlacementError, match=r"do not divide by 2 parts x 2; sp can be 1$"):
        placed(per_unit=4, tp=2, sp=2, servers=9, sequence=CollectiveKind.ALL_TO_ALL)


def _place(model: ModelShape, **given: int) -> Placement:
    values: dict[str, int | None] = {
        "prefill_units": 2,
        "ranks_per_unit": 4,
        "decode_ranks": 1,
        "ranks_per_server": None,
        "tp": None,
        "ep": None,
    }
    values |= given
    return place(
        star(servers=5, nic_bps=800),
        layout=Layout.SPREAD,
        model=model,
        **values,  # type: ignore[arg-type]
    )

"""The values of a sweep's keys, and its cells."""

from typing import Any

import pytest

from experiments.errors import UserError
from experiments.sweep.plan import Plan, make_plan, read_over


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=3,1,2", (3, 1, 2)),
        ("seed=1:4", (1, 2, 3, 4)),
        ("workload.load=0.1:0.3:0.1", (0.1, 0.2, 0.3)),  # in binary floating point 0.1 + 2 * 0.1 > 0.3
        ("workload.load=0.2:0.5:0.2", (0.2, 0.4)),
        ("seed=10:0:-5", (10, 5, 0)),
        ("workload.rate=1e3:3e3:1e3", (1000, 2000, 3000)),
        ("units.tp=null,2", (None, 2)),
        ("topology.kind=star,leaf-spine", ("star", "leaf-spine")),
        (
            "slo.classes={a: {multiple: 2}, b: {multiple: 3}},{}",
            ({"a": {"multiple": 2}, "b": {"multiple": 3}}, {}),
        ),
        ("workload.path='a,b.csv',c d.csv", ("a,b.csv", "c d.csv")),
    ],
)
def test_the_values_of_a_key_are_a_list_or_a_range(text: str, values: tuple[Any, ...]) -> None:
    assert read_over(text).values == values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed", "write it as KEY=V1,V2,... or KEY=START:STOP:STEP"),
        ("seed=", "write it as"),
        ("seed=1,,2", "not YAML"),
        ("seed=1,2,1", "1 is given twice"),
        ("seed=1:5:0", "a STEP that is not 0"),
        ("seed=1:5:-1", "the range never reaches 5"),
        ("workload.load=0:1:1e-9", "1000000001 values"),
        ("policies=fair,mfs", "use --policy"),
        ("fabric=sim,mininet", "use --fabric"),
    ],
)
def test_values_that_make_no_sense_are_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=r"^--over ") as refused:
        read_over(text)
    assert told in str(refused.value)


def plan_of(*over: str, policies: tuple[str, ...] = ("fair", "mfs"), settings: tuple[str, ...] = ()) -> Plan:
    ranges = [read_over(text) for text in over]
    return make_plan("two-flows", over=ranges, policies=policies, settings=settings, fabric="sim")


def test_there_is_a_cell_per_combination_and_policy() -> None:
    plan = plan_of("topology.servers=3,4", "seed=1:2")

    assert [(cell.values["topology.servers"], cell.values["seed"], cell.policy) for cell in plan.cells] == [
        (3, 1, "fair"),
        (3, 1, "mfs"),
        (3, 2, "fair"),
        (3, 2, "mfs"),
        (4, 1, "fair"),
        (4, 1, "mfs"),
        (4, 2, "fair"),
        (4, 2, "mfs"),
    ]
    assert plan.cells[4].scenario.topology.servers == 4
    assert len({cell.point for cell in plan.cells}) == 4


def test_the_name_of_a_cell_is_that_of_its_content() -> None:
    """It depends on its own scenario and policy, and not on what else the sweep has."""
    one = plan_of("seed=2", policies=("mfs",)).cells[0]
    same = plan_of("seed=1:3").cells[3]
    other = plan_of("seed=2", policies=("mfs",), settings=("topology.nic_gbps=20",)).cells[0]

    assert one.name == same.name
    assert one.name.startswith("seed=2_mfs_")
    assert other.name != one.name


def test_a_cell_says_how_to_run_it_alone() -> None:
    cell = plan_of("seed=7", policies=("mfs(rho=off)",), settings=("topology.servers=4",)).cells[0]

    assert cell.command == (
        "mfs run two-flows --fabric sim --set topology.servers=4 --set seed=7 --policy 'mfs(rho=off)'"
    )


@pytest.mark.parametrize(
    ("over", "settings", "told"),
    [
        (
            ("topology.servers=3,ten",),
            (),
            "--over topology.servers=ten: topology.servers: 'ten' is not a whole",
        ),
        (("topology.serves=3",), (), "--over topology.serves=3: unknown key 'topology.serves'; did you mean"),
        (("seed=1", "seed=2"), (), "--over seed=...: is given twice"),
        (("seed=1",), ("seed=2",), "--set seed=2: 'seed' is already swept with --over"),
        (("slo.multiple=3,3.0",), (), "--over: slo.multiple=3 and slo.multiple=3.0 are the same scenario"),
        (("seed=1:1000", "topology.servers=3:1001"), (), "1998000 cells"),
    ],
)
def test_a_point_that_is_not_a_scenario_is_refused(
    over: tuple[str, ...], settings: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*over, settings=settings)
    assert told in str(refused.value)

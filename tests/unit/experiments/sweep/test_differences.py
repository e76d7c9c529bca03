"""How policies of a sweep differ: paired by seed, with intervals over seeds."""

import csv
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.sweep.differences import differences_of, write_differences
from experiments.sweep.page import render_page
from experiments.sweep.plan import Plan, make_plan, read_over
from experiments.sweep.results import Measure
from experiments.sweep.table import differences_table


def plan(seeds: str = "1:3", *over: str) -> Plan:
    return make_plan(
        "two-flows",
        over=[read_over(text) for text in (f"seed={seeds}", *over)],
        policies=("fair", "mfs"),
        fabric="sim",
    )


def row(policy: str, seed: int, met: float | None, error: str | None = None, **keys: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(Measure)
    measured = {Measure.SLO_ATTAINMENT: met, Measure.FAITHFUL: True}
    return {**keys, **nothing, **measured, "policy": policy, "seed": seed, "error": error, "cell": "c"}


def text(renderable: Any) -> str:
    console = Console(width=80, record=True, file=None)
    with console.capture() as got:
        console.print(renderable)
    return got.get()


def test_what_counts_is_the_difference_of_the_same_seed() -> None:
    """Seeds differ by far more than policies, but mfs is better by 0.1 +- 0.01 in each."""
    rows = [row("fair", seed, met) for seed, met in ((1, 0.1), (2, 0.5), (3, 0.8))]
    rows += [row("mfs", seed, met) for seed, met in ((3, 0.91), (1, 0.2), (2, 0.59))]
    (found,) = differences_of(plan(), rows)
    assert (found["policy"], found["against"], found["measure"]) == ("mfs", "fair", "slo_attainment")
    assert found["reference"] == pytest.approx(1.4 / 3)
    assert found["mean"] == pytest.approx(0.1)
    assert found["high"] == pytest.approx(0.1 + 4.3027 * 0.01 / 3**0.5, abs=1e-5)
    assert found["shown"]


def test_a_seed_without_its_pair_does_not_count() -> None:
    rows = [row("fair", 1, 0.5), row("fair", 2, 0.5), row("fair", 3, None)]
    rows += [row("mfs", 1, 0.6), row("mfs", 2, 0.9, error="died"), row("mfs", 3, 0.9)]
    (found,) = differences_of(plan(), rows)
    assert (found["mean"], found["replicates"]) == (pytest.approx(0.1), 1)


def test_points_are_compared_one_by_one() -> None:
    swept = plan("1:2", "topology.servers=3,4")
    rows = [
        row(policy, seed, each * servers, **{"topology.servers": servers})
        for servers in (3, 4)
        for policy, each in (("fair", 0.1), ("mfs", 0.15))
        for seed in (1, 2)
    ]
    found = differences_of(swept, rows)
    assert [(one["topology.servers"], round(one["mean"], 3)) for one in found] == [(3, 0.15), (4, 0.2)]


def test_the_table_says_where_no_difference_is_shown(tmp_path: Path) -> None:
    rows = [row("fair", seed, 0.5) for seed in (1, 2, 3)]
    rows += [row("mfs", seed, met) for seed, met in ((1, 0.4), (2, 0.5), (3, 0.7))]
    found = differences_of(plan(), rows)
    said = text(differences_table(plan(), found))
    assert "against fair" in said
    assert "no difference shown" in said
    assert "no difference shown" in render_page(plan(), rows, command="mfs sweep", differences=found)
    write_differences(tmp_path, plan(), found)
    with (tmp_path / "differences.csv").open(encoding="utf-8") as file:
        (written,) = csv.DictReader(file)
    assert (written["policy"], written["replicates"], written["shown"]) == ("mfs", "3", "False")
    assert float(written["mean"]) == pytest.approx(1 / 30)


def test_without_replicates_it_says_how_to_get_some() -> None:
    alone = plan("1")
    found = differences_of(alone, [row("fair", 1, 0.5), row("mfs", 1, 0.9)])
    assert "--over seed=1:8" in text(differences_table(alone, found))
    assert found[0]["shown"] is False


def test_one_policy_has_nothing_to_differ_from() -> None:
    alone = make_plan("two-flows", over=[read_over("seed=1:2")], policies=("fair",), fabric="sim")
    found = differences_of(alone, [row("fair", 1, 0.5)])
    assert text(differences_table(alone, found)) == ""

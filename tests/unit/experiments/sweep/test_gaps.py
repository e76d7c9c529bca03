"""How much of the gap to a network that takes no time is closed, over replicates."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy_fabric import Mfs

import mfs as testbed
from experiments.sweep.gaps import gaps_of
from experiments.sweep.page import render_page
from experiments.sweep.plan import Plan, make_plan, read_over


def plan() -> Plan:
    over = [read_over("seed=1:2")]
    return make_plan("quickstart", over=over, policies=("fair", "mfs"), fabric="sim", ceiling=True)


def row(policy: str, seed: int, ttft: float | None, ceiling: float, met: float = 1.0) -> dict[str, Any]:
    return {
        "policy": policy,
        "seed": seed,
        "error": None,
        "slo_attainment": met,
        "ceiling_slo_attainment": 1.0,
        "ttft_mean_s": ttft,
        "ceiling_ttft_mean_s": ceiling,
    }


ROWS = [row("fair", 1, 3.0, 1.0), row("mfs", 1, 2.0, 1.0), row("fair", 2, 7.0, 1.0), row("mfs", 2, 4.0, 1.0)]
"""Of gaps of 2 s and of 6 s, mfs closes 1 s and 3 s. In SLO attainment there is no gap."""


def test_the_share_is_a_ratio_of_means_with_the_interval_of_the_jackknife() -> None:
    """Together, 4 of 8 s, as in each replicate: so the replicates agree, and the interval has no width."""
    attainment, ttft = gaps_of(plan(), ROWS)
    assert ttft == {
        "policy": "mfs",
        "reference": "fair",
        "measure": "ttft_mean_s",
        "reference_mean": 5.0,
        "ceiling_mean": 1.0,
        "closed": 0.5,
        "low": pytest.approx(0.5),
        "high": pytest.approx(0.5),
        "replicates": 2,
    }
    assert (attainment["closed"], attainment["low"]) == (None, None)


def test_a_large_gap_counts_for_more_than_a_small_one() -> None:
    """Of 2 s and 6 s, 0 s and 6 s are closed: 75 %, where the mean of the shares is 50 %.

    Without replicate 1, it is 100 %, without 2 0 %: pseudo-values of 50 and 150 %, whose mean has a standard
    error of 50 %, times t(1) of 12.706.
    """
    rows = [*ROWS[:1], row("mfs", 1, 3.0, 1.0), *ROWS[2:3], row("mfs", 2, 1.0, 1.0)]
    _, ttft = gaps_of(plan(), rows)
    assert ttft["closed"] == 0.75
    assert (ttft["low"], ttft["high"]) == pytest.approx((0.75 - 6.353, 0.75 + 6.353), abs=1e-3)


def test_a_replicate_that_lacks_a_cell_does_not_count() -> None:
    rows = [*ROWS[:3], row("mfs", 2, None, 1.0)]
    _, ttft = gaps_of(plan(), rows)
    assert (ttft["closed"], ttft["replicates"], ttft["low"]) == (0.5, 1, None)


def test_a_sweep_has_the_ceilings_that_runs_have(mfs: Mfs, tmp_path: Path) -> None:
    words = ("--set", "workload.requests=6", "--set", "workload.load=0.9", "--ceiling")
    policies = ("--policy", "mfs", "--policy", "fair")
    assert mfs("sweep", "quickstart", *words, *policies, "--over", "seed=1:2", "--out", "s") == 0
    assert "share of the gap from fair to a network that takes no time" in mfs.out
    content = json.loads((tmp_path / "s" / "sweep.json").read_text())
    [of_mfs, *_] = content["cells"]
    command = ("run", "quickstart", "--fabric", "sim", *words, *policies, "--seed", "1", "--out", "r")
    assert mfs(*command) == 0
    told = json.loads((tmp_path / "r" / "summary.json").read_text())["ceiling"]
    for measure in ("slo_attainment", "ttft_mean_s"):
        assert of_mfs[f"ceiling_{measure}"] == told["own_batches"][measure]
        assert of_mfs[f"closed_{measure}"] == told["closed"]["mfs"][measure]
    page = (tmp_path / "s" / "sweep.html").read_text()
    assert "Gap to a network that takes no time" in page
    assert "<a href='gaps.csv'>" in page
    assert (tmp_path / "s" / "gaps.csv").read_text().splitlines()[0].startswith("policy,reference,measure,")
    assert testbed.Sweep(tmp_path / "s").gaps["closed"].to_pylist() == [g["closed"] for g in content["gaps"]]

    assert mfs("sweep", "quickstart", *words[:-1], *policies, "--over", "seed=1:2", "--out", "s") == 2
    assert "holds another sweep" in mfs.err


def test_without_ceilings_there_is_nothing_of_them() -> None:
    one = make_plan("quickstart", over=[read_over("seed=1:2")], fabric="sim")
    assert gaps_of(one, ROWS) == []
    assert "Gap to" not in render_page(one, [], command="mfs sweep")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("quickstart", "--fabric", "toy"), "--ceiling: the fabric toy cannot do without a network"),
        (("two-flows", "--fabric", "sim"), "--ceiling: single flows are nothing but network"),
    ],
)
def test_a_sweep_without_a_ceiling_is_refused(mfs: Mfs, words: tuple[str, ...], told: str) -> None:
    assert mfs("sweep", *words, "--over", "seed=1:2", "--ceiling") == 2
    assert told in mfs.err

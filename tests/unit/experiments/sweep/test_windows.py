"""Windows of a trace as replicates, and seeds that are none."""

import json
from pathlib import Path

import pytest

from experiments.compare.replicates import of_cells
from experiments.errors import UserError
from experiments.sweep.notes import plan_warnings
from experiments.sweep.plan import Plan, checked_over, make_plan, read_over


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    rows = ({"timestamp": 100 * i, "input_length": 500, "output_length": 9} for i in range(25))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def plan_of(over: list[str], *settings: str) -> Plan:
    ranges = [read_over(text) for text in over]
    return make_plan("quickstart", over=ranges, settings=settings, policies=["fair"], fabric="sim")


def test_windows_follow_each_other_from_the_first_row_that_is_not_skipped(trace: Path) -> None:
    """After 4 rows, 3 windows of 7 requests end with row 25."""
    plan = plan_of(["window=3"], f"workload.path={trace}", "workload.requests=7", "workload.skip=4")

    assert [cell.scenario.workload.skip for cell in plan.cells] == [4, 11, 18]
    assert [cell.values for cell in plan.cells] == [{"window": 0}, {"window": 1}, {"window": 2}]
    assert "--set workload.skip=18" in plan.cells[2].command
    assert "window=" not in plan.cells[2].command
    assert (plan.keys, plan.replicates, plan.replicates_are) == ([], 3, "windows")


def test_a_window_is_as_long_as_the_requests_of_its_point(trace: Path) -> None:
    plan = plan_of(["workload.requests=5,10", "window=2"], f"workload.path={trace}")
    assert [cell.scenario.workload.skip for cell in plan.cells] == [0, 5, 0, 10]


def test_a_trace_that_is_too_short_says_how_many_windows_fit(trace: Path) -> None:
    with pytest.raises(UserError, match=r"3 windows of 7 requests fit into the 25 rows .* workload\.skip, 4"):
        plan_of(["window=4"], f"workload.path={trace}", "workload.requests=7", "workload.skip=4")


@pytest.mark.parametrize(
    ("over", "settings", "told"),
    [
        (["window=2"], (), "a generated workload has no windows"),
        (
            ["window=2"],
            ("workload={kind: flows, flows: [{id: a, src: h1, dst: h2, bytes: 1}]}",),
            "kind flows",
        ),
        (["window=1:3"], (), "give the number of windows"),
        (["window=2,3"], (), "give the number of windows"),
        (["window=1.5"], (), "give the number of windows"),
        (["window=-1"], (), "give the number of windows"),
        (["window=2", "seed=1:2"], (), "cannot be swept together"),
    ],
)
def test_windows_that_mean_nothing_are_refused(over: list[str], settings: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan_of(over, *settings)


def test_policies_are_paired_by_window() -> None:
    row = {
        "policy": "fair",
        "seed": 1,
        "error": None,
        "faithful": True,
        "requests": 7,
        "slo_attainment": 1.0,
        "ttft_mean_s": 1.0,
        "ttft_p99_s": 1.0,
        "cct_mean_s": 1.0,
        "coflow_mean_s": None,
    }
    windows = of_cells([row | {"window": 0}, row | {"window": 1}], [])
    assert [one.work for one in windows] == ["window 0, seed 1", "window 1, seed 1"]


def test_seeds_of_a_trace_that_keeps_its_arrivals_are_no_replicates(trace: Path) -> None:
    requests = (f"workload.path={trace}", "workload.requests=7")
    [told] = plan_warnings(plan_of(["seed=1:3"], *requests))
    assert "3 seeds are no replicates" in told
    assert "--over window=3" in told

    assert plan_warnings(plan_of(["seed=1:3"], *requests, "workload.arrivals=poisson")) == []
    assert plan_warnings(plan_of(["seed=1"], *requests)) == []
    assert plan_warnings(plan_of(["window=3"], *requests)) == []
    assert plan_warnings(plan_of(["seed=1:3"])) == []


@pytest.mark.parametrize("values", [[3], [0, 1, 2]])
def test_a_program_gives_the_number_of_windows_or_all_of_them(values: list[int]) -> None:
    assert checked_over("window", values, "over").values == (0, 1, 2)


def test_some_windows_of_many_are_refused() -> None:
    with pytest.raises(UserError, match="give the number of windows"):
        checked_over("window", [1, 2], "over")

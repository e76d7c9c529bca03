"""Sweeping, comparing and drawing from Python."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mfs
from experiments.scenario.reading import load_scenario, override
from mfs.settings import as_listed, as_text
from testbed.fabric import FabricName

FEW = {"workload.requests": 20}
LOADS = [0.3, 0.6]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> mfs.Sweep:
    """Two loads and three seeds under two policies: 12 cells."""
    return mfs.sweep(
        "quickstart",
        over={"workload.load": LOADS, "seed": range(1, 4)},
        policies=["fair", "mfs"],
        settings=FEW,
        jobs=1,
        out=tmp_path_factory.mktemp("sweeps") / "s",
    )


def test_a_sweep_has_a_row_per_cell(swept: mfs.Sweep) -> None:
    assert swept.complete
    assert swept.failed == {}
    assert swept.faithful
    assert swept.cells.num_rows == 12
    assert swept.cells["workload.load"].to_pylist() == [0.3] * 6 + [0.6] * 6
    assert swept.cells.schema.field("ttft_mean_s").type == pa.float64()
    assert (swept.path / "sweep.csv").is_file()


def test_differences_are_paired_by_seed(swept: mfs.Sweep) -> None:
    """The mean difference is the mean over the three seeds of mfs minus fair."""
    cells = [row for row in swept.cells.to_pylist() if row["workload.load"] == 0.6]
    by_policy = {
        name: np.array([row["ttft_mean_s"] for row in cells if row["policy"] == name])
        for name in ("fair", "mfs")
    }

    found = mfs.compare(swept)

    assert found.against == "fair"
    (row,) = [
        row
        for row in found.table.to_pylist()
        if row["measure"] == "ttft_mean_s" and row["workload.load"] == 0.6
    ]
    assert row["mean"] == pytest.approx((by_policy["mfs"] - by_policy["fair"]).mean())
    assert row["count"] == 3
    assert row["low"] < row["mean"] < row["high"]
    told = " ".join(str(found).split())
    difference, _, interval = row["words"].partition(" [")
    assert not row["shown"] or (difference in told and interval in told)  # the table has them on two lines
    assert "against fair, on the same work" in str(found)
    (same,) = [
        one
        for one in swept.differences.to_pylist()
        if one["measure"] == "ttft_mean_s" and one["workload.load"] == 0.6
    ]
    assert same["mean"] == row["mean"]


def test_another_policy_can_be_the_reference_and_directories_stand_for_results(swept: mfs.Sweep) -> None:
    assert mfs.compare(str(swept.path), against="mfs").against == "mfs"
    with pytest.raises(mfs.UserError, match="there is no such run"):
        mfs.compare(swept, against="edf")
    with pytest.raises(TypeError, match="at least one"):
        mfs.compare()


def test_runs_are_compared_request_by_request(tmp_path: Path) -> None:
    run = mfs.run("quickstart", fabric="sim", policies=["fair", "mfs"], settings=FEW, out=tmp_path / "r")
    ttft = {
        name: [row["ttft_ns"] / 1e9 for row in run.requests.to_pylist() if row["policy"] == name]
        for name in run.policies
    }

    rows = mfs.compare(run).table.to_pylist()

    assert [row["measure"] for row in rows] == ["slo_attainment", "ttft_mean_s"]
    assert rows[1]["mean"] == pytest.approx((sum(ttft["mfs"]) - sum(ttft["fair"])) / 20)
    assert rows[1]["count"] == 20
    with pytest.raises(mfs.UserError, match="there is one run only"):
        mfs.compare(
            mfs.run("quickstart", fabric="sim", policies=["fair"], settings=FEW, out=tmp_path / "one")
        )


def test_a_figure_is_in_a_file_and_shows_itself_in_a_notebook(swept: mfs.Sweep, tmp_path: Path) -> None:
    drawn = mfs.plot(swept, y="ttft_mean_s", ci=True, out=tmp_path / "ttft.pdf")

    assert drawn.path.read_bytes().startswith(b"%PDF")
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert drawn.figure.axes[0].get_ylabel() == "mean TTFT (ms)"
    with pytest.raises(mfs.UserError, match="there is no such measure"):
        mfs.plot(swept, y="ttft")


def test_a_table_has_the_means_over_seeds(swept: mfs.Sweep) -> None:
    lines = mfs.table(swept, y="ttft_mean_s", format="csv").splitlines()

    assert lines[0] == "policy,workload.load,mean TTFT (ms),low,high"
    cells = [row for row in swept.cells.to_pylist() if row["policy"] == "fair"]
    mean_ms = 1e3 * np.mean([row["ttft_mean_s"] for row in cells if row["workload.load"] == 0.3])
    label, load, mean, low, high = lines[1].split(",")
    assert (label, load) == ("fair", "0.3")
    assert float(mean) == pytest.approx(mean_ms, abs=1e-6)
    assert float(low) < mean_ms < float(high)
    assert mfs.table(swept, format="latex").splitlines()[-1] == r"\end{tabular}"


def test_a_sweep_names_the_command_that_continues_it(swept: mfs.Sweep) -> None:
    words = shlex.split(swept.summary["command"])

    assert words == (
        "mfs sweep quickstart --over workload.load=0.3,0.6 --over seed=1,2,3 --policy fair --policy mfs"
        f" --set workload.requests=20 --fabric sim --out {swept.path}"
    ).split(" ")


def test_a_second_sweep_in_another_folder_writes_its_cells_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers of the first are still there, in the folder of the first."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        found = mfs.sweep("quickstart", over={"seed": [1, 2]}, policies=["fair"], settings=FEW, jobs=2)
        assert found.complete
        assert found.cells.num_rows == 2


def test_a_cell_that_fails_is_a_warning_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.sweep import cell
    from testbed.fabric import RunFailed

    def failing(*_: Any) -> Any:
        raise RunFailed("out of luck")

    monkeypatch.setattr(cell, "run_job", failing)
    with pytest.warns(UserWarning, match="1 of 1 cells failed; cells/.*: out of luck"):
        swept = mfs.sweep(
            "quickstart", over={"seed": [1]}, policies=["fair"], settings=FEW, jobs=1, out=tmp_path / "s"
        )
    assert list(swept.failed.values()) == ["out of luck"]
    assert not swept.complete
    assert not swept.faithful


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"workload.load": [0.2, 0.2]}, "0.2 is given twice"),
        ({"workload.load": []}, "there are no values"),
        ({"policies": [["fair"]]}, "--policy SPEC"),
        ({"workload.lod": [1]}, "workload.lod"),
    ],
)
def test_values_that_cannot_be_swept_are_refused(over: dict[str, Any], message: str) -> None:
    with pytest.raises(mfs.UserError, match=message):
        mfs.sweep("quickstart", over=over, jobs=1)


def test_a_text_is_no_list_of_values() -> None:
    with pytest.raises(TypeError, match="a list of values"):
        mfs.sweep("quickstart", over={"workload.load": "0.2,0.4"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        ("star", "star"),
        ("0.5", '"0.5"'),
        ("[broken", '"[broken"'),
        (np.float64(0.25), "0.25"),
        (np.int64(3), "3"),
        (FabricName.SIM, "sim"),
        (Path("a/b"), "a/b"),
        ((1, 2), "[1, 2]"),
    ],
)
def test_values_become_what_set_takes(value: object, text: str) -> None:
    assert as_text(value) == text


def test_what_is_no_value_of_a_scenario_is_refused() -> None:
    with pytest.raises(TypeError, match="a scenario takes"):
        as_text(object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_text(float("nan"))


def test_a_text_with_a_comma_stays_one_value() -> None:
    assert as_listed("a,b") == '"a,b"'
    assert load_scenario("quickstart", [override(f"description={as_text('a, b')}")]).description == "a, b"

"""`mfs sweep`: what its cells are, how they are run, gone on with and brought together.

Where nothing has to run side by side, cells are run in this process on a toy fabric.
"""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from toy_fabric import Mfs, ToyFabric

from experiments.cli.progress_display import SweepLines, SweepProgress, rough_time
from experiments.errors import UserError
from experiments.sweep.plan import Plan, make_plan, read_over
from experiments.sweep.results import Group, Spread, groups_of
from testbed.fabric import RunFailed
from testbed.fabrics import FABRICS

TOY = ("sweep", "two-flows", "--fabric", "toy", "--jobs", "1")
GRID = ("--over", "topology.servers=3,4", "--over", "seed=1:2", "--policy", "fair", "--policy", "mfs")


@pytest.fixture
def mfs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Mfs:
    monkeypatch.chdir(tmp_path)
    return Mfs(monkeypatch, capfd)


@pytest.fixture
def toy(mfs: Mfs) -> ToyFabric:
    fabric = ToyFabric()
    mfs.fabric(fabric)
    return fabric


def rows(directory: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((directory / "sweep.csv").open()))


# --- values -------------------------------------------------------------------------------------


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
        ("seed=1,2,1", "1 is there twice"),
        ("seed=1:5:0", "a STEP that is not 0"),
        ("seed=1:5:-1", "there is no way to 5"),
        ("workload.load=0:1:1e-9", "1000000001 values"),
        ("policies=fair,mfs", "use --policy"),
        ("fabric=sim,mininet", "use --fabric"),
    ],
)
def test_values_that_make_no_sense_are_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=r"^--over ") as refused:
        read_over(text)
    assert told in str(refused.value)


# --- plan ---------------------------------------------------------------------------------------


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
    """Of its own scenario and policy, whatever else is in the sweep; another scenario, another name."""
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
        (("seed=1", "seed=2"), (), "--over seed=...: is there twice"),
        (("seed=1",), ("seed=2",), "--set seed=2: 'seed' is swept over with --over"),
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


# --- running ------------------------------------------------------------------------------------


def test_every_cell_is_a_row_and_its_summary_is_all_it_keeps(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path
) -> None:
    assert mfs(*TOY, *GRID, "--out", "s") == 0

    found = rows(tmp_path / "s")
    assert [(row["topology.servers"], row["seed"], row["policy"]) for row in found[:3]] == [
        ("3", "1", "fair"),
        ("3", "1", "mfs"),
        ("3", "2", "fair"),
    ]
    assert len(found) == 8
    assert toy.ran == [("fair", 1), ("mfs", 1), ("fair", 2), ("mfs", 2)] * 2
    cell = tmp_path / "s" / found[0]["cell"]
    assert sorted(path.name for path in cell.iterdir()) == ["cell.json", "summary.json"]
    assert json.loads((cell / "summary.json").read_text())["runs"][0]["flows"][0]["finish_s"] == 1.0
    assert (tmp_path / "s" / "sweep.html").stat().st_size > 1000
    # Flows have no TTFT: what the table shows is how long the run was, the same for every seed.
    assert "two-flows on toy; mean over 2 seeds, least .. most of them" in mfs.out
    assert "3 fair 1.00s" in " ".join(mfs.out.split())
    assert mfs.out.splitlines()[-2:] == ["cells: s/sweep.csv", "page: s/sweep.html"]
    assert "8/8 cells" in mfs.err


def test_json_is_all_there_is_on_standard_output(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    assert mfs(*TOY, "--over", "seed=1:2", "--policy", "fair", "--json") == 0

    content = json.loads(mfs.out)
    assert content["over"] == {"seed": [1, 2]}
    assert content["complete"] is True
    assert [(cell["policy"], cell["seed"], cell["error"]) for cell in content["cells"]] == [
        ("fair", 1, None),
        ("fair", 2, None),
    ]
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.endswith("-two-flows-sweep")


def test_with_tables_a_cell_is_a_run_directory(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    assert mfs(*TOY, "--over", "seed=1", "--policy", "fair", "--keep", "tables", "--out", "s") == 0

    (cell,) = (tmp_path / "s" / "cells").iterdir()
    assert {"flows.parquet", "report.html", "summary.json", "cell.json"} <= {p.name for p in cell.iterdir()}
    assert mfs("report", str(cell)) == 0


def test_the_workload_is_made_once_for_all_policies_of_a_point(
    mfs: Mfs, toy: ToyFabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.sweep import cell as sweep_cell

    made: list[int] = []
    resolve = sweep_cell.resolve
    monkeypatch.setattr(sweep_cell, "resolve", lambda one: made.append(one.seed) or resolve(one))
    monkeypatch.setattr(sweep_cell, "_last", None)

    assert mfs(*TOY, *GRID) == 0
    assert made == [1, 2, 1, 2]


def test_a_cell_that_fails_is_told_and_the_others_go_on(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    mfs.fabric(ToyFabric(trouble=RunFailed("rank 3 died"), in_policy="mfs"))

    assert mfs(*TOY, *GRID, "--out", "s") == 1

    found = rows(tmp_path / "s")
    assert [row["error"] for row in found] == ["", "rank 3 died"] * 4
    assert sum(line.endswith(": rank 3 died") for line in mfs.err.splitlines()) == 4
    assert "4 failed" in mfs.err
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["complete"] is False


def test_what_has_finished_is_not_run_again_and_what_failed_is(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path
) -> None:
    mfs.fabric(ToyFabric(trouble=ValueError("a bug"), in_policy="mfs"))
    assert mfs(*TOY, *GRID, "--out", "s") == 1
    assert rows(tmp_path / "s")[1]["error"] == "ValueError: a bug"

    mfs.fabric(toy)
    assert mfs(*TOY, *GRID, "--out", "s") == 0
    assert toy.ran == [("mfs", 1), ("mfs", 2)] * 2
    assert all(row["error"] == "" for row in rows(tmp_path / "s"))

    toy.ran.clear()
    assert mfs(*TOY, *GRID, "--out", "s") == 0
    assert toy.ran == []


def test_interrupted_it_says_how_to_go_on_and_does(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    """Ctrl-C in the second cell of four."""
    mfs.fabric(ToyFabric(trouble=KeyboardInterrupt(), in_policy="mfs"))
    arguments = (*TOY, "--over", "seed=1:2", "--policy", "fair", "--policy", "mfs")

    assert mfs(*arguments) == 130

    (directory,) = (tmp_path / "runs").iterdir()
    again = f"mfs {' '.join(arguments)} --out runs/{directory.name}"
    assert mfs.err.splitlines()[-2:] == [
        "mfs: interrupted",
        f"1 of 4 cells have finished; to go on: {again}",
    ]
    assert [row["policy"] for row in rows(directory)] == ["fair"]

    mfs.fabric(toy)
    assert mfs(*again.split()[1:]) == 0
    assert toy.ran == [("mfs", 1), ("fair", 2), ("mfs", 2)]
    assert len(rows(directory)) == 4


def test_a_directory_that_is_not_of_this_sweep_is_refused(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    assert mfs(*TOY, "--over", "seed=1:2", "--out", "s") == 0
    before = sorted(tmp_path.rglob("*"))

    assert mfs(*TOY, "--over", "seed=1:3", "--out", "s") == 2
    assert "mfs: --out s: holds another sweep (mfs sweep two-flows --fabric toy" in mfs.err
    assert sorted(tmp_path.rglob("*")) == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    assert mfs(*TOY, "--over", "seed=1", "--out", "mine") == 2
    assert "is not empty and holds no sweep" in mfs.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fabric", "mininet", "--jobs", "2"), "--fabric mininet: one cell at a time"),
        (("--fabric", "mininet", "--backend", "dask"), "--fabric mininet: one cell at a time"),
        (("--fabric", "mininett"), "--fabric mininett: fabric: 'mininett' is no fabric here"),
        (("--backend", "lokky"), "--backend lokky: Invalid backend"),
        (("--policy", "fare"), "--policy fare: policies[0]: there is no policy 'fare'"),
        (("--over", "units.tp=2,3"), "--over seed=1 --over units.tp=3: scenario quickstart: units.tp: "),
    ],
)
def test_what_can_be_told_beforehand_is(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric())

    assert mfs("sweep", "quickstart", "--over", "seed=1:2", *arguments) == 2

    assert mfs.err.startswith("mfs: ")
    assert told in mfs.err
    assert "Traceback" not in mfs.err
    assert not (tmp_path / "runs").exists()


def test_an_engine_whose_package_is_missing_says_what_to_install(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    monkeypatch.setitem(sys.modules, "distributed", None)

    for backend, package in (("ray", "ray[default]"), ("dask", "dask[distributed]")):
        assert mfs("sweep", "two-flows", "--over", "seed=1:2", "--backend", backend) == 2
        assert f'to get it: pip install "{package}"' in mfs.err


# --- results ------------------------------------------------------------------------------------


def test_means_are_over_seeds_with_the_least_and_the_most() -> None:
    """SLO attainments 0.5, 0.9 and 1.0: mean 0.8. A measure that no seed has is left out."""
    plan = plan_of("topology.servers=3", "seed=1:3", policies=("fair",))
    nothing = dict.fromkeys(("ttft_mean_s", "ttft_p99_s", "cct_mean_s", "coflow_mean_s", "duration_s"))
    found = [
        {
            "topology.servers": 3,
            "policy": "fair",
            "seed": seed,
            "slo_attainment": met,
            "error": None,
            **nothing,
        }
        for seed, met in ((1, 0.5), (2, 0.9), (3, 1.0))
    ]

    (group,) = groups_of(plan, found)

    assert group == Group(
        values={"topology.servers": 3},
        policy="fair",
        seeds=3,
        spreads={"slo_attainment": Spread(mean=pytest.approx(0.8), least=0.5, most=1.0)},
    )


def test_progress_is_a_line_when_cells_are_over_but_not_too_often() -> None:
    lines: list[str] = []
    display = SweepLines(lines.append)
    for over, wall_s, left_s in ((0, 0.0, None), (1, 1.0, 3.0), (2, 4.0, 4.0), (2, 9.0, 1.0), (4, 9.5, 0.0)):
        display.update(SweepProgress(over=over, failed=over // 2, total=4, wall_s=wall_s, left_s=left_s))

    assert lines == [
        "0/4 cells, 0 s so far",
        "2/4 cells, 4 s so far, 1 failed, about 4 s left",
        "4/4 cells, 10 s so far, 2 failed",
    ]
    assert [rough_time(s) for s in (89, 91, 7140, 12_000)] == ["89 s", "2 min", "119 min", "3 h 20 min"]


# --- side by side -------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from experiments.cli.app import main; main()", "sweep", "two-flows"]


def test_cells_are_the_same_whichever_process_runs_them(tmp_path: Path) -> None:
    for out, jobs in (("one", "1"), ("two", "2")):
        done = subprocess.run(
            [*COMMAND, "--over", "seed=1:2", "--policy", "mfs", "--jobs", jobs, "--out", out],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    names = sorted(path.name for path in (tmp_path / "one" / "cells").iterdir())
    assert len(names) == 2
    for name in names:
        one, two = (tmp_path / out / "cells" / name / "summary.json" for out in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_when_it_is_killed_its_workers_end_and_finished_cells_stay(tmp_path: Path) -> None:
    command = [*COMMAND, "--over", "seed=1:400", "--jobs", "2", "--out", "s"]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while len(finished := list(tmp_path.glob("s/cells/*/cell.json"))) < 2:
            assert time.monotonic() < deadline
            assert sweep.poll() is None
            time.sleep(0.05)
        family = psutil.Process(sweep.pid).children(recursive=True)
    finally:
        sweep.kill()
        sweep.wait()

    _, alive = psutil.wait_procs(family, timeout=20)
    assert len(family) >= 2
    assert alive == []
    assert all(json.loads(path.read_text())["error"] is None for path in finished)

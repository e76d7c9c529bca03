"""`mfs sweep`: how cells are run, continued and summarised, in this process on a toy fabric."""

import csv
import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toy_fabric import Mfs, ToyFabric
from trace_files import mooncake, trace

from experiments.errors import UserError
from experiments.results.code import code_version
from experiments.run.identity import identity_of
from experiments.sweep import page
from experiments.sweep.identity import check_identity
from experiments.sweep.plan import make_plan
from testbed.fabric import RunFailed, RunProgress
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord

TOY = ("sweep", "two-flows", "--fabric", "toy", "--jobs", "1")
SERVED = ("sweep", "quickstart", *TOY[2:], "--policy", "fair", "--set")
"""The toy has flows only, so a cell fails once it has run. The path of a trace follows."""

GRID = ("--over", "topology.servers=3,4", "--over", "seed=1:2", "--policy", "fair", "--policy", "mfs")


@pytest.fixture
def toy(mfs: Mfs) -> ToyFabric:
    fabric = ToyFabric()
    mfs.fabric(fabric)
    return fabric


def rows(directory: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((directory / "sweep.csv").open()))


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
    # Flows have no TTFT: the table shows the duration of the run, the same for every seed.
    assert "two-flows on toy; mean over 2 seeds, least .. most below" in mfs.out
    assert "3 fair 1.00s" in " ".join(mfs.out.split())
    assert mfs.out.splitlines()[-2:] == ["cells: s/sweep.csv", "page: s/sweep.html"]
    assert "8/8 cells" in mfs.err


def test_a_row_has_how_early_s3_was(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    # 1.25 GB take the toy 1 s of the 10 Gb/s of two-flows.
    flow = "workload.flows=[{id: a, src: h1, dst: h2, bytes: 1250000000, deadline_s: 1.25}]"
    assert mfs(*TOY, "--over", "seed=1:2", "--policy", "fair", "--set", flow, "--out", "s") == 0

    assert [float(row["earliness_mean_s"]) for row in rows(tmp_path / "s")] == [0.25, 0.25]


def test_what_holds_for_every_cell_is_said_once(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    """`topology.k` has no effect in either star. The toy draws nothing at random."""
    assert mfs(*TOY, *GRID, "--set", "topology.k=8", "--out", "s") == 0

    notes = [
        "topology.k: no effect, in a star topology",
        "the seed makes no difference: under each policy, all 2 gave the same results",
    ]
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["notes"] == notes
    assert [line for line in mfs.out.splitlines() if line.startswith("note: ")] == [
        f"note: {note}" for note in notes
    ]

    assert mfs(*TOY, "--over", "topology.kind=star,fat-tree", "--set", "topology.k=8", "--out", "t") == 0
    assert "note: " not in mfs.out


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


def _removed(path: Path, other: Path) -> None:
    path.unlink()


def _cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _an_empty_object(path: Path, other: Path) -> None:
    path.write_text("{}")


def _that_of_another_cell(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [_removed, _cut, _an_empty_object, _that_of_another_cell])
@pytest.mark.parametrize("name", ["summary.json", "cell.json"])
def test_a_cell_whose_files_are_damaged_runs_again_and_no_other(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path, name: str, damage: Callable[[Path, Path], None]
) -> None:
    command = (*TOY, "--over", "seed=1:2", "--policy", "fair", "--out", "s")
    assert mfs(*command) == 0
    whole = rows(tmp_path / "s")
    first, second = (tmp_path / "s" / row["cell"] / name for row in whole)
    damage(first, second)
    toy.ran.clear()

    assert mfs(*command) == 0

    assert toy.ran == [("fair", 1)]
    assert "2/2 cells" in mfs.err
    assert [(row["seed"], row["duration_s"]) for row in rows(tmp_path / "s")] == [("1", "1.0"), ("2", "1.0")]


def test_a_cell_whose_whole_directory_is_that_of_another_runs_again(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path
) -> None:
    command = (*TOY, "--over", "topology.servers=3,4", "--policy", "fair", "--out", "s")
    assert mfs(*command) == 0
    first, second = (tmp_path / "s" / row["cell"] for row in rows(tmp_path / "s"))
    for path in first.iterdir():
        path.write_bytes((second / path.name).read_bytes())
    toy.ran.clear()

    assert mfs(*command) == 0
    assert len(toy.ran) == 1
    assert [row["topology.servers"] for row in rows(tmp_path / "s")] == ["3", "4"]


@pytest.mark.parametrize("change", ['"slo_attainment": null', '"faithful": true'])
def test_a_sweep_that_is_not_as_it_was_written_is_not_compared(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path, change: str
) -> None:
    assert mfs(*TOY, "--over", "seed=1:2", "--policy", "fair", "--policy", "mfs", "--out", "s") == 0, mfs.err
    path = tmp_path / "s" / "sweep.json"
    text = path.read_text()
    assert text.count(change) > 0
    path.write_text(text.replace(change, change.partition(":")[0] + ": 0.5", 1))

    for command in ("compare", "table", "plot"):
        assert mfs(command, "s") == 2
        assert "sweep.json: not as it was written, by the digest in it" in mfs.err


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


def test_a_full_disk_after_the_last_cell_says_how_to_go_on_and_nothing_runs_again(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "sweep.html")

    arguments = (*TOY, "--over", "seed=1:2", "--policy", "fair", "--out", "s")

    with monkeypatch.context() as patch:
        patch.setattr(page, "write_page", full)
        assert mfs(*arguments) == 1
    assert mfs.err.splitlines()[-2:] == [
        "mfs: the disk is full: sweep.html",
        f"2 of 2 cells have finished; to go on: mfs {' '.join(arguments)}",
    ]

    toy.ran.clear()
    assert mfs(*arguments) == 0
    assert toy.ran == []
    assert (tmp_path / "s" / "sweep.html").is_file()


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


@pytest.mark.parametrize("command", ["run", "sweep", "capacity"])
def test_where_nothing_can_be_written_another_place_is_suggested(
    mfs: Mfs, tmp_path: Path, command: str
) -> None:
    (tmp_path / "runs").write_text("a file, so nothing can be made in it")
    assert mfs(command, "quickstart", *([] if command != "run" else ["--fabric", "sim"])) == 2
    where = tmp_path / "runs"
    assert mfs.err.endswith(
        f"mfs: {where}: cannot write results there: Not a directory; --out names another\n"
    )


def test_cells_of_other_code_are_not_mixed_with_new_ones(
    mfs: Mfs, toy: ToyFabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mfs(*TOY, "--over", "seed=1", "--out", "s") == 0
    assert mfs(*TOY, "--over", "seed=1", "--out", "s") == 0  # the same again: nothing is left to run

    other = msgspec.structs.replace(code_version(), source="0" * 64, commit="f" * 40, changed=False)
    monkeypatch.setattr("experiments.sweep.directory.code_version", lambda: other)
    monkeypatch.setattr("experiments.run.identity.code_version", lambda: other)
    assert mfs(*TOY, "--over", "seed=1", "--out", "s") == 2
    assert "mfs: --out s: this sweep began with other code or packages (" in mfs.err
    assert f"now commit {'f' * 12})" in mfs.err


def test_cells_of_a_file_that_has_changed_are_not_mixed_with_new_ones(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path
) -> None:
    profile = tmp_path / "gpu.yaml"
    profile.write_text("name: g\npeak_flops: 1e12\nmemory_bytes_per_s: 1e12\nefficiency: 0.5\n")
    sweep = (*TOY, "--set", f"gpu={profile}", "--over", "seed=1", "--out", "s")
    assert mfs(*sweep) == 0
    profile.write_text(profile.read_text().replace("0.5", "0.6"))
    assert mfs(*sweep) == 2
    assert f"mfs: --out s: {profile} has changed since this sweep began" in mfs.err


def test_a_file_that_changes_during_the_sweep_fails_the_cells_that_follow(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "gpu.yaml"
    profile.write_text("name: g\npeak_flops: 1e12\nmemory_bytes_per_s: 1e12\nefficiency: 0.5\n")
    honest = toy.run

    def run(*arguments: Any) -> Any:
        profile.write_text(profile.read_text().replace("0.5", "0.625"))
        return honest(*arguments)

    monkeypatch.setattr(toy, "run", run)
    sweep = (*TOY, "--set", f"gpu={profile}", "--over", "seed=1:2", "--policy", "fair")
    assert mfs(*sweep, "--out", "s") == 1
    errors = [row["error"] for row in rows(tmp_path / "s")]
    assert errors == ["", f"{profile} has changed since the sweep began"]


@pytest.mark.parametrize(
    ("here", "told"),
    [
        ({"source": "0" * 64}, "other code than the sweep began with"),
        ({"plugins": {"mfs.policies: x": "0"}}, "other plug-ins than"),
        ({"packages": {"python": "2.7"}}, "other packages than"),
        ({}, None),
    ],
)
def test_a_cell_is_not_made_by_another_process_with_something_else(
    here: dict[str, Any], told: str | None
) -> None:
    (cell,) = make_plan("two-flows", over=[], policies=["fair"], fabric="sim").cells
    planned = msgspec.structs.replace(identity_of([cell.scenario]), **here)
    if told is None:
        check_identity(cell, planned)
        return
    with pytest.raises(UserError, match=told):
        check_identity(cell, planned)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--fabric", "mininet", "--jobs", "2"), "--fabric mininet: one cell at a time"),
        (("--fabric", "mininet", "--backend", "dask"), "--fabric mininet: one cell at a time"),
        (("--fabric", "mininett"), "--fabric mininett: fabric: 'mininett' is not a known fabric"),
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


def test_a_trace_of_one_row_or_one_coflow_is_enough_for_a_sweep_of_one(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path
) -> None:
    requests = trace(tmp_path, mooncake())
    assert mfs(*SERVED, f"workload.path={requests}", "--set", "workload.requests=1") == 1
    assert toy.ran == [("fair", 1)]

    coflows = tmp_path / "one.txt"
    coflows.write_text("3 1\n1 0 1 0 1 1:1.0\n")
    assert mfs("sweep", "coflow-small", *TOY[2:], "--set", f"workload.path={coflows}") == 0


def test_a_trace_that_is_too_short_is_told_before_any_cell_runs(
    mfs: Mfs, toy: ToyFabric, tmp_path: Path
) -> None:
    requests = trace(tmp_path, *[mooncake(t) for t in range(3)])

    assert mfs(*SERVED, f"workload.path={requests}", "--over", "workload.requests=3,4") == 2

    assert f"--over workload.requests=4: {requests}: " in mfs.err
    assert "workload.requests is 4, but the file has 3 rows" in mfs.err
    assert toy.ran == []


def test_the_first_rows_of_a_trace_may_be_unlike_the_others(mfs: Mfs, toy: ToyFabric, tmp_path: Path) -> None:
    """Two requests at one instant cannot be stretched to a load, and two of three coflows have nothing to
    send. But neither is all that the scenario takes."""
    requests = trace(tmp_path, mooncake(0), mooncake(0), mooncake(700))
    assert mfs(*SERVED, f"workload.path={requests}", "--set", "workload.requests=3") == 1
    assert toy.ran == [("fair", 1)]

    coflows = tmp_path / "three.txt"
    coflows.write_text("3 3\n1 0 1 0 1 0:1.0\n2 0 1 1 1 1:1.0\n3 5 1 0 1 1:1.0\n")
    assert mfs("sweep", "coflow-small", *TOY[2:], "--set", f"workload.path={coflows}") == 0


def test_an_engine_whose_package_is_missing_says_what_to_install(
    mfs: Mfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    monkeypatch.setitem(sys.modules, "distributed", None)

    for backend, package in (("ray", "ray[default]"), ("dask", "dask[distributed]")):
        assert mfs("sweep", "two-flows", "--over", "seed=1:2", "--backend", backend) == 2
        assert f'to get it: pip install "{package}"' in mfs.err


def test_a_directory_that_is_removed_during_the_sweep_is_named(mfs: Mfs) -> None:
    class Removing(ToyFabric):
        def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
            if not self.ran:
                shutil.rmtree("s")
            return super().run(job, progress)

    mfs.fabric(Removing())

    assert mfs(*TOY, *GRID, "--out", "s") == 1
    assert "mfs: the run failed: s was removed or replaced while it went on" in mfs.err
    assert "cells have finished" not in mfs.err

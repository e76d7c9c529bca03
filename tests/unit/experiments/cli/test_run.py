"""`mfs run`: what it prints where, and the files that it writes. Runs use a toy fabric."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_fabric import TWO_FLOWS, Mfs, ToyFabric

from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job
from testbed.record import RunRecord


def test_json_is_all_there_is_on_standard_output(mfs: Mfs) -> None:
    """A flow takes 1.25e9 bytes * 8 / 10 Gb/s = 1 s."""
    code = mfs(*TWO_FLOWS, "--json", "--seed", "9", "--out", "there")

    summary: dict[str, Any] = json.loads(mfs.out)
    assert code == 0
    assert (summary["scenario"], summary["fabric"], summary["seed"]) == ("two-flows", "toy", 9)
    assert summary["scale"] == {"time_dilation": 2.0, "bytes_scale": 0.01}
    assert [(f["id"], f["finish_s"]) for f in summary["runs"][0]["flows"]] == [
        ("fetch", 1.0),
        ("deliver", 1.0),
    ]
    assert "noise of some tool" in mfs.err
    assert "fair: sending 0/2" in mfs.err


def test_without_json_a_table_and_the_path_of_the_report_are_printed(mfs: Mfs, tmp_path: Path) -> None:
    code = mfs(*TWO_FLOWS, "--out", "there")

    assert code == 0
    assert "fair" in mfs.out
    assert mfs.out.splitlines()[-1] == "report: there/report.html"
    assert (tmp_path / "there" / "report.html").is_file()
    assert (tmp_path / "there" / "summary.json").is_file()


def test_the_run_directory_holds_the_scenario_as_it_was_run(mfs: Mfs) -> None:
    assert mfs(*TWO_FLOWS, "--set", "topology.servers=5", "--out", "there") == 0
    assert mfs("scenarios", "there/scenario.yaml") == 0

    assert "servers: 5" in mfs.out
    assert "policies: [fair]" in mfs.out


def test_runs_get_directories_of_their_own(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs(*TWO_FLOWS) == 0
    assert mfs(*TWO_FLOWS) == 0

    made = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(made) == 2
    assert all("-two-flows" in name for name in made)


def test_a_directory_with_something_in_it_is_refused_and_left_alone(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")

    assert mfs(*TWO_FLOWS, "--out", "mine") == 2

    assert "mfs: --out mine: is not empty" in mfs.err
    assert "sending" not in mfs.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]


def test_a_file_in_place_of_the_directory_is_refused(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert mfs(*TWO_FLOWS, "--out", "file") == 2
    assert "is a file" in mfs.err
    assert mfs(*TWO_FLOWS, "--out", "file/below") == 2
    assert "cannot write results there" in mfs.err


def test_a_trace_is_read_before_anything_is_started(mfs: Mfs, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"hash_ids": [1]}\n')

    assert mfs("run", "quickstart", "--fabric", "toy", "--set", "workload.path=t.jsonl") == 2

    assert f"{tmp_path / 't.jsonl'}, line 1: input_length is missing" in mfs.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("trouble", "code"), [(RunFailed("rank 3 died"), 1), (KeyboardInterrupt(), 130)], ids=["failed", "ctrl-c"]
)
def test_policies_that_were_through_keep_their_results(
    mfs: Mfs, tmp_path: Path, trouble: BaseException, code: int
) -> None:
    mfs.fabric(ToyFabric(trouble=trouble, in_policy="mfs"))

    ended = mfs(
        "run", "two-flows", "--fabric", "toy", "--policy", "fair", "--policy", "mfs", "--out", "there"
    )

    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert ended == code
    assert [run["policy"] for run in summary["runs"]] == ["fair"]
    assert (summary["complete"], summary["unfinished"]) == (False, ["mfs"])
    assert mfs.err.splitlines()[-2] == "results of fair are in there; mfs did not finish"
    assert mfs("report", "there") == 0


def test_a_run_of_all_policies_is_complete(mfs: Mfs) -> None:
    assert mfs(*TWO_FLOWS, "--json") == 0

    summary = json.loads(mfs.out)
    assert (summary["complete"], summary["unfinished"]) == (True, [])


def test_a_directory_in_which_another_run_is_at_work_is_refused(mfs: Mfs) -> None:
    """The directory is still empty then, because a run writes its results at its end."""
    Path("shared").mkdir()
    held = os.open("shared", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert mfs("run", "quickstart", "--fabric", "mininet", "--out", "shared") == 2
    finally:
        os.close(held)
    assert "mfs: --out shared: in use by another run" in mfs.err
    assert Path("shared").is_dir()


def test_a_directory_that_is_removed_during_the_run_is_named(mfs: Mfs) -> None:
    class Removing(ToyFabric):
        def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
            shutil.rmtree("there")
            return super().run(job, progress)

    mfs.fabric(Removing())

    assert mfs(*TWO_FLOWS, "--out", "there") == 1
    assert mfs.err.splitlines()[-1] == (
        "mfs: the run failed: there was removed or replaced while it went on, so its results are lost"
    )
    assert not Path("there").exists()

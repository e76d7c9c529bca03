"""A run that ended early goes on from the policies that were through, if it is the same run."""

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from toy_fabric import Mfs, ToyFabric

from experiments.errors import UserError
from experiments.run.identity import identity_of
from experiments.run.kept import Kept, can_go_on
from experiments.scenario.reading import load_scenario, override
from testbed.fabric import RunFailed

TWO = ("run", "two-flows", "--fabric", "toy", "--policy", "fair", "--policy", "mfs", "--out", "there")


def end_early(mfs: Mfs) -> None:
    mfs.fabric(ToyFabric(trouble=RunFailed("rank 3 died"), in_policy="mfs"))
    assert mfs(*TWO) == 1


def test_only_what_is_left_runs_and_the_results_are_those_of_a_run_in_one_go(
    mfs: Mfs, tmp_path: Path
) -> None:
    end_early(mfs)
    fabric = ToyFabric()
    mfs.fabric(fabric)

    assert mfs(*TWO) == 0

    assert [policy for policy, _ in fabric.ran] == ["mfs"]
    assert "fair: kept from before" in mfs.err
    assert mfs(*TWO[:-1], "whole") == 0
    for name in ("summary.json", "flows.parquet", "fair/trace.json.gz", "versions.json"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "there" / "unfinished").exists()


def test_the_command_that_goes_on_is_told(mfs: Mfs, tmp_path: Path) -> None:
    mfs.fabric(ToyFabric(trouble=RunFailed("rank 3 died"), in_policy="mfs"))

    assert mfs(*TWO[:-2]) == 1

    (made,) = (tmp_path / "runs").iterdir()
    told = f"to go on: mfs run two-flows --fabric toy --policy fair --policy mfs --out runs/{made.name}"
    assert mfs.err.splitlines()[-1] == told


@pytest.mark.parametrize(
    ("trouble", "told", "left"),
    [
        (None, "the disk is full: x", []),
        (RunFailed("rank 3 died"), "the run failed: rank 3 died", ["mfs"]),
    ],
    ids=["of all policies", "of those that are through"],
)
def test_it_is_told_too_if_there_is_no_room_for_the_results(
    mfs: Mfs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: BaseException | None,
    told: str,
    left: list[str],
) -> None:
    def full(*_: object, **__: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    mfs.fabric(ToyFabric(trouble=trouble, in_policy="mfs"))
    with monkeypatch.context() as patch:
        patch.setattr("experiments.results.writing.write_run", full)
        assert mfs(*TWO) == 1
    assert mfs.err.splitlines()[-2:] == [f"mfs: {told}", f"to go on: mfs {' '.join(TWO)}"]

    fabric = ToyFabric()
    mfs.fabric(fabric)
    assert mfs(*TWO) == 0
    assert [policy for policy, _ in fabric.ran] == left
    assert (tmp_path / "there" / "summary.json").exists()


def test_a_run_that_ended_with_no_policy_through_leaves_nothing(mfs: Mfs, tmp_path: Path) -> None:
    mfs.fabric(ToyFabric(trouble=RunFailed("rank 3 died")))

    assert mfs(*TWO) == 1

    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("setting", [("--seed", "2"), ("--policy", "stage"), ("--set", "topology.servers=9")])
def test_another_run_does_not_go_on(mfs: Mfs, setting: tuple[str, str]) -> None:
    end_early(mfs)

    assert mfs(*TWO, *setting) == 2

    assert "--out there: holds an unfinished run of another scenario, or with other settings" in mfs.err


def test_other_code_and_other_files_do_not_go_on(tmp_path: Path) -> None:
    scenario = load_scenario("two-flows", [override("policies=[fair, mfs]")])
    made_with = identity_of([scenario])
    kept = Kept(tmp_path)
    kept.begin(scenario, made_with)
    assert can_go_on(tmp_path, scenario, made_with)
    plan = json.loads((tmp_path / "unfinished" / "run.json").read_text())

    def began_with(**changes: object) -> None:
        (tmp_path / "unfinished" / "run.json").write_text(json.dumps(plan | changes))

    began_with(source="0")
    with pytest.raises(UserError, match=r"unfinished run by other code or packages \("):
        can_go_on(tmp_path, scenario, made_with)
    began_with(files={"t.jsonl": "0"})
    read = msgspec.structs.replace(made_with, files={"t.jsonl": "1"})
    with pytest.raises(UserError, match=r"unfinished run, and t\.jsonl has changed since it began"):
        can_go_on(tmp_path, scenario, read)
    (tmp_path / "unfinished" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        can_go_on(tmp_path, scenario, made_with)


def test_a_complete_run_is_not_begun_again(mfs: Mfs) -> None:
    assert mfs(*TWO) == 0
    assert mfs(*TWO) == 2
    assert "--out there: holds a run of this scenario with these settings, which has finished" in mfs.err
    assert "its report is there/report.html, and mfs compare there shows how its policies differ" in mfs.err
    assert "To run again, name another directory, or delete this one first" in mfs.err
    assert mfs(*TWO, "--seed", "7") == 2
    assert "holds a run of another scenario, or with other settings" in mfs.err


def test_a_damaged_record_is_made_again(mfs: Mfs, tmp_path: Path) -> None:
    end_early(mfs)
    (record,) = (tmp_path / "there" / "unfinished").glob("*.record")
    record.write_bytes(record.read_bytes()[:-20])
    fabric = ToyFabric()
    mfs.fabric(fabric)

    assert mfs(*TWO) == 0

    assert [policy for policy, _ in fabric.ran] == ["fair", "mfs"]


def test_only_simulated_policies_run_at_once(mfs: Mfs) -> None:
    assert mfs(*TWO, "--jobs", "2") == 2
    assert "--jobs: the fabric toy runs one policy at a time" in mfs.err


SETTINGS = ("workload.requests=300", "workload.load=0.6")
RUN = [sys.executable, "-c", "from experiments.cli.app import main; main()", "run", "quickstart"]
SLOW = [*RUN, "--fabric", "sim", *(word for text in SETTINGS for word in ("--set", text))]


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
def test_when_it_is_killed_its_processes_end_and_the_next_run_goes_on(
    tmp_path: Path, with_signal: signal.Signals
) -> None:
    """Three policies, two at once: when one is through, the last one and another are running."""
    policies = [word for name in ("fair", "mfs", "stage") for word in ("--policy", name)]
    command = [*SLOW, *policies, "--jobs", "2", "--out", "there"]
    with (tmp_path / "said").open("wb") as said:
        mfs = subprocess.Popen(
            ["env", "--default-signal=INT", *command], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=said
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := list(tmp_path.glob("there/unfinished/*.record"))):
            assert time.monotonic() < deadline
            assert mfs.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.01)
        family = psutil.Process(mfs.pid).children(recursive=True)
        mfs.send_signal(with_signal)
        code = mfs.wait(timeout=60)
    finally:
        mfs.kill()
        mfs.wait()

    assert code == (-9 if with_signal is signal.SIGKILL else 130)
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert len(found) < 3
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("kept from before") >= len(found)
    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert [run["policy"] for run in summary["runs"]] == ["fair", "mfs", "stage"]
    assert summary["complete"]

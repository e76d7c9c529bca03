"""`mfs top` looks at a run from outside and leaves it alone."""

from contextlib import closing
from pathlib import Path

import pytest
from toy_fabric import Mfs

from experiments.live.live_file import LiveFile
from experiments.run.directory import results_directory
from testbed.fabric import RunProgress


@pytest.fixture(autouse=True)
def niced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The priorities that the command asked for, which is run in the process of these tests."""
    asked: list[int] = []
    monkeypatch.setattr("os.nice", asked.append)
    return asked


def test_it_shows_the_newest_run_and_ends_if_asked_to_look_once(
    mfs: Mfs, tmp_path: Path, niced: list[int]
) -> None:
    with (
        results_directory(tmp_path / "runs" / "20260101-a", "a") as directory,
        closing(LiveFile(directory, scenario="a", fabric="sim", policies=("fair",))) as live,
    ):
        live.update("fair", RunProgress(phase="running", done=1, total=2, wall_s=3))
        assert mfs("top", "--once") == 0
        assert niced == [10]
        assert mfs.out.split("\n")[:3] == ["a on sim", "", "fair: running 1/2, 3 s"]


def test_without_a_terminal_it_prints_lines_until_the_run_has_ended(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        results_directory(tmp_path / "r", "a") as directory,
        closing(LiveFile(directory, scenario="a", fabric="sim", policies=("fair",))) as live,
    ):
        live.update("fair", RunProgress(phase="running", done=1, total=2))
        steps = iter((lambda: None, lambda: live.update("fair", RunProgress(phase="ending")), live.close))
        monkeypatch.setattr("time.sleep", lambda seconds: next(steps)())
        assert mfs("top", str(directory)) == 0
    assert mfs.out.splitlines() == ["fair: running 1/2, 0 s", "fair: ending, 0 s"]
    assert "has ended" in mfs.err


def test_ctrl_c_ends_the_watching_and_nothing_else(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with (
        results_directory(tmp_path / "r", "a") as directory,
        closing(LiveFile(directory, scenario="a", fabric="sim", policies=("fair",))) as live,
    ):
        live.update("fair", RunProgress(phase="running"))
        monkeypatch.setattr("time.sleep", interrupted)
        assert mfs("top", str(directory)) == 0
        assert mfs.err == ""
        assert mfs("top", str(directory), "--once") == 0  # the run is still there


def test_without_a_run_it_says_so(mfs: Mfs, tmp_path: Path) -> None:
    assert mfs("top") == 2
    assert "no run is under way in runs/" in mfs.err
    assert mfs("top", "elsewhere") == 2
    assert "no run is under way in elsewhere" in mfs.err

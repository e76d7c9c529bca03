"""A run says how it is in a file that is there while it is under way, and only then."""

from contextlib import closing
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.live.live_file import LIVE_FILE, LiveFile, newest_run, read_live, under_way
from experiments.run.directory import results_directory
from testbed.fabric import RunProgress
from testbed.live import LiveState


def progress(done: int, phase: str = "running") -> RunProgress:
    return RunProgress(phase=phase, done=done, total=9, live=LiveState(time_ns=done))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def live_file(directory: Path, clock: Clock) -> LiveFile:
    return LiveFile(directory, scenario="s", fabric="sim", policies=("fair", "mfs"), clock=clock)


def test_a_watcher_reads_what_the_run_wrote_last(tmp_path: Path) -> None:
    with results_directory(tmp_path / "r", "s") as directory, closing(live_file(directory, Clock())) as live:
        assert read_live(directory) is None
        live.update("mfs", progress(3))
        read = read_live(directory)
        assert read is not None
        assert (read.policies, read.states) == (("fair", "mfs"), {"mfs": progress(3)})


def test_it_is_written_once_a_second_and_when_the_phase_or_the_policy_changes(tmp_path: Path) -> None:
    clock = Clock()
    with results_directory(tmp_path / "r", "s") as directory, closing(live_file(directory, clock)) as live:

        def shown() -> list[tuple[str, str, int]]:
            read = read_live(directory)
            assert read is not None
            return [(policy, state.phase, state.done) for policy, state in read.states.items()]

        live.update("fair", progress(1))
        clock.now_s += 0.9
        live.update("fair", progress(2))
        assert shown() == [("fair", "running", 1)]
        clock.now_s += 0.1
        live.update("fair", progress(3))
        assert shown() == [("fair", "running", 3)]
        live.update("fair", progress(4, "ending"))
        assert shown() == [("fair", "ending", 4)]
        live.update("mfs", progress(0, "ending"))
        assert shown() == [("fair", "ending", 4), ("mfs", "ending", 0)]


def test_nothing_is_left_when_the_run_has_ended(tmp_path: Path) -> None:
    with results_directory(tmp_path / "r", "s") as directory, closing(live_file(directory, Clock())) as live:
        live.update("mfs", progress(3))
        assert [path.name for path in directory.iterdir()] == [LIVE_FILE]
    assert not (tmp_path / "r").exists()  # it was made for the run, and left empty


def test_a_file_that_a_killed_run_left_is_not_a_run_under_way(tmp_path: Path) -> None:
    with results_directory(tmp_path / "r", "s") as directory, closing(live_file(directory, Clock())) as live:
        live.update("mfs", progress(3))
        left = (directory / LIVE_FILE).read_bytes()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / LIVE_FILE).write_bytes(left)
    assert not under_way(tmp_path / "r")
    assert read_live(tmp_path / "r") is None
    assert newest_run(tmp_path) is None
    with results_directory(tmp_path / "r", "s"):  # nor does it keep another run out
        pass


def test_the_newest_run_is_the_one_whose_name_comes_last(tmp_path: Path) -> None:
    with (
        results_directory(tmp_path / "20260102-a", "s") as older,
        results_directory(tmp_path / "20260103-a", "s") as newer,
        closing(live_file(older, Clock())) as first,
        closing(live_file(newer, Clock())) as second,
    ):
        first.update("mfs", progress(1))
        assert newest_run(tmp_path) == older  # the newer one has said nothing yet
        second.update("mfs", progress(1))
        assert newest_run(tmp_path) == newer


def test_a_file_of_another_version_is_named(tmp_path: Path) -> None:
    with results_directory(tmp_path / "r", "s") as directory:
        (directory / LIVE_FILE).write_text('{"scenario": 3}')
        with pytest.raises(UserError, match="another version"):
            read_live(directory)
        (directory / LIVE_FILE).unlink()


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    with closing(live_file(tmp_path / "missing", Clock())) as live:
        live.update("mfs", progress(1))
    assert not (tmp_path / "missing").exists()

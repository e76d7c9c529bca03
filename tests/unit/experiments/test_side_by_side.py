"""Work in processes beside each other: it comes back, so do its errors, and nothing outlives its owner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from experiments.errors import UserError
from experiments.side_by_side import Work, all_of, run_side_by_side
from testbed.fabric import FabricUnavailable, RunFailed, RunProgress

Tell = Callable[[RunProgress], None]


def run(*work: Work, jobs: int = 2) -> tuple[list[str], list[tuple[str, str]]]:
    """Run `work`, called a, b, c ..., and return the names in order of their ends, and what they told."""
    ended: list[str] = []
    told: list[tuple[str, str]] = []
    run_side_by_side(
        list(zip("abcdef", work, strict=False)),
        jobs=jobs,
        progress=lambda name, state: told.append((name, state.phase)),
        through=lambda name, _: ended.append(name),
        meanwhile=lambda: None,
    )
    return ended, told


def leaving(path: Path) -> Work:
    return lambda tell: path.write_text(str(os.getpid()))


def failing(error: BaseException) -> Work:
    def work(tell: Tell) -> None:
        raise error

    return work


def waiting(path: Path, *, most_s: float = 20) -> Work:
    """Waits until `path` is there."""

    def work(tell: Tell) -> None:
        deadline = time.monotonic() + most_s
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        tell(RunProgress(phase="seen" if path.exists() else "missed"))

    return work


def test_work_is_done_in_other_processes_and_tells_how_far_it_is(tmp_path: Path) -> None:
    ended, told = run(leaving(tmp_path / "a"), lambda tell: tell(RunProgress(phase="half")), jobs=1)

    assert (ended, told) == (["a", "b"], [("b", "half")])
    assert (tmp_path / "a").read_text() != str(os.getpid())


def test_as_many_as_are_asked_for_run_at_once(tmp_path: Path) -> None:
    """The first waits for what the second leaves, so they run at once. The third begins after one of them."""
    ended, told = run(waiting(tmp_path / "b"), leaving(tmp_path / "b"), lambda tell: None)

    assert sorted(ended) == ["a", "b", "c"]
    assert told == [("a", "seen")]
    assert run(waiting(tmp_path / "d", most_s=0.2), leaving(tmp_path / "d"), jobs=1)[1] == [("a", "missed")]


def test_what_is_to_be_done_meanwhile_is_done_once_while_they_run(tmp_path: Path) -> None:
    done: list[int] = []

    def meanwhile() -> None:
        done.append(len(psutil.Process().children()))
        (tmp_path / "go").touch()

    work = [("a", waiting(tmp_path / "go")), ("b", waiting(tmp_path / "go"))]
    run_side_by_side(work, jobs=2, progress=lambda *_: None, through=lambda *_: None, meanwhile=meanwhile)

    assert len(done) == 1
    assert done[0] >= 2


def test_what_is_returned_comes_back() -> None:
    found: dict[str, object] = {}

    run_side_by_side(
        [("a", lambda tell: {"x": 1}), ("b", lambda tell: "y" * 1_000_000)],
        jobs=2,
        progress=lambda *_: None,
        through=found.__setitem__,
        meanwhile=lambda: None,
    )

    assert found == {"a": {"x": 1}, "b": "y" * 1_000_000}


@pytest.mark.parametrize(
    "error", [UserError("wrong key"), RunFailed("rank 3 died"), OSError(28, "No space left", "there")]
)
def test_an_error_comes_back_as_it_was_and_ends_the_others(tmp_path: Path, error: Exception) -> None:
    before = psutil.Process().children()

    with pytest.raises(type(error)) as caught:
        run(failing(error), waiting(tmp_path / "never", most_s=600))

    assert str(caught.value) == str(error)
    assert "in work" in str(caught.value.__cause__)  # the traceback in the process
    assert psutil.Process().children() == before


def test_an_error_that_cannot_be_sent_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="FabricUnavailable: the fabric 'toy' cannot run here"):
        run(failing(FabricUnavailable("toy", [])), lambda tell: None)


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    def killed(tell: Tell) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RunFailed, match=r"the process of b was killed by SIGKILL; .*use fewer --jobs"):
        run(lambda tell: None, killed)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_all_are_made_once_and_come_back_in_their_order(jobs: int, tmp_path: Path) -> None:
    """Each leaves a file, which must not be there yet. Two processes make five, so one makes several."""
    names = ["e", "a", "d", "b", "c"]

    def make(name: str) -> str:
        (tmp_path / name).open("x").close()
        return name * 2

    done: list[int] = []
    made = all_of(
        {n: partial(make, n) for n in names}, jobs=jobs, meanwhile=lambda: done.append(0), so_far=done.append
    )

    assert list(made.items()) == [("e", "ee"), ("a", "aa"), ("d", "dd"), ("b", "bb"), ("c", "cc")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert done == [0, 1, 2, 3, 4, 5]


def test_no_process_waits_while_something_is_left_to_make(tmp_path: Path) -> None:
    """The first is through only when the last is, so the other process makes the last three."""

    def first() -> int:
        waiting(tmp_path / "last")(lambda state: None)
        return os.getpid()

    def last() -> int:
        (tmp_path / "last").touch()
        return os.getpid()

    made = all_of({"first": first, "b": os.getpid, "c": os.getpid, "last": last}, jobs=2)

    assert made["b"] == made["c"] == made["last"]
    assert made["first"] not in (made["b"], os.getpid())


def test_an_error_of_one_that_is_made_comes_back() -> None:
    def failing_one() -> int:
        raise UserError("wrong key")

    with pytest.raises(UserError, match="wrong key"):
        all_of({"a": os.getpid, "b": failing_one, "c": os.getpid}, jobs=2)
    assert all_of({}, jobs=2) == {}


def test_a_signal_at_a_fork_is_not_lost() -> None:
    """Libraries run code of theirs at each fork, as `logging` does, and Python ignores exceptions there."""
    code = """
import os, signal
from experiments.side_by_side import run_side_by_side
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
run_side_by_side([("a", lambda tell: None)], jobs=1, progress=print, through=print, meanwhile=lambda: None)
"""
    command = ["env", "--default-signal=INT", sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    assert ended.returncode == -signal.SIGINT, ended.stdout
    assert ended.stderr.endswith("KeyboardInterrupt\n")

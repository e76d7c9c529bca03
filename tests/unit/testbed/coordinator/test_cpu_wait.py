"""How long processes wait for the CPU, as the kernel counts it."""

from pathlib import Path

import pytest

from testbed.coordinator.cpu_wait import CpuWait, CpuWaits


def put(proc: Path, pid: int, *threads: tuple[float, int], name: str = "rank 2") -> None:
    """Milliseconds that each thread waited so far, and its turns."""
    for i, (waited_ms, turns) in enumerate(threads):
        task = proc / str(pid) / "task" / str(pid + i)
        task.mkdir(parents=True, exist_ok=True)
        (task / "schedstat").write_text(f"123456789 {round(waited_ms * 1e6)} {turns}\n")
    (proc / str(pid) / "comm").write_text(f"{name}\n")


def test_the_wait_of_a_process_is_the_mean_over_the_turns_of_all_its_threads(tmp_path: Path) -> None:
    """After the start, one thread waits 300 ms for 300 turns, and another 100 ms for 700: 0.4 ms a turn."""
    put(tmp_path, 7, (5000.0, 10), (0.0, 0))
    waits = CpuWaits({}, tmp_path)
    waits.start()
    put(tmp_path, 7, (5300.0, 310), (100.0, 700))
    assert waits.stop() == CpuWait(process="rank 2", mean_ms=pytest.approx(0.4))


def test_the_process_that_waited_longest_is_named(tmp_path: Path) -> None:
    for pid in (1, 8, 9):
        put(tmp_path, pid, (0.0, 0))
    waits = CpuWaits({1: "process 1"}, tmp_path)
    waits.start()
    put(tmp_path, 1, (900.0, 1000))
    put(tmp_path, 8, (100.0, 1000))
    put(tmp_path, 9, (800.0, 100))  # hardly ever runs
    put(tmp_path, 10, (9999.0, 1000))  # was not there at the start
    assert waits.stop() == CpuWait(process="process 1", mean_ms=pytest.approx(0.9))


def test_a_kernel_that_counts_no_waits_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "7" / "task" / "7").mkdir(parents=True)
    waits = CpuWaits({}, tmp_path)
    waits.start()
    assert waits.stop() is None

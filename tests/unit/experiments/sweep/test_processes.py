"""Cells in parallel, each in a process of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

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


def test_what_lies_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    """Workers are started with `-m` and `-c`, and Python then looks there first."""
    for name in ("queue", "random", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    command = [sys.executable, "-P", *COMMAND[1:], "--over", "seed=1:2", "--policy", "fair", "--jobs", "2"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_when_it_is_killed_its_workers_end_and_finished_cells_stay(tmp_path: Path) -> None:
    command = [*COMMAND, "--over", "seed=1:400", "--jobs", "2", "--out", "s"]
    said = tmp_path / "said"
    with said.open("w") as file:
        sweep = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file)
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
    assert "resource_tracker" not in said.read_text()


def test_when_a_worker_is_killed_the_cells_that_ran_are_named(tmp_path: Path) -> None:
    command = [*COMMAND, "--over", "seed=1:2", "--policy", "mfs", "--jobs", "2", "--out", "s"]
    command += ["--set", "workload.requests=4000"]
    command[command.index("two-flows")] = "quickstart"
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while len(cells := list(tmp_path.glob("s/cells/*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(sweep.pid).children()
        next(one for one in children if any("popen_loky" in word for word in one.cmdline())).kill()
        _, said = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
        sweep.wait()
    assert sweep.returncode == 1
    assert "a worker process died while these cells ran: " in said.decode()
    assert all(cell.name in said.decode() for cell in cells)

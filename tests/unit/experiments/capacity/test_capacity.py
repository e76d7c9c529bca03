"""`mfs capacity` from the command line, on the simulated fabric."""

import csv
import errno
import json
from pathlib import Path

import pytest
from toy_fabric import Mfs

from experiments.capacity import run

SMALL = ("quickstart", "--set", "workload.requests=24", "--load", "0.3:1.6", "--within", "0.3", "--jobs", "1")


def test_a_search_finds_a_rate_and_another_one_takes_its_cells(
    mfs: Mfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = ("--policy", "fair", "--policy", "reverse")
    asked = ("capacity", *SMALL, *policies, "--over", "seed=1:2", "--out", "c")
    assert mfs(*asked, "--attain", "0.9") == 0

    content = json.loads((tmp_path / "c" / "capacity.json").read_text())
    fair, reverse = content["capacities"]
    assert fair["outcome"] == "found"
    assert fair["holds_rps"] <= fair["rate_rps"] <= fair["fails_rps"] <= 1.3 * fair["holds_rps"]
    assert fair["load"] == pytest.approx(fair["rate_rps"] / content["estimated_rps"])
    assert reverse["ratio"] == pytest.approx(reverse["rate_rps"] / fair["rate_rps"])
    assert "highest rate at which 90 % meet their SLO" in mfs.out
    assert (tmp_path / "c" / "capacity.pdf").stat().st_size > 1000
    with (tmp_path / "c" / "capacity.csv").open() as file:
        assert [row["policy"] for row in csv.DictReader(file)] == ["fair", "reverse"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "capacity.csv")

    again = (*asked, "--attain", "0.85")
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_answer", full)
        assert mfs(*again) == 1
    assert "mfs: the disk is full: capacity.csv" in mfs.err
    assert mfs.err.endswith(f"cells have ended; to go on: mfs {' '.join(again)}\n")

    # The cells of the grid are there, and so are some of the others: only new ones run.
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "cells").glob("*/cell.json")}
    assert mfs(*again) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in cells.items())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("two-flows",), "has no requests"),
        ((*SMALL, "--attain", "1.1"), "--attain 1.1"),
        ((*SMALL, "--load", "1"), "write it as LOW:HIGH"),
        ((*SMALL, "--over", "workload.requests=1,2"), "other keys are set with --set"),
        ((*SMALL, "--set", "workload.rate=3"), "the search sets the rate itself"),
        ((*SMALL, "--over", "window=2"), "a generated workload has no windows"),
    ],
)
def test_a_question_without_an_answer_is_refused(mfs: Mfs, options: tuple[str, ...], told: str) -> None:
    assert mfs("capacity", *options) == 2
    assert told in mfs.err

"""What a rehearsal refuses before it begins."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.inventory import rehearsal
from experiments.resolve.jobs import resolve
from experiments.resolve.scale import work_s
from experiments.run.directory import results_directory
from experiments.scenario.reading import load_scenario, override
from testbed.fabric import FabricUnavailable

REQUIREMENTS = rehearsal.requirements


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has what a rehearsal needs, and nothing is rehearsed."""

    def never(wanted: object) -> int:
        raise AssertionError("it begins")

    monkeypatch.setattr(rehearsal, "requirements", list)
    monkeypatch.setattr(rehearsal, "rehearse", never)


def refused(out: Path | None, queues: Path | None) -> str:
    with pytest.raises(UserError) as caught:
        rehearsal.rehearse_scenario(
            "two-flows", policy=["fair"], settings=[], seed=None, out=out, queues=queues, say=print
        )
    return str(caught.value)


def test_a_file_for_queues_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "queues"
    assert refused(tmp_path / "out", missing) == f"--queues {missing}: No such file or directory"
    assert refused(tmp_path / "out", tmp_path) == f"--queues {tmp_path}: Is a directory"


def test_root_that_may_not_make_namespaces_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of a usual container lacks the capabilities."""
    told = "unshare: unshare failed: Operation not permitted\n"
    failed = subprocess.CompletedProcess((), 1, stdout="", stderr=told)
    monkeypatch.setattr(rehearsal, "requirements", REQUIREMENTS)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    with pytest.raises(FabricUnavailable) as caught:
        rehearsal.rehearse_scenario(
            "two-flows", policy=[], settings=[], seed=None, out=None, queues=None, say=print
        )
    [missing] = caught.value.missing
    assert missing.detail == told.strip()
    assert "allow privileged containers" in missing.fix


def test_results_that_are_there_already_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    told = f"--out {tmp_path}: is not empty; name a directory that is new or empty"
    assert refused(tmp_path, None) == told


def test_a_directory_for_results_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wanted = tmp_path / "file" / "out"
    assert refused(wanted, None) == f"{wanted}: cannot write results there: Not a directory"


def test_a_directory_that_another_run_has_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with results_directory(out, "two-flows"):
        assert refused(out, None) == f"--out {out}: in use by another run"


def test_nothing_is_left_of_what_is_refused_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "out", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsal, "rehearse", lambda wanted: 1)
    assert (
        rehearsal.rehearse_scenario(
            "two-flows", policy=[], settings=[], seed=1, out=None, queues=None, say=print
        )
        == 1
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_how_long_it_should_take_is_said_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NIC of 2 Gb/s at 15 Mb/s at most: 133.3, rounded up to two digits."""
    said: list[str] = []

    def rehearse(wanted: object) -> int:
        said.append("it begins")
        return 0

    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    settings = ["workload.requests=4", "topology.nic_gbps=2"]

    def told(name: str, policy: list[str], settings: list[str]) -> list[str]:
        said.clear()
        rehearsal.rehearse_scenario(
            name,
            policy=policy,
            settings=settings,
            seed=None,
            out=tmp_path / "out",
            queues=None,
            say=said.append,
        )
        return said

    scale, duration, end = told("real-layers", ["fair", "mfs"], settings)
    assert (
        "a model second takes 140 wall seconds (so that a NIC runs at 15 Mb/s at most; a policy takes"
        in scale
    )
    match = re.fullmatch(
        r"a model second takes 140 wall seconds: 2 policies should take about (\d+) s, without .*", duration
    )
    assert match is not None
    wanted = resolve(load_scenario("real-layers", [override(text) for text in ("fabric=mininet", *settings)]))
    assert int(match[1]) == pytest.approx(2 * 140 * work_s(wanted.jobs[0]), abs=1)
    assert end == "it begins"
    given = told("two-flows", ["fair"], [])  # it takes 2 model seconds, at a scale that the scenario gives
    assert given == [
        "a model second takes 2 wall seconds: a policy should take about 4 s, without the start of the ranks",
        "it begins",
    ]

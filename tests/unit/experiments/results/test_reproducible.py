"""A simulated run has the same results each time, byte for byte, also if its policies run at once.

What depends on wall time is elsewhere.
"""

import json
from pathlib import Path

import pytest

from experiments.report import run_report
from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS

SETTINGS = ("fabric=sim", "workload.requests=2", 'policies=["fair", "mfs"]')


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    scenario = load_scenario("quickstart", [override(text) for text in SETTINGS])
    with pytest.MonkeyPatch.context() as patch:
        # Its figures take seconds.
        patch.setattr(run_report, "write_report", lambda directories, out, jobs, so_far: out)
        return [
            run_scenario(
                scenario,
                fabric=FABRICS["sim"](),
                out=tmp_path_factory.mktemp("runs") / name,
                progress=lambda policy, state: None,
                command=f"mfs run quickstart --out {name}",
                jobs=jobs,
            )[0]
            for name, jobs in (("one", 1), ("two", 1), ("at-once", 2))
        ]


@pytest.mark.parametrize("other", [1, 2])
def test_summary_and_tables_of_two_runs_are_the_same_bytes(runs: list[Path], other: int) -> None:
    one, two = runs[0], runs[other]
    names = ["summary.json", "scenario.yaml", "versions.json", *(path.name for path in one.glob("*.parquet"))]
    names += [
        f"{policy}/{file}" for policy in ("fair", "mfs") for file in ("trace.json.gz", "distributions.json")
    ]
    assert len(names) == 13
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert not (two / "unfinished").exists()


def test_what_varies_stands_in_the_timing(runs: list[Path]) -> None:
    timing = json.loads((runs[1] / "timing.json").read_text())
    assert timing["command"] == "mfs run quickstart --out two"
    assert list(timing["wall_s"]) == ["fair", "mfs"]
    assert all(seconds > 0 for seconds in timing["wall_s"].values())
    assert timing["started"].endswith("+00:00")
    assert timing["host"].keys() == {"platform", "cpus", "memory_bytes"}
    summary = (runs[1] / "summary.json").read_text()
    assert "wall_s" not in summary
    assert "--out two" not in summary

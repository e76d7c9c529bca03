"""Running a scenario in this process on a toy fabric: what is written, and in which order."""

from pathlib import Path

import pytest
from toy_fabric import ToyFabric

from experiments.report import run_report
from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override


def test_the_report_comes_after_everything_that_it_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: set[str] = set()

    def write_report(directories: list[Path], out: Path, **_: object) -> Path:
        there.update(path.name for path in tmp_path.iterdir())
        assert (directories, out) == ([tmp_path], tmp_path / "report.html")
        return out

    monkeypatch.setattr(run_report, "write_report", write_report)
    scenario = load_scenario("two-flows", [override("policies=[fair]")])

    run_scenario(scenario, fabric=ToyFabric(), out=tmp_path, progress=lambda policy, state: None)

    texts = {"scenario.yaml", "versions.json", "timing.json", "summary.json", "fair", "live.json"}
    tables = {"requests", "flows", "decisions", "spans", "links", "progress"}
    assert there == texts | {f"{table}.parquet" for table in tables}

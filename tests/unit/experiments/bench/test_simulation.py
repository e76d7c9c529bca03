"""`mfs bench sim`: its cases, counts and output."""

import io
import json
import sys

import pytest
from rich.console import Console

from experiments.bench import simulation, simulation_cases
from experiments.bench.simulation import measure, render, run_case
from experiments.bench.simulation_cases import CASES, GROWTH, Case, chosen_cases
from experiments.cli import app as cli
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override

SMALL = Case(name="small", about="two requests", settings=("workload.requests=2",))


def test_the_case_of_2048_gpus_is_what_its_name_says() -> None:
    """256 servers of 8 GPUs. Mixtral-8x22B in units of 8 ranks: two replicas of 4, experts over all 8."""
    case = next(case for case in CASES if case.name == "cluster-2048")
    few = [override(text) for text in ("fabric=sim", *case.settings, "workload.requests=1")]
    job = resolve(load_scenario("quickstart", few)).jobs[0]
    assert len(job.topology.servers) == 256
    assert len(job.placement.ranks) == 2048
    assert {len(group) for name, group in job.placement.groups.items() if ".tp" in name} == {4}
    assert {len(group) for name, group in job.placement.groups.items() if ".ep" in name} == {8}
    assert "workload.requests=1536" in case.settings


@pytest.mark.parametrize("case", [*CASES, *GROWTH], ids=lambda case: case.name)
def test_every_case_is_a_scenario_whose_work_no_estimate_changes(case: Case) -> None:
    scenario = load_scenario("quickstart", [override(text) for text in ("fabric=sim", *case.settings)])
    assert scenario.workload.load is None
    assert scenario.workload.rate is not None


def test_one_run_counts_messages_and_compute_steps() -> None:
    """Mixtral-8x7B has 32 layers. The one request is a batch, and its tokens are on one rank."""
    settings = ("workload.requests=1", "units.prefill_units=1", "units.ranks_per_unit=2")
    one = run_case(Case(name="one", about="", settings=settings), "fair", 1)
    computes = 32 * 2 * 2  # layers, ranks, attention and experts
    messages = 32 * 2 + 32  # one of the two ranks has tokens: dispatch and combine cross once; then S3
    assert one.tasks == computes + messages
    assert one.requests == 1
    assert one.flows == 32 * 2 * 2 + 32
    assert one.faithful
    assert one.wall_s > 0
    assert one.peak_bytes > 10**7
    assert one.rest_s is not None
    assert one.rest_s > 0


def test_a_measurement_runs_each_case_under_each_policy_in_order() -> None:
    started: list[tuple[str, str]] = []
    measured = list(measure([SMALL], ["fair", "mfs"], seed=1, on_start=lambda *what: started.append(what)))
    assert started == [("small", "fair"), ("small", "mfs")]
    assert [(one.case, one.policy) for one in measured] == started
    console = Console(width=200, file=io.StringIO())
    console.print(render(measured))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "small" in text
    assert f"{measured[0].tasks:,}" in text


def test_an_unknown_case_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"--case cluster-1: there is no such case \(cases: moe-64, "):
        chosen_cases(["cluster-1"])


def test_an_unknown_policy_is_refused_as_it_was_written() -> None:
    with pytest.raises(UserError, match=r"^--policy nope: .*there is no policy 'nope'"):
        run_case(SMALL, "nope", seed=1)


def test_the_command_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(simulation_cases, "CASES", (SMALL,))
    monkeypatch.setattr(simulation_cases, "GROWTH", ())
    monkeypatch.setattr(sys, "argv", ["mfs", "bench", "sim", "--policy", "fair", "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["complete"]) == (1, True)
    assert [run["case"] for run in told["runs"]] == ["small"]
    assert told["runs"][0]["events_per_s"] > 0


def test_json_of_an_interrupted_measurement_is_not_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "measure", interrupted)
    monkeypatch.setattr(sys, "argv", ["mfs", "bench", "sim", "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
    told = json.loads(capsys.readouterr().out)
    assert (told["complete"], told["runs"]) == (False, [])

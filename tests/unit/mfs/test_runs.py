"""Running from Python: what the command does, as tables and words, with errors as exceptions."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from toy_fabric import ToyFabric

import mfs
from testbed.fabric import Requirement
from testbed.fabrics import FABRICS

FEW = {"workload.requests": 30, "workload.load": 0.4}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(table: pa.Table, policy: str) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["policy"] == policy]


def test_two_flows_that_share_a_link_are_in_a_table() -> None:
    """Each alone takes 1 s. Under fair sharing, both end at 2 s."""
    run = mfs.run("two-flows", fabric="sim", policies=["fair"])

    assert run.path.parent == Path("runs")
    assert run.flows["finish_ns"].to_pylist() == pytest.approx([2e9, 2e9])
    assert run.flows["stage"].to_pylist() == ["S1", "S3"]


def test_a_run_has_tables_of_all_policies_and_words(capfd: pytest.CaptureFixture[str]) -> None:
    run = mfs.run("quickstart", fabric="sim", policies=["fair", "mfs"], settings=FEW, out="here")

    assert run.path == Path("here")
    assert run.policies == ["fair", "mfs"]
    assert run.faithful
    assert run.measures["requests"].to_pylist() == [30, 30]
    for policy, mean_s in zip(run.policies, run.measures["ttft_mean_s"].to_pylist(), strict=True):
        ttft_s = [row["ttft_ns"] / 1e9 for row in rows_of(run.requests, policy)]
        assert mean_s == pytest.approx(sum(ttft_s) / 30)
    for table in (run.decisions, run.spans, run.links, run.progress):
        assert table.column_names[0] == "policy"
    assert run.verdict.startswith("fair: ")
    assert run.verdict.endswith("\nfaithful: every check is within its bounds")
    assert "quickstart on sim" in str(run)
    assert all(limits is not None and limits["port"] for limits in run.limits.values())
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_only_if_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    mfs.run("two-flows", fabric="sim", policies=["fair"], progress=True)

    out, err = capfd.readouterr()
    assert out == ""
    assert "fair: " in err


def test_the_results_name_the_command_that_gives_them_again() -> None:
    run = mfs.run(
        "two-flows", fabric="sim", policies=["mfs(rho=off)"], settings={"topology.nic_gbps": 20}, seed=3
    )

    timing = json.loads((run.path / "timing.json").read_text())
    assert timing["command"] == (
        "mfs run two-flows --policy 'mfs(rho=off)' --set topology.nic_gbps=20 --fabric sim --seed 3"
    )


def test_a_ceiling_is_in_the_verdict() -> None:
    run = mfs.run("quickstart", fabric="sim", policies=["fair"], settings=FEW, ceiling=True)

    assert "ceiling, a network that takes no time: SLO met 100.0 %" in run.verdict


def test_what_the_results_will_not_show_is_a_warning_at_the_line_of_the_caller() -> None:
    with pytest.warns(UserWarning, match="few requests are measured, 8") as told:
        mfs.run("quickstart", fabric="sim", policies=["fair"], settings={"workload.requests": 8})

    assert {one.filename for one in told} == {__file__}


def test_a_fabric_that_stands_in_for_another_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Requirement(name="root", ok=False, detail="this is user 7")
    monkeypatch.setitem(FABRICS, "mininet", lambda: ToyFabric(needs=(root,)))

    with pytest.warns(UserWarning, match="simulating instead") as told:
        run = mfs.run("two-flows", policies=["fair"])

    assert run.summary["fabric"] == "sim"
    assert told[0].filename == __file__
    with pytest.raises(mfs.FabricUnavailable):
        mfs.run("two-flows", fabric="mininet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "quickstrat"}, "did you mean 'quickstart'"),
        ({"settings": {"workload.lod": 1}}, "--set workload.lod=1"),
        ({"settings": {"workload.load": "0.8"}}, "workload.load"),
        ({"policies": ["fare"]}, "--policy fare"),
        ({"out": "."}, "is not empty"),
    ],
)
def test_what_the_user_can_put_right_is_an_exception(arguments: dict[str, Any], message: str) -> None:
    Path("full").touch()
    with pytest.raises(mfs.UserError, match=message):
        mfs.run(**{"scenario": "quickstart", "fabric": "sim"} | arguments)


def test_a_single_text_is_no_list_of_policies() -> None:
    with pytest.raises(TypeError, match="a list of policies"):
        mfs.run("quickstart", policies="fair")


def test_results_are_loaded_from_their_directory_and_a_report_is_written_where_asked() -> None:
    mfs.run("two-flows", fabric="sim", policies=["fair"], out="here")

    run = mfs.load("here")

    assert isinstance(run, mfs.Run)
    assert run.policies == ["fair"]
    assert run.report("page.html") == Path("page.html")
    assert "two-flows" in Path("page.html").read_text()
    with pytest.raises(mfs.UserError, match="holds no finished run"):
        mfs.load(".")

"""The scale of an emulated run: measured once, shared by all policies, and changed if one is not faithful."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toy_fabric import ToyFabric

from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override
from testbed.fabric import RunFailed, RunProgress
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import Check, Fidelity, RunRecord
from testbed.simulation.run import SimulatedRun

S = 1_000_000_000
FACTS: dict[str, str | int | float] = {
    "cpu_idle_mean": 0.5, "forwarded_when_faster": 1.0, "late_wakeups_p99_ms": 1.0,
}  # fmt: skip


class SlowMachine(ToyFabric):
    """Stands in for the emulated fabric. Permits of `policy` take as long as a flow of `flow_s` wall seconds;
    at most half a flow is faithful."""

    name = "mininet"

    def __init__(self, policy: str = "", flow_s: float = 0.0, trouble_in: str | None = None) -> None:
        super().__init__(trouble=RunFailed("rank 3 died") if trouble_in else None, in_policy=trouble_in)
        self._slow = policy
        self._flow_s = flow_s
        self.scales: list[tuple[str, float]] = []
        """Policy and time dilation of each run; `rehearsal` for those."""

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        self.scales.append(("rehearsal" if job.probe_faster else job.policy, job.scale.time_dilation))
        record = (ToyFabric() if job.probe_faster else super()).run(job, progress)
        value = self._flow_s / job.scale.time_dilation if job.policy == self._slow else 0.0
        ok = value <= 0.5
        check = Check(
            name="permits", value=value, bound="<= 0.5", unit="", ok=ok, advice="",
            dilation=None if ok else value / 0.5,
        )  # fmt: skip
        return msgspec.structs.replace(
            record,
            facts=FACTS,
            fidelity=Fidelity(faithful=ok, checks=(check,)),
            permit_latency_ms=(1.0,) * 30,
        )


def run(fabric: SlowMachine, out: Path, *settings: str, retries: int = 0) -> tuple[dict[str, Any], list[str]]:
    told: list[str] = []
    texts = ("fabric=mininet", "policies=[fair, mfs]", "scale.wall_s=10", "scale.most_wall_s=1000", *settings)
    open_ = ("scale.time_dilation=null", "scale.bytes_scale=null")
    scenario = load_scenario("two-flows", [override(text) for text in (*open_, *texts)])
    _, summary = run_scenario(
        scenario, fabric=fabric, out=out, progress=lambda *_: None, tell=told.append, retries=retries
    )
    return summary, told


def test_all_policies_share_the_scale_that_was_chosen_from_one_rehearsal(tmp_path: Path) -> None:
    fabric = SlowMachine()
    summary, told = run(fabric, tmp_path)
    names, scales = zip(*fabric.scales, strict=True)
    assert names == ("rehearsal", "fair", "mfs")
    assert len({*scales[1:], summary["scale"]["time_dilation"]}) == 1
    assert told == summary["scale_notes"]
    assert told[0].startswith("measured before the run, under mfs: permits take 1 ms (p50)")
    assert set(told) <= set(summary["notes"])
    assert summary["machine"]["permit_p50_ms"] == 1.0
    assert json.loads((tmp_path / "versions.json").read_text())["machine"] == summary["machine"]


@pytest.mark.parametrize(
    "settings", [("scale.time_dilation=9", "scale.link_mbps=9"), ("scale.rehearse=false",)]
)
def test_there_is_no_rehearsal_for_a_scale_that_is_given_or_not_to_be_measured(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    fabric = SlowMachine()
    summary, _ = run(fabric, tmp_path, *settings)
    assert [name for name, _ in fabric.scales] == ["fair", "mfs"]
    assert summary["machine"] is None


def test_a_run_goes_on_at_the_scale_of_its_first_part(tmp_path: Path) -> None:
    first = SlowMachine(trouble_in="mfs")
    with pytest.raises(RunFailed):
        run(first, tmp_path)
    then = SlowMachine()
    summary, _ = run(then, tmp_path)
    assert then.scales == [("mfs", first.scales[1][1])]
    assert summary["machine"]["cpu_idle"] == 0.5
    assert not (tmp_path / "unfinished").exists()


def given(out: Path, *, retries: int, flow_s: float = 30.0) -> tuple[SlowMachine, dict[str, Any], list[str]]:
    """At a dilation of 10, permits of `mfs` take three flows, which is six times too long."""
    fabric = SlowMachine("mfs", flow_s)
    summary, told = run(fabric, out, "scale.time_dilation=10", "scale.bytes_scale=0.02", retries=retries)
    return fabric, summary, told


def test_an_unfaithful_run_says_which_scale_would_do(tmp_path: Path) -> None:
    """10 * 6 * 1.25 = 75."""
    fabric, summary, _ = given(tmp_path, retries=0)
    assert [name for name, _ in fabric.scales] == ["fair", "mfs"]
    assert summary["faithful"] is False
    assert summary["faithful_with"] == ["scale.time_dilation=75", "scale.bytes_scale=0.15"]


def test_with_tries_left_all_policies_run_again_there(tmp_path: Path) -> None:
    fabric, summary, told = given(tmp_path, retries=2)
    assert fabric.scales == [("fair", 10.0), ("mfs", 10.0), ("fair", 75.0), ("mfs", 75.0)]
    assert summary["faithful"] is True
    assert summary["faithful_with"] == []
    assert summary["scale"] == {"time_dilation": 75.0, "bytes_scale": 0.15}
    assert told[-1] == summary["scale_notes"][-1]
    assert told[-1] == (
        "begun again: at time x10, bytes x0.02, mfs was not faithful (permits); now time x75, bytes x0.15"
    )


def test_the_last_try_is_kept_even_if_it_is_not_faithful(tmp_path: Path) -> None:
    """The wall time is bounded, so the second try is not long enough, and a third would be no longer."""
    fabric, summary, _ = given(tmp_path, retries=5, flow_s=1e6)
    dilations = [dilation for name, dilation in fabric.scales if name == "mfs"]
    assert len(dilations) == 2
    assert summary["scale"]["time_dilation"] == dilations[1]
    assert summary["faithful"] is False


class ScaledLinks(SlowMachine):
    """Simulates, and counts on links as the emulated fabric does: `bytes_scale` bytes for each model byte.

    Its permits take so long that the rehearsal chooses another scale than the usual one.
    """

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        record = SimulatedRun(job, progress).run()
        links = tuple(
            msgspec.structs.replace(
                one, sent_bytes=tuple(round(sent * job.scale.bytes_scale) for sent in one.sent_bytes)
            )
            for one in record.links
        )
        return msgspec.structs.replace(record, links=links, facts=FACTS, permit_latency_ms=(5.0,) * 30)


def test_how_busy_a_port_was_does_not_depend_on_the_scale_that_is_chosen(tmp_path: Path) -> None:
    texts = ("policies=[fair]", "workload.requests=6")
    busy = []
    for name, fabric in (("sim", FABRICS["sim"]()), ("mininet", ScaledLinks())):
        scenario = load_scenario("quickstart", [override(text) for text in (f"fabric={name}", *texts)])
        _, summary = run_scenario(scenario, fabric=fabric, out=tmp_path / name, progress=lambda *_: None)
        [run_of_it] = summary["runs"]
        busy.append(run_of_it["limits"]["port_busy"]["mean"])
    assert busy[1] == pytest.approx(busy[0], rel=1e-3)

"""The ceiling: the same requests with a network that takes no time, and the gap that policies close."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from toy_fabric import Mfs, ToyFabric

from experiments.resolve.jobs import resolve
from experiments.results.gap import Ceiling, Reached, gap_lines, gaps
from experiments.run.ceiling import ceilings, without_network
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord


def jobs(*settings: str) -> tuple[Job, ...]:
    texts = ('policies=["fair","mfs"]', "fabric=sim", "workload.requests=16", *settings)
    return resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs


def played(job: Job) -> RunRecord:
    return FABRICS["sim"]().run(job, lambda state: None)


def mean_ttft_ns(record: RunRecord) -> float:
    return sum(row.ttft_ns or 0 for row in record.requests) / len(record.requests)


def test_without_a_network_a_request_alone_takes_its_compute_and_its_decode_step() -> None:
    """A single request: its TTFT is the compute of its ranks, one after the other, and a decode step."""
    (job, _) = jobs("workload.requests=1")
    record = played(without_network(job))
    (row,) = record.requests
    took: dict[int, int] = {}
    for span in played(without_network(job)).spans:
        if span.kind in ("compute", "decode"):
            took[span.rank] = took.get(span.rank, 0) + span.end_ns - span.start_ns
    decode = took.pop(row.decode_rank if row.decode_rank is not None else -1)
    assert row.ttft_ns == pytest.approx(max(took.values()) + decode, rel=1e-3)
    assert sum(flow.finish_ns - flow.permit_ns for flow in record.flows) < 1e-3 * row.ttft_ns


def test_without_a_network_there_is_no_latency_of_it() -> None:
    (job, _) = jobs("workload.requests=1", "topology.latency_us=1000")
    assert {link.latency_ns for link in job.topology.links} == {1_000_000}
    assert {link.latency_ns for link in without_network(job).topology.links} == {0}


def test_a_ceiling_is_above_what_its_policy_reached() -> None:
    made = jobs()
    records = [played(job) for job in made]
    found = ceilings(made, records, lambda named: {name: played(job) for name, job in named.items()})
    own = found.own_batches.ttft_mean_s
    assert own is not None
    for record in records:
        same = found.same_batches[record.policy].ttft_mean_s
        assert same is not None
        assert own <= same < mean_ttft_ns(record) / 1e9
    assert found.reasons == {}


def test_batches_that_cannot_be_formed_again_are_told(mfs: Mfs, tmp_path: Path) -> None:
    words = ("--set", "workload.requests=6", "--set", "serving.chunk_tokens=512")
    out = tmp_path / "out"
    assert mfs("run", "quickstart", "--fabric", "sim", *words, "--ceiling", "--out", str(out)) == 0
    found = json.loads((out / "summary.json").read_text())["ceiling"]
    assert found["same_batches"] == {}
    assert "split prompts" in found["reasons"]["mfs"]
    assert "split prompts" in " ".join(mfs.out.split())
    assert "split prompts" in (out / "report.html").read_text()


def reached(slo: float, ttft: float) -> Reached:
    return Reached(slo_attainment=slo, ttft_mean_s=ttft)


def run(policy: str, slo: float, ttft: float) -> dict[str, object]:
    return {"policy": policy, "slo_attainment": slo, "ttft_s": {"mean": ttft}}


def test_the_share_of_the_gap_by_hand() -> None:
    """From 60 % to 100 % and from 0.3 s to 0.1 s: 70 % is a quarter, 0.15 s three quarters."""
    ceiling = Ceiling(own_batches=reached(1.0, 0.1), same_batches={"mfs": reached(0.9, 0.12)}, reasons={})
    found = gaps(ceiling, [run("sjf", 0.5, 0.35), run("fair", 0.6, 0.3), run("mfs", 0.7, 0.15)])
    assert found["reference"] == "fair"
    assert found["closed"]["mfs"] == pytest.approx({"slo_attainment": 0.25, "ttft_mean_s": 0.75})
    assert found["closed"]["sjf"] == pytest.approx({"slo_attainment": -0.25, "ttft_mean_s": -0.25})
    assert found["closed"]["fair"] == {"slo_attainment": 0.0, "ttft_mean_s": 0.0}
    lines = list(gap_lines({"ceiling": found}))
    assert re.search(r"mfs closes 25% of the gap in SLO met, 75% in mean TTFT; .* 90\.0 %", lines[-1])


def test_without_a_gap_none_is_closed() -> None:
    ceiling = Ceiling(own_batches=reached(0.9, 0.0999), same_batches={}, reasons={})
    found = gaps(ceiling, [run("stage", 0.895, 0.1), run("mfs", 0.9, 0.0999)])
    assert found["reference"] == "stage"
    assert found["closed"]["mfs"] == {"slo_attainment": None, "ttft_mean_s": None}


def test_a_run_with_a_ceiling_has_the_same_results_otherwise(mfs: Mfs, tmp_path: Path) -> None:
    words = ("run", "quickstart", "--fabric", "sim", "--set", "workload.requests=6")
    assert mfs(*words, "--out", str(tmp_path / "a")) == 0
    assert mfs(*words, "--ceiling", "--out", str(tmp_path / "b")) == 0
    plain, with_ceiling = (json.loads((tmp_path / name / "summary.json").read_text()) for name in "ab")
    assert plain["ceiling"] is None
    assert with_ceiling | {"ceiling": None} == plain


@pytest.mark.parametrize(
    ("scenario", "fabric", "reason"),
    [("two-flows", "sim", "single flows"), ("quickstart", "toy", "use --fabric sim")],
)
def test_where_there_is_no_ceiling(mfs: Mfs, tmp_path: Path, scenario: str, fabric: str, reason: str) -> None:
    mfs.fabric(ToyFabric())
    assert mfs("run", scenario, "--fabric", fabric, "--ceiling", "--out", str(tmp_path / "out")) == 2
    assert reason in mfs.err


def test_the_network_of_a_machine_goes_and_its_compute_stays() -> None:
    (job, _) = jobs()
    slow = msgspec.structs.replace(job.simulation.overheads, goodput=0.5, transfer_ns=7, compute_ns=9)
    job = msgspec.structs.replace(job, simulation=msgspec.structs.replace(job.simulation, overheads=slow))
    got = without_network(job).simulation.overheads
    assert (got.goodput, got.transfer_ns, got.compute_ns) == (1.0, 0, 9)

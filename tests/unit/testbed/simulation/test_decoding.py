"""Decode workers in simulated runs: their own traffic, and the time per output token."""

import json
from pathlib import Path

import pytest

from controller.flow import Stage
from experiments.resolve.jobs import resolve
from experiments.results.measures import measure
from experiments.results.readable_numbers import duration
from experiments.run.all_jobs import run_job
from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord
from testbed.serving.decoding import BACKGROUND_PREFIX

SMALL = ("workload.requests=6", "units.decode_ranks=3", "topology.servers=11")


def run(policy: str, *settings: str) -> tuple[Job, RunRecord]:
    texts = (*SMALL, *settings, f"policies=[{policy}]", "fabric=sim")
    (job,) = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs
    return job, run_job(FABRICS["sim"](), job, lambda _: None)


@pytest.mark.parametrize("policy", ["fair", "mfs", "edf", "sebf", "pias", "llf"])
def test_their_traffic_comes_a_step_after_the_other_until_the_last_first_token(policy: str) -> None:
    """32 layers, dispatch and combine of 2 experts x 8,192 bytes for 20 requests each, a third to each:

    2 x 32 x 20 x 16,384 // 3 = 6,990,506 bytes.
    """
    job, record = run(policy, "serving.decode_background=20")

    flows = [flow for flow in record.flows if flow.id.startswith(BACKGROUND_PREFIX)]
    steps = sorted({flow.submit_ns for flow in flows})
    assert all(flow.size_bytes == 6_990_506 and flow.stage is Stage.COLLECTIVE for flow in flows)
    assert len(flows) == 6 * len(steps)  # three workers, each to the other two
    assert {flow.src for flow in flows} == set(job.placement.decode)
    ends = [max(flow.finish_ns for flow in flows if flow.submit_ns == step) for step in steps]
    assert all(end <= later for end, later in zip(ends, steps[1:], strict=False))
    last_token = max(row.first_token_ns or 0 for row in record.requests)
    assert len(steps) > 5
    assert steps[-1] <= last_token
    assert record.fidelity.faithful


def test_it_is_in_the_way_of_p2d_and_in_no_measure_of_prefill() -> None:
    _, quiet = run("fair")
    _, busy = run("fair", "serving.decode_background=2000")

    before, after = measure(quiet).flows, measure(busy).flows
    assert after.stage_ns[Stage.P2D].mean() > 1.2 * before.stage_ns[Stage.P2D].mean()
    assert len(after.stage_ns[Stage.COLLECTIVE]) == len(before.stage_ns[Stage.COLLECTIVE])
    assert len(after.collective_ns) == len(before.collective_ns)
    assert after.coflow_ns == {}


def test_a_dense_model_has_none() -> None:
    _, record = run("fair", "model=llama-3-8b", "serving.decode_background=20")

    assert not any(flow.id.startswith(BACKGROUND_PREFIX) for flow in record.flows)


def test_the_time_per_output_token_is_told_where_it_is_modelled() -> None:
    """A worker with one request reads the active weights and the KV of the tokens so far for each token."""
    _, without = run("fair")
    assert all(row.last_token_ns is None and row.tpot_ns is None for row in without.requests)

    job, record = run("fair", "serving.decode_batch=1")
    for row in record.requests:
        assert row.first_token_ns is not None
        assert row.last_token_ns is not None
        assert row.output_tokens == {r.id: r.output_tokens for r in job.requests}[row.request]
    by_worker = {
        row.decode_rank: row for row in sorted(record.requests, key=lambda r: -(r.first_token_ns or 0))
    }
    for row in by_worker.values():  # the first on each worker had it for itself
        assert row.tpot_ns is not None
        middle = row.prompt_tokens + row.output_tokens / 2
        active = 2 * 32 * (2 * 4096 * 128 * 40 + 2 * 3 * 4096 * 14336 + 4096 * 8)
        expected_s = (active + middle * 131_072) / 2039e9
        assert row.tpot_ns / 1e9 == pytest.approx(expected_s, rel=0.01)


def test_the_summary_has_it() -> None:
    from experiments.results.summary import summarise_run

    _, record = run("fair", "serving.decode_batch=8")
    summary = json.loads(json.dumps(summarise_run(record, measure(record))))
    assert 0.01 < summary["tpot_s"]["mean"] < 0.1
    assert summary["tpot_s"]["p50"] <= summary["tpot_s"]["p99"]


def test_the_report_has_it(tmp_path: Path) -> None:
    texts = (*SMALL, "serving.decode_batch=8", "policies=[fair]", "fabric=sim")
    scenario = load_scenario("quickstart", [override(text) for text in texts])
    directory, summary = run_scenario(
        scenario, fabric=FABRICS["sim"](), out=tmp_path / "run", progress=lambda *_: None
    )
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert "time per output token</th>" in page
    assert duration(summary["runs"][0]["tpot_s"]["mean"]) in page


@pytest.mark.parametrize("policy", ["fair", "mfs"])
def test_the_first_token_of_a_worker_of_several_ranks_waits_for_all_of_them(policy: str) -> None:
    """8 KV heads: 2 on each prefill rank of tp 4, and 4 on each decode rank of tp 2. So each decode rank has
    two senders, and in 32 layers gets half of the 131,072 B that a token's KV has.
    """
    job, record = run(
        policy, "units.tp=4", "units.decode_ranks=4", "units.decode_tp=2", "topology.servers=12"
    )
    workers = job.placement.decode_workers
    assert workers == ((8, 9), (10, 11))
    assert {row.decode_rank for row in record.requests} == {8, 10}
    for row in record.requests:
        flows = [f for f in record.flows if f.request == row.request and f.stage is Stage.P2D]
        worker = next(worker for worker in workers if worker[0] == row.decode_rank)
        assert {f.dst for f in flows} == set(worker)
        for rank in worker:
            here = [f.size_bytes for f in flows if f.dst == rank]
            assert len(here) == 32 * 2
            assert sum(here) == row.prompt_tokens * 131_072 // 2
        assert row.p2d_end_ns == max(f.finish_ns for f in flows)
        spans = [span for span in record.spans if span.label == f"request {row.request}"]
        assert sorted(span.rank for span in spans) == list(worker)
        assert {span.start_ns for span in spans} == {row.p2d_end_ns}
        assert {span.end_ns for span in spans} == {row.first_token_ns}
    assert record.fidelity.faithful

"""Warm-up requests are served and count in no measure; with several SLO classes, each is measured, too."""

import json
from pathlib import Path
from typing import Any

import pytest
from result_rows import MS, flow_row, request_row, span_row
from rich.console import Console

from controller.flow import Stage
from experiments.results.measures import Measures, measure
from experiments.results.summary import summarise_run
from experiments.results.terminal import render_summary
from experiments.run.all_jobs import run_job
from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override
from testbed.fabric import RunFailed
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import Fidelity, RequestRow, RunRecord

WARM = request_row(request=0, warmup=True, arrival_ns=0, ttft_ns=900 * MS)
FIRST = request_row(request=1, arrival_ns=50 * MS, ttft_ns=80 * MS, batch="b1")
LATE = request_row(request=2, arrival_ns=60 * MS, ttft_ns=120 * MS, batch="b1")


def record(requests: tuple[RequestRow, ...], **rows: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "policy": "fair",
        "fabric": "sim",
        "requests": requests,
        "flows": (),
        "decisions": (),
        "spans": (),
        "links": (),
        "progress": (),
        "permit_latency_ms": (),
        "fidelity": Fidelity(faithful=True, checks=()),
        "facts": {},
        "queues": {},
        "duration_ns": 1,
        "wall_s": 0.0,
    }
    return RunRecord(**(fields | rows))


def summary_of(made: RunRecord) -> dict[str, Any]:
    return summarise_run(made, measure(made))


def measured(*flows: Any, spans: tuple[Any, ...] = ()) -> Measures:
    return measure(record((WARM, FIRST, LATE), flows=flows, spans=spans))


# --- warm-up ----------------------------------------------------------------------------------------


def test_requests_that_warm_up_are_counted_and_not_measured() -> None:
    """TTFTs of 80 and 120 ms with an SLO of 100 ms: half are met. The 900 ms do not count."""
    run = summary_of(record((WARM, FIRST, LATE)))

    assert (run["requests"], run["completed"], run["slo_attainment"]) == (2, 2, 0.5)
    assert run["ttft_s"]["mean"] == pytest.approx(0.1)
    assert (run["counts"]["arrived"], run["counts"]["warmup"]) == (3, 1)


def test_flows_from_before_the_first_request_that_counts_are_left_out() -> None:
    """Request 1 arrives at 50 ms. Of the S1 flows of 3, 5 and 7 ms, those submitted from then on count."""
    found = measured(
        *[
            flow_row(
                stage=Stage.KV_REUSE, submit_ns=submit * MS, finish_ns=(submit + took) * MS, promotions=1
            )
            for submit, took in ((49, 3), (50, 5), (51, 7))
        ]
    ).flows

    assert sorted(found.stage_ns[Stage.KV_REUSE]) == [5 * MS, 7 * MS]
    assert found.promotions == 2


def test_flows_of_a_request_that_warms_up_are_left_out_however_late() -> None:
    late = {"submit_ns": 70 * MS, "finish_ns": 80 * MS, "deadline_ns": 100 * MS}
    found = measured(flow_row(request=0, **late), flow_row(request=1, **late)).flows

    assert found.stage_ns[Stage.P2D].tolist() == [10 * MS]
    assert found.p2d_slack_ns.tolist() == [20 * MS]


def test_a_collective_counts_whole_by_when_its_last_member_was_ready() -> None:
    """c0 is ready at 49 ms, before request 1 arrives. c1 is ready at 52 ms and ends 8 ms later, at 60."""
    shares = [("c0", 40, 55), ("c0", 49, 56), ("c1", 48, 59), ("c1", 52, 60)]
    found = measured(
        *[
            flow_row(
                stage=Stage.COLLECTIVE, coflow=name, batch="b1", submit_ns=submit * MS, finish_ns=finish * MS
            )
            for name, submit, finish in shares
        ]
    ).flows

    assert found.collective_ns.tolist() == [8 * MS]


def test_waits_for_s1_that_began_in_the_warm_up_are_left_out() -> None:
    spans = (span_row(0, "s1_wait", 40, 58, layer=0), span_row(0, "s1_wait", 60, 64, layer=1))

    assert measured(spans=spans).exposed_s1.wait_ns.tolist() == [4 * MS]


def test_payloads_are_checked_in_the_warm_up_too() -> None:
    found = measured(flow_row(submit_ns=0, verified=False), flow_row(submit_ns=60 * MS, verified=True)).flows

    assert (found.checked, found.failed) == (2, 1)


def test_without_a_warm_up_everything_counts() -> None:
    """The first request arrives at 50 ms, but a flow before that is measured as well."""
    found = measure(record((FIRST, LATE), flows=(flow_row(submit_ns=0, finish_ns=MS),)))

    assert found.flows.stage_ns[Stage.P2D].tolist() == [MS]


# --- runs -------------------------------------------------------------------------------------------


def bailian_trace(folder: Path) -> Path:
    """Write a trace of twelve requests, half a second apart. A third are of type "file"."""
    path = folder / "trace.jsonl"
    rows = (
        {
            "chat_id": i,
            "parent_chat_id": -1,
            "timestamp": 0.5 * i,
            "input_length": 3200,
            "output_length": 5,
            "type": "file" if i % 3 == 0 else "text",
            "turn": 1,
            "hash_ids": [*range(100), *range(100 * (i + 1), 100 * (i + 2))],
        }
        for i in range(12)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(folder: Path, *settings: str) -> tuple[Path, dict[str, Any]]:
    texts = ["fabric=sim", 'policies=["fair"]', *settings]
    scenario = load_scenario("quickstart", [override(text) for text in texts])
    return run_scenario(
        scenario, fabric=FABRICS["sim"](), out=folder / "out", progress=lambda policy, progress: None
    )


def test_classes_of_a_trace_have_their_slos_and_their_own_lines(tmp_path: Path) -> None:
    path = bailian_trace(tmp_path)

    out, summary = run(
        tmp_path,
        f"workload.path={path}",
        "workload.requests=12",
        "workload.class_from=type",
        "slo.classes={file: {absolute_s: 0.000001}}",
    )

    (found,) = summary["runs"]
    assert {name: one["requests"] for name, one in found["classes"].items()} == {"file": 4, "text": 8}
    # No request meets an SLO of a microsecond. The class "text" has the default SLO.
    assert found["classes"]["file"]["slo_attainment"] == 0
    assert found["slo_attainment"] == pytest.approx(found["classes"]["text"]["slo_attainment"] * 8 / 12)
    console = Console(width=120, record=True, file=(tmp_path / "console").open("w"))
    console.print(render_summary(summary))
    lines = console.export_text().splitlines()
    assert any(line.split()[:2] == ["file", "4/4"] for line in lines)
    assert any(line.split()[:2] == ["text", "8/8"] for line in lines)
    assert "&emsp;file" in (out / "report.html").read_text()


def test_a_run_leaves_its_warm_up_out_and_says_so(tmp_path: Path) -> None:
    out, summary = run(tmp_path, "workload.requests=12", "workload.warmup=4")

    (found,) = summary["runs"]
    assert (found["requests"], found["completed"]) == (8, 8)
    assert (found["counts"]["arrived"], found["counts"]["warmup"]) == (12, 4)
    console = Console(width=120, record=True, file=(tmp_path / "console").open("w"))
    console.print(render_summary(summary))
    assert "left out: the first 4 requests (warm-up)" in console.export_text()
    assert "Left out: the first 4 requests" in (out / "report.html").read_text()


def test_requests_of_the_warm_up_run_as_they_would_without_one(tmp_path: Path) -> None:
    """The same requests have the same TTFT, whether the first ones count or not."""
    from experiments.results.reading import read_run

    with_one, _ = run(tmp_path / "a", "workload.requests=12", "workload.warmup=4")
    without, _ = run(tmp_path / "b", "workload.requests=12")

    marked = read_run(with_one).tables["fair"].requests
    assert [row.warmup for row in sorted(marked, key=lambda row: row.request)] == [True] * 4 + [False] * 8
    plain = read_run(without).tables["fair"].requests
    assert {r.request: r.ttft_ns for r in marked} == {r.request: r.ttft_ns for r in plain}


class LosesOne:
    """A fabric that loses a request."""

    name = "sim"

    def requirements(self) -> list[Any]:
        return []

    def run(self, job: Job, progress: Any) -> RunRecord:
        whole = FABRICS["sim"]().run(job, progress)
        return record(tuple(whole.requests)[1:])


def test_a_run_that_loses_a_request_fails() -> None:
    from experiments.resolve.jobs import resolve

    scenario = load_scenario("quickstart", [override("fabric=sim"), override("workload.requests=3")])

    with pytest.raises(RunFailed, match="3 requests arrived, 2 were accounted for"):
        run_job(LosesOne(), resolve(scenario).jobs[0], lambda progress: None)

"""`mfs explain` says in sentences what happened to a flow or a request."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from record_factory import micro_record
from result_rows import MS, flow_row, request_row, span_row

from controller.flow import Decision, Level, Stage
from experiments.cli import app as cli
from experiments.errors import UserError
from experiments.explain.explain import NotInRun, explain_flow, explain_request
from experiments.explain.flow_story import flow_story
from experiments.results.parquet import write_tables
from testbed.record import FlowRow, RequestRow, RunRecord, SpanRow

P2D = "b3.r12.l4.s3.0-8"
SHARE = "b3.l4.dispatch.0"


@dataclass(frozen=True, kw_only=True)
class Rows:
    flows: tuple[FlowRow, ...]
    requests: tuple[RequestRow, ...] = ()
    decisions: tuple[Decision, ...] = ()
    spans: tuple[SpanRow, ...] = ()


def record(policy: str, rows: Rows) -> RunRecord:
    base = micro_record(policy)
    return RunRecord(
        policy=policy,
        fabric=base.fabric,
        requests=rows.requests,
        flows=rows.flows,
        decisions=rows.decisions,
        spans=rows.spans,
        links=(),
        progress=(),
        permit_latency_ms=(),
        fidelity=base.fidelity,
        facts={},
        queues={},
        duration_ns=1_000 * MS,
        wall_s=1.0,
    )


def written(out: Path, **policies: Rows) -> Path:
    out.mkdir()
    write_tables(out, [record(name, rows) for name, rows in policies.items()])
    summary = {"runs": [{"policy": name} for name in policies]}
    (out / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (out / "versions.json").write_text("{}", encoding="utf-8")  # as a run from before there were digests
    return out


def decision(at_ms: int, to: Level, reason: str, *, was: Level | None = None, flow: str = P2D) -> Decision:
    return Decision(time_ns=at_ms * MS, flow=flow, level_from=was, level_to=to, reason=reason)


def delivery(**changes: object) -> FlowRow:
    """Submitted at 100 ms, permitted at 103 (2 ms for a lane), done at 140, due at 300."""
    fields: dict[str, object] = {
        "id": P2D,
        "size_bytes": 8_400_000,
        "batch": "b3",
        "request": 12,
        "layer": 4,
        "deadline_ns": 300 * MS,
        "submit_ns": 100 * MS,
        "permit_ns": 103 * MS,
        "lane_wait_ns": 2 * MS,
        "finish_ns": 140 * MS,
        "level_first": Level.P6,
        "level_last": Level.P3,
        "promotions": 1,
    }
    return flow_row(**(fields | changes))


def late_request(**changes: object) -> RequestRow:
    """Arrives at 60 ms with an SLO of 240 and takes 252.5: 30 queue, 100 prefill, 110 P2D, 12.5 decode."""
    fields: dict[str, object] = {
        "request": 12,
        "batch": "b3",
        "arrival_ns": 60 * MS,
        "start_ns": 90 * MS,
        "prefill_end_ns": 190 * MS,
        "p2d_end_ns": 300 * MS,
        "first_token_ns": 312_500_000,
        "ttft_ns": 252_500_000,
        "slo_ns": 240 * MS,
    }
    return request_row(**(fields | changes))


PROMOTED = Rows(
    flows=(delivery(),),
    requests=(late_request(),),
    decisions=(
        decision(100, Level.P6, "MLU 0.01 < 0.031"),
        decision(120, Level.P3, "MLU 0.05 >= 0.031", was=Level.P6),
    ),
)


def test_a_flow_is_told_from_submit_to_its_requests_outcome(tmp_path: Path) -> None:
    """Permit 103 - 100 = 3 ms: 2 for a lane, 1 for the permit. On P6 103..120, on P3 120..140."""
    story = explain_flow(written(tmp_path / "run", mfs=PROMOTED), P2D)

    assert story.splitlines() == [
        f"{P2D} under mfs",
        "  It was S3 (P2D), 8.4 MB from rank 0 on h1 to rank 8 on h9, of layer 4, request 12, batch b3.",
        "  It crossed h1->s1, s1->h9.",
        "  It was submitted at 100.000 ms, with a deadline 200.0 ms later (300.000 ms).",
        "  It was permitted at 103.000 ms, 3.00 ms later: it waited 2.00 ms for a free lane and 1.00 ms for"
        " the permit.",
        "  It finished at 140.000 ms, 40.00 ms after it was submitted and 160.0 ms before its deadline.",
        "  Its levels:",
        "    At 100.000 ms it was put on P6: MLU 0.01 < 0.031.",
        "    At 120.000 ms it was promoted from P6 to P3: MLU 0.05 >= 0.031.",
        "  From permit to finish it spent 17.00 ms on P6 and 20.00 ms on P3.",
        "  Request 12 missed its SLO by 12.50 ms: its TTFT was 252.5 ms, its SLO 240.0 ms.",
    ]


def test_s1_that_was_sent_for_from_the_queue_says_so() -> None:
    """Submitted at 10 ms; the batch of its request begins at 40 ms. S1 of that batch says nothing."""
    request = request_row(request=12, unit="p0", batch="p0.b3", start_ns=40 * MS)
    sentence = "  Its fetch started while request 12 was queued, 30.00 ms before batch p0.b3 began."
    for batch, told in (("p0.f12", True), ("p0.b3", False)):
        flow = flow_row(stage=Stage.KV_REUSE, batch=batch, request=12, layer=0, submit_ns=10 * MS)
        assert (sentence in flow_story("mfs", flow, [], [request], []).splitlines()) is told


def test_a_flow_that_goes_down_is_demoted(tmp_path: Path) -> None:
    rows = Rows(
        flows=(delivery(),),
        decisions=(
            decision(100, Level.P1, "0 MB sent"),
            decision(110, Level.P2, "10 MB sent", was=Level.P1),
        ),
    )
    story = explain_flow(written(tmp_path / "run", pias=rows), P2D)
    assert "At 110.000 ms it was demoted from P1 to P2: 10 MB sent." in story


def test_a_share_is_told_with_its_collective_and_its_batch(tmp_path: Path) -> None:
    """The other share ends at 12 ms, this one at 9. Of requests 12 (late) and 13, one meets its SLO."""
    share = {
        "stage": Stage.COLLECTIVE,
        "dst": -1,
        "dst_server": None,
        "batch": "b3",
        "layer": 4,
        "coflow": "b3.l4.dispatch",
    }
    rows = Rows(
        flows=(
            flow_row(id=SHARE, finish_ns=9 * MS, **share),
            flow_row(id="b3.l4.dispatch.1", src=1, finish_ns=12 * MS, **share),
        ),
        requests=(late_request(), request_row(request=13, batch="b3")),
    )
    story = explain_flow(written(tmp_path / "run", fair=rows), SHARE)
    assert (
        "It was S2 (collective), 1 MB from rank 0 on h1 to the other members, of layer 4, batch b3." in story
    )
    assert "It was submitted at 0.000 ms, without a deadline of its own." in story
    assert (
        "It is one of the 2 shares of b3.l4.dispatch; the last share finished 3.00 ms after this one."
        in story
    )
    assert "It was on P3 the whole time; no decision on it was recorded." in story
    assert "Of the 2 requests of batch b3, 1 met the SLO.\n  Request 12 missed its SLO by 12.50 ms" in story


def test_all_policies_are_told_in_the_order_of_the_run(tmp_path: Path) -> None:
    run = written(tmp_path / "run", stage=PROMOTED, fair=PROMOTED)
    told = explain_flow(run, P2D)
    assert told.index("under stage") < told.index("under fair")
    assert "under stage" not in explain_flow(run, P2D, "fair")


def test_a_policy_that_has_no_such_flow_says_so_after_the_others(tmp_path: Path) -> None:
    run = written(tmp_path / "run", fair=Rows(flows=(delivery(id="b2.r12.l4.s3.0-8"),)), mfs=PROMOTED)
    assert explain_flow(run, P2D).endswith(
        f"there is no flow '{P2D}' under fair; the nearest: b2.r12.l4.s3.0-8"
    )


def test_an_unknown_flow_is_refused_with_the_nearest_ids(tmp_path: Path) -> None:
    run = written(tmp_path / "run", fair=PROMOTED, mfs=PROMOTED)
    with pytest.raises(NotInRun, match=rf"no flow 'b3.r12.l4.s3' under fair and mfs; the nearest: {P2D}$"):
        explain_flow(run, "b3.r12.l4.s3")


def test_a_request_is_told_with_where_its_ttft_went(tmp_path: Path) -> None:
    """Prefill from 90 to 190 ms on one rank: 20 ms S1, 50 compute, 25 collective, so 5 otherwise."""
    rows = Rows(
        flows=(delivery(),),
        requests=(late_request(),),
        spans=(
            span_row(0, "s1_wait", 90, 110, batch="b3"),
            span_row(0, "compute", 110, 160, batch="b3"),
            span_row(0, "collective", 160, 185, batch="b3"),
        ),
    )
    story = explain_request(written(tmp_path / "run", mfs=rows), 12)
    assert (
        "Where its TTFT went: 30.00 ms in the queue, 100.0 ms in prefill, 110.0 ms in the S3 tail,"
        " 12.50 ms in the decode step; alone on an idle cluster its TTFT would be 40.00 ms." in story
    )
    assert (
        "a rank spent on average 20.00 ms waiting for S1, 50.00 ms computing, 25.00 ms in collectives,"
        " 5.00 ms otherwise." in story
    )


def test_the_flows_of_a_request_come_worst_first(tmp_path: Path) -> None:
    """A flow that is 5 ms late comes first; of those on time, 40 ms comes before 20 ms."""
    rows = Rows(
        flows=(
            delivery(id="quick", finish_ns=120 * MS, size_bytes=8_000_000),
            delivery(id="slow"),
            delivery(id="late", submit_ns=290 * MS, permit_ns=290 * MS, finish_ns=305 * MS),
        ),
        requests=(late_request(),),
    )
    run = written(tmp_path / "run", mfs=rows)
    lines = explain_request(run, 12).splitlines()
    at = lines.index("  Its 3 flows, worst first:")
    assert lines[at + 1 : at + 4] == [
        "    late: S3, 8.4 MB, took 15.00 ms from P6 to P3, 5.00 ms after its deadline.",
        "    slow: S3, 8.4 MB, took 40.00 ms from P6 to P3, 160.0 ms before its deadline.",
        "    quick: S3, 8 MB, took 20.00 ms from P6 to P3, 180.0 ms before its deadline.",
    ]
    assert lines[-1] == f"  More on one of them: mfs explain {run} --flow late --policy mfs"


def test_flows_that_are_alike_have_one_line(tmp_path: Path) -> None:
    """Twelve layers of one size, sent between the same servers, all from P6 to P3, in 29 to 40 ms. Layer 12
    was promoted in between, and layer 13 goes to another server."""
    flows = [delivery(id=f"b3.r12.l{n}.s3.0-8", layer=n, finish_ns=(128 + n) * MS) for n in range(1, 13)]
    flows.append(delivery(id="b3.r12.l13.s3.0-9", layer=13, finish_ns=120 * MS, dst_server="h5"))
    decisions = [
        one
        for flow in flows
        for one in (
            decision(100, Level.P6, "first", flow=flow.id),
            *([decision(110, Level.P5, "then", was=Level.P6, flow=flow.id)] if flow.layer == 12 else []),
            decision(120, Level.P3, "last", was=Level.P6, flow=flow.id),
        )
    ]
    rows = Rows(flows=tuple(flows), requests=(late_request(),), decisions=tuple(decisions))
    lines = explain_request(written(tmp_path / "run", mfs=rows), 12).splitlines()
    at = lines.index("  Its 13 flows, worst first:")
    assert lines[at + 1 : at + 4] == [
        "    b3.r12.l12.s3.0-8: S3, 8.4 MB, took 40.00 ms from P6 to P5 to P3, 160.0 ms before its deadline.",
        "    b3.r12.l11.s3.0-8 and 10 alike: S3, 8.4 MB each from h1 to h9, took 29.00 ms to 39.00 ms from P6"
        " to P3, 161.0 ms to 171.0 ms before the deadline.",
        "    b3.r12.l13.s3.0-9: S3, 8.4 MB, took 20.00 ms from P6 to P3, 180.0 ms before its deadline.",
    ]


def test_flows_that_tie_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Flow 2 comes before flow 10."""
    flows = tuple(delivery(id=f"flow {n}", size_bytes=n * 10**6) for n in (10, 2))
    run = written(tmp_path / "run", mfs=Rows(flows=flows, requests=(late_request(),)))
    two, ten = (line for line in explain_request(run, 12).splitlines() if line.startswith("    flow"))
    assert two.startswith("    flow 2:")
    assert ten.startswith("    flow 10:")


def test_a_request_without_a_first_token_missed_its_slo(tmp_path: Path) -> None:
    gone = late_request(
        status="failed", prefill_end_ns=None, p2d_end_ns=None, first_token_ns=None, ttft_ns=None
    )
    story = explain_request(written(tmp_path / "run", mfs=Rows(flows=(delivery(),), requests=(gone,))), 12)
    assert "Request 12 missed its SLO: it failed and has no first token." in story
    assert "TTFT went" not in story


def test_a_request_that_was_pruned_is_told_how_often_and_whether_to_its_end(tmp_path: Path) -> None:
    for name, times, ended, told in (
        ("freed", 2, False, "It was pruned 2 times for the sake of others, and was freed again."),
        ("held", 1, True, "It was pruned once for the sake of others, and stayed so until its end."),
    ):
        pruned = late_request(times_pruned=times, ended_pruned=ended)
        run = written(tmp_path / name, mfs=Rows(flows=(delivery(),), requests=(pruned,)))
        assert told in explain_request(run, 12)


def test_a_request_that_recomputed_is_told_with_what_decided(tmp_path: Path) -> None:
    row = late_request(
        remote_tokens=0,
        recomputed_tokens=1024,
        fetch_estimate_ns=9 * MS,
        recompute_estimate_ns=8 * MS,
    )
    run = written(tmp_path / "run", mfs=Rows(flows=(delivery(),), requests=(row,)))
    assert (
        "It computed 1,024 tokens again whose KV another replica had: when its batch was formed, prefill was"
        " estimated to take 9.00 ms with the fetch and 8.00 ms without."
    ) in explain_request(run, 12)


def test_an_unknown_request_is_refused_with_those_there_are(tmp_path: Path) -> None:
    run = written(tmp_path / "run", mfs=PROMOTED)
    with pytest.raises(NotInRun, match="no request 3 under mfs; there are 12 to 12"):
        explain_request(run, 3)


def without_column(run: Path, table: str, column: str) -> None:
    path = run / f"{table}.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)


def test_a_run_without_a_column_that_may_be_null_is_told_without_it(tmp_path: Path) -> None:
    run = written(tmp_path / "run", mfs=PROMOTED)
    without_column(run, "flows", "deadline_ns")
    assert "It was submitted at 100.000 ms, without a deadline of its own." in explain_flow(run, P2D)


def test_a_run_without_a_column_that_is_needed_is_refused(tmp_path: Path) -> None:
    run = written(tmp_path / "run", mfs=PROMOTED)
    without_column(run, "flows", "permit_ns")
    with pytest.raises(UserError, match=r"flows.parquet has no column permit_ns: .* make it again"):
        explain_flow(run, P2D)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--flow", "nothing-like-it"), "there is no flow 'nothing-like-it' under mfs"),
        (("--flow", P2D, "--policy", "mfz"), "has no such policy; did you mean 'mfs'? (it has: mfs)"),
        ((), "give either --flow ID or --request N"),
        (("--flow", P2D, "--request", "12"), "give either --flow ID or --request N"),
    ],
)
def test_a_slip_ends_with_code_2_and_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    run = written(tmp_path / "run", mfs=PROMOTED)
    monkeypatch.setattr(sys, "argv", ["mfs", "explain", str(run), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not the directory of a finished run: it holds no summary\.json"):
        explain_flow(tmp_path, P2D)

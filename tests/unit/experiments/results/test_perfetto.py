"""The Chrome trace is well formed, and a viewer shows in it what happened in the run."""

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from record_factory import micro_record, serving_record
from result_rows import MS, flow_row, request_row, span_row
from trace_viewer import BrokenTrace, Event, View, opened, viewed

from controller.flow import Decision, Level, Stage
from experiments.resolve.jobs import resolve
from experiments.results.excerpt import excerpt
from experiments.results.perfetto import nesting_lanes, trace_events, write_timeline
from experiments.scenario.reading import load_scenario, override
from testbed.job import Scale
from testbed.record import FlowRow, RunRecord, SpanRow
from testbed.simulation.run import SimulatedRun
from workers.spans import SpanKind

SCALE = Scale(time_dilation=30, bytes_scale=0.001)


def decoded(events: Iterable[bytes]) -> list[Event]:
    found: list[Event] = json.loads(b"[" + b",".join(events) + b"]")
    return found


def view_of(record: RunRecord) -> View:
    return viewed(decoded(trace_events(excerpt(record, SCALE))))


@pytest.fixture(scope="module")
def serving() -> View:
    """`viewed` raises if a slice overlaps another in part, or if an arrow does not end in a slice."""
    return view_of(serving_record(requests=6, layers=3))


@pytest.fixture(scope="module")
def micro() -> View:
    return view_of(micro_record())


def test_links_are_threads_of_one_process(serving: View) -> None:
    threads = defaultdict(set)
    for slice in serving.slices:
        threads[slice.process].add(slice.thread.split(" (")[0])
    assert threads.keys() == {"requests", "ranks", "links"}
    assert {"h1->s1", "s1->h9"} <= threads["links"]
    assert threads["requests"] == {f"request {i}" for i in range(6)}


def test_overlapping_decode_steps_get_a_second_lane() -> None:
    first, second = span_row(8, "decode", 0, 9), span_row(8, "decode", 5, 14)
    inside, after = span_row(8, "decode", 1, 3), span_row(8, "decode", 9, 12)
    assert nesting_lanes([after, second, first, inside]) == [[first, inside, after], [second]]


def test_flows_that_overlap_on_a_link_get_threads_of_their_own() -> None:
    """a: 0 to 4 ms, b: 2 to 6 ms, c: 4 to 9 ms. At 2 ms, a is under way. At 4 ms, its thread is free."""
    flows = [
        flow_row(id=id, path=("h1->s1",), submit_ns=start * MS, permit_ns=start * MS, finish_ns=end * MS)
        for id, start, end in (("c", 4, 9), ("a", 0, 4), ("b", 2, 6))
    ]
    view = view_of(msgspec.structs.replace(micro_record(), flows=flows, decisions=(), links=()))
    assert [(slice.args["flow"], slice.thread) for slice in view.slices] == [
        ("a", "h1->s1"),
        ("b", "h1->s1 (2)"),
        ("c", "h1->s1"),
    ]


def test_a_flow_is_cut_on_each_link_where_its_level_changes(micro: View) -> None:
    # "low" is permitted at 1 ms, promoted from P6 to P1 at 100 ms, done at 321 ms.
    low = [s for s in micro.slices if s.thread.startswith("s1->h3") and s.args["flow"] == "low"]
    assert [(s.name, s.start_ns, s.end_ns) for s in low] == [
        ("S3 P6 lowest", MS, 100 * MS),
        ("S3 P1 most urgent", 100 * MS, 321 * MS),
    ]
    assert low[-1].args["reason"] == "MLU 0.53 >= 0.50"


def test_a_link_counts_the_rate_of_the_levels_it_used_and_ends_at_zero(micro: View) -> None:
    # 20 MB of "high" from 1 to 161 ms are 1 Gb/s, all of it at P2.
    samples = [args for _, args in micro.counters["h1->s1 Gb/s"]]
    assert samples[2] == {Level.P2.name: pytest.approx(1.0, rel=1e-3)}
    assert samples[-1] == {Level.P2.name: 0.0}


def test_a_request_shows_its_phases_and_its_deadline() -> None:
    events = decoded(trace_events(excerpt(serving_record(requests=6, layers=3), SCALE)))
    mine = [s for s in viewed(events).slices if s.thread == "request 0"]
    assert [(s.name, s.depth) for s in mine] == [
        ("request 0", 0),
        ("queue", 1),
        ("prefill", 1),
        ("S3 tail", 1),
        ("decode step", 1),
    ]
    deadlines = [e["ts"] for e in events if e["ph"] == "i" and e["name"] == "deadline"]
    assert deadlines[0] == 240 * MS / 1000


# --- arrows ------------------------------------------------------------------------------------


def one_request(flows: Iterable[FlowRow], spans: Iterable[SpanRow]) -> RunRecord:
    """Return a run of request 3: prefill from 2 to 10 ms, first token at 20 ms, on rank 8."""
    request = request_row(
        request=3,
        arrival_ns=0,
        start_ns=2 * MS,
        prefill_end_ns=10 * MS,
        p2d_end_ns=12 * MS,
        first_token_ns=20 * MS,
        ttft_ns=20 * MS,
        slo_ns=100 * MS,
    )
    return msgspec.structs.replace(
        micro_record(),
        requests=(request,),
        flows=tuple(flows),
        spans=tuple(spans),
        decisions=(),
        links=(),
        duration_ns=20 * MS,
    )


def s3(**changes: object) -> FlowRow:
    times = {"submit_ns": 5 * MS, "permit_ns": 6 * MS, "finish_ns": 12 * MS}
    return flow_row(**({"id": "kv", "request": 3, "stage": Stage.P2D} | times | changes))


def decode_step() -> SpanRow:
    return SpanRow(
        rank=8,
        kind=SpanKind.DECODE_STEP,
        label="request 3",
        batch=None,
        layer=None,
        start_ns=12 * MS,
        end_ns=20 * MS,
    )


def names_of(arrow: list) -> list[tuple[str, str]]:
    return [(slice.thread, slice.name) for slice in arrow]


def test_an_arrow_leads_from_the_prefill_over_the_links_to_the_decode_step() -> None:
    (arrow,) = view_of(one_request([s3()], [decode_step()])).arrows
    assert names_of(arrow) == [
        ("request 3", "prefill"),
        ("h1->s1", "S3 P3 soon"),
        ("s1->h9", "S3 P3 soon"),
        ("rank 8 on h9", "decode step: request 3"),
    ]


def test_the_arrow_of_a_fetch_ends_at_the_compute_that_needs_it() -> None:
    """Rank 0 has waited for layer 2 since before its fetch began, and computes it from 7 ms on."""
    fetch = flow_row(
        id="l2",
        request=3,
        stage=Stage.KV_REUSE,
        src=4,
        dst=0,
        src_server="h5",
        dst_server=None,
        path=("h5->s1",),
        batch="b",
        layer=2,
        submit_ns=MS,
        permit_ns=4 * MS,
        finish_ns=7 * MS,
    )
    common = {"rank": 0, "batch": "b", "layer": 2}
    spans = [
        SpanRow(kind=SpanKind.COMPUTE, label="mlp", start_ns=8 * MS, end_ns=9 * MS, **common),
        SpanRow(kind=SpanKind.S1_WAIT, label="", start_ns=3 * MS, end_ns=7 * MS, **common),
        SpanRow(kind=SpanKind.COMPUTE, label="attention", start_ns=7 * MS, end_ns=8 * MS, **common),
    ]
    (arrow,) = view_of(one_request([fetch], spans)).arrows
    assert names_of(arrow) == [
        ("request 3", "queue"),
        ("h5->s1", "S1 P3 soon"),
        ("rank 0", "compute: attention"),
    ]
    late = msgspec.structs.replace(fetch, finish_ns=7 * MS + 1)  # not what that compute waited for
    (arrow,) = view_of(one_request([late], spans)).arrows
    assert names_of(arrow)[-1] == ("h5->s1", "S1 P3 soon")


def test_shares_of_collectives_and_flows_of_nothing_shown_have_no_arrow() -> None:
    assert view_of(one_request([s3(request=None)], [decode_step()])).arrows == []
    nowhere = s3(request=99, path=("h1->s1",))  # neither the request nor a decode step of it is shown
    assert view_of(one_request([nowhere], [decode_step()])).arrows == []


def test_in_a_simulated_run_all_flows_of_requests_have_whole_arrows() -> None:
    """On a star, a flow crosses two links. S3 ends in a decode step, and S1 in the compute of a layer."""
    settings = ("fabric=sim", "workload.requests=6", "workload.load=0.6")
    job = resolve(load_scenario("quickstart", [override(text) for text in settings])).jobs[0]
    record = SimulatedRun(job, lambda _: None).run()
    view = viewed(decoded(trace_events(excerpt(record, job.scale))))
    found = Counter(
        (arrow[1].name[:2], arrow[0].process, len(arrow), arrow[-1].name.split(":")[0])
        for arrow in view.arrows
    )
    stages = Counter(flow.stage for flow in record.flows if flow.request is not None)
    decoded_steps = found.pop(("S3", "requests", 4, "decode step"))
    assert decoded_steps == stages[Stage.P2D] > 0
    assert found == {("S1", "requests", 4, "compute"): stages[Stage.KV_REUSE]}
    assert stages[Stage.KV_REUSE] > 0


def test_the_reader_of_these_tests_finds_what_is_broken() -> None:
    names = [
        {"ph": "M", "pid": 1, "tid": 1, "name": "process_name", "args": {"name": "p"}},
        {"ph": "M", "pid": 1, "tid": 5, "name": "thread_name", "args": {"name": "t"}},
    ]
    at = {"pid": 1, "tid": 5, "name": "x", "cat": "c"}
    slice = {**at, "ph": "X", "ts": 0, "dur": 10}
    start, end = {**at, "ph": "s", "id": 1, "ts": 5}, {**at, "ph": "f", "id": 1, "bp": "e", "ts": 6}
    assert len(viewed([*names, slice, start, end]).arrows) == 1
    with pytest.raises(BrokenTrace, match="in part"):
        viewed([*names, slice, {**slice, "ts": 5}])
    with pytest.raises(BrokenTrace, match="in no slice"):
        viewed([*names, slice, start, {**end, "ts": 11}])
    with pytest.raises(BrokenTrace, match="without an end"):
        viewed([*names, slice, start])
    with pytest.raises(BrokenTrace, match="no name"):
        viewed([names[0], slice])


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_compressed_json_that_names_the_run(tmp_path: Path) -> None:
    events = decoded(trace_events(excerpt(micro_record(), SCALE)))
    path = tmp_path / "trace.json.gz"
    write_timeline(path, (json.dumps(event).encode() for event in events), title="two flows: mfs")
    trace = json.loads(gzip.decompress(path.read_bytes()))
    assert trace["traceEvents"] == events
    assert trace["otherData"]["title"] == "two flows: mfs"
    assert opened(path).slices == viewed(events).slices


def test_the_same_events_give_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        write_timeline(tmp_path / name, [b"{}"], title="t")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_trace_without_events_is_still_json(tmp_path: Path) -> None:
    write_timeline(tmp_path / "trace.json.gz", [], title="nothing")
    assert opened(tmp_path / "trace.json.gz").slices == []


def test_a_decision_about_a_flow_that_is_not_shown_changes_nothing() -> None:
    stray = Decision(time_ns=0, flow="other", level_from=None, level_to=Level.P1, reason="")
    record = one_request([s3()], [decode_step()])
    with_stray = msgspec.structs.replace(record, decisions=(stray,))
    assert view_of(with_stray).slices == view_of(record).slices

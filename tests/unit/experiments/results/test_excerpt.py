"""A trace shows the whole run, or what began in the first part of it."""

import json
from pathlib import Path

import msgspec
import pytest
from record_factory import micro_record, serving_record
from result_rows import MS, flow_row, request_row, span_row

from experiments.results.excerpt import excerpt
from experiments.results.perfetto import trace_events, write_timeline
from testbed.job import Scale
from testbed.record import FlowRow, LinkSample

SCALE = Scale(time_dilation=30, bytes_scale=0.001)


def flow_at(start_ms: int) -> FlowRow:
    """Return a flow with two ports and one level, which is four events."""
    return flow_row(id=f"at{start_ms}", submit_ns=start_ms * MS, finish_ns=(start_ms + 5) * MS)


def test_a_run_that_fits_is_shown_whole_and_in_its_order() -> None:
    record = serving_record(requests=6, layers=3)
    shown = excerpt(record, SCALE)
    assert tuple(shown.requests) == record.requests
    assert tuple(shown.flows) == record.flows
    assert tuple(shown.spans) == record.spans
    assert shown.only is None


def test_what_does_not_fit_is_cut_where_it_begins_too_late() -> None:
    """A request has 11 events, a flow 4, and a span 1. With the flows at 0, 10 ... 190 ms and the spans at
    0, 20 ... 180 ms, that is 11 + 20 * 4 + 10 = 101 of 100, so the flow at 190 ms is left out."""
    record = msgspec.structs.replace(
        micro_record(),
        requests=(request_row(arrival_ns=0), request_row(request=1, arrival_ns=400 * MS)),
        flows=tuple(flow_at(start) for start in range(990, -10, -10)),
        spans=tuple(span_row(0, "compute", start, start + 1) for start in range(0, 1000, 20)),
        decisions=(),
        links=(),
        duration_ns=1_000 * MS,
    )
    shown = excerpt(record, SCALE, most=100)
    assert [row.request for row in shown.requests] == [0]
    assert [row.id for row in shown.flows] == [f"at{start}" for start in range(180, -10, -10)]
    assert [row.start_ns // MS for row in shown.spans] == list(range(0, 190, 20))
    assert shown.only == (
        "what began in the first 0.19 s of 1 s: 1 of 2 requests, 19 of 100 flows, 10 of 50 spans"
    )
    assert (
        sum(event["ph"] != "M" for event in json.loads(b"[" + b",".join(trace_events(shown)) + b"]")) <= 100
    )


def test_what_begins_at_one_moment_is_shown_or_left_out_together() -> None:
    flows = (flow_at(0), *(flow_row(id=f"f{i}", submit_ns=MS, finish_ns=2 * MS) for i in range(5)))
    record = msgspec.structs.replace(micro_record(), flows=flows, decisions=(), links=())
    assert [row.id for row in excerpt(record, SCALE, most=20).flows] == ["at0"]


def test_flows_without_a_link_are_bounded_too() -> None:
    flows = tuple(flow_row(id=f"f{i}", path=(), submit_ns=i, finish_ns=i + 1) for i in range(100))
    record = msgspec.structs.replace(micro_record(), flows=flows, decisions=(), links=())
    assert len(excerpt(record, SCALE, most=40).flows) == 40


def test_of_too_many_links_those_that_carried_most_have_their_rates() -> None:
    """A quarter of 80 events is 20, which are two links with ten samples each."""
    links = tuple(
        LinkSample(
            time_ns=time * MS,
            port=f"s1->h{host}",
            sent_bytes=(0, 0, time * host, 0, 0, 0, 0, 0),
            backlog_bytes=(0,) * 8,
            drops=(0,) * 8,
        )
        for time in range(10)
        for host in (3, 1, 4, 2)
    )
    shown = excerpt(msgspec.structs.replace(micro_record(), links=links), SCALE, most=80)
    assert sorted(shown.rates) == ["s1->h3", "s1->h4"]
    assert shown.only == "the rates of the 2 of 4 links that carried most"


def test_the_file_says_what_it_shows(tmp_path: Path) -> None:
    write_timeline(tmp_path / "trace.json", [], title="t", only="what began in the first second")
    about = json.loads((tmp_path / "trace.json").read_text())["otherData"]
    assert about["only"] == "what began in the first second"


def test_a_link_that_sends_nothing_around_the_cut_is_idle_up_to_the_cut() -> None:
    """The 13 flows of 0 .. 4 ms are shown: 18 samples and 52 events of 72. The first link sends all the time.
    The second sent until 1 ms and has its next sample at 9 ms. The third never sent. The fourth sends after
    3 ms and has its next sample at 9 ms, so nobody knows what it had sent at 5 ms."""

    def sample(port: str, time_ms: int, p2_bytes: int) -> LinkSample:
        sent, none = (0, 0, p2_bytes, 0, 0, 0, 0, 0), (0,) * 8
        return LinkSample(time_ns=time_ms * MS, port=port, sent_bytes=sent, backlog_bytes=none, drops=none)

    links = [
        *(sample("busy", time, 100 * time) for time in range(10)),
        *(sample("was busy", time, sent) for time, sent in ((0, 0), (1, 50), (9, 50))),
        *(sample("idle", time, 0) for time in (0, 9)),
        *(sample("later", time, sent) for time, sent in ((0, 0), (3, 0), (9, 60))),
    ]
    record = msgspec.structs.replace(
        micro_record(), flows=[flow_at(max(0, i - 8)) for i in range(18)], decisions=(), links=links
    )
    shown = excerpt(record, SCALE, most=72)
    assert [row.submit_ns // MS for row in shown.flows] == [0] * 9 + [1, 2, 3, 4]
    assert shown.only is not None
    assert "s: 13 of 18 flows" in shown.only  # and not "0 of 0 requests"
    assert "requests" not in shown.only
    assert {port: (rate.time_ns // MS).tolist() for port, rate in shown.rates.items()} == {
        "busy": [0, 1, 2, 3, 4, 5],
        "was busy": [0, 1, 5],
        "idle": [0, 5],
        "later": [0, 3],
    }
    assert shown.rates["was busy"].bps[:, 2].tolist() == [50 * 8 / 0.001 / SCALE.bytes_scale, 0]
    assert not shown.rates["idle"].bps.any()


def test_the_choice_is_the_same_however_the_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many small parts, of which most are dropped on the way, or all at once."""
    record = serving_record(requests=24, layers=4)
    whole = excerpt(record, SCALE, most=500)
    monkeypatch.setattr("testbed.columns.BLOCK_ROWS", 7)
    parts = excerpt(record, SCALE, most=500)
    assert 0 < len(whole.flows) < len(record.flows) / 4
    assert (whole.requests, whole.flows, whole.spans) == (parts.requests, parts.flows, parts.spans)
    assert whole.decisions == parts.decisions
    assert {row.flow for rows in whole.decisions.values() for row in rows} == {row.id for row in whole.flows}

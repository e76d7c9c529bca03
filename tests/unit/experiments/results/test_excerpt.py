"""A trace shows the whole run, or what was under way in a window of it."""

import json
from pathlib import Path

import msgspec
import pytest
from record_factory import micro_record, serving_record
from result_rows import MS, flow_row, request_row, span_row
from trace_viewer import opened

from experiments.results.excerpt import Excerpt, excerpt
from experiments.results.perfetto import trace_events, write_timeline
from experiments.results.trace_window import Window
from testbed.job import Scale
from testbed.record import FlowRow, LinkSample, RequestRow, RunRecord

SCALE = Scale(time_dilation=30, bytes_scale=0.001)


def flow_at(start_ms: int) -> FlowRow:
    """Return a flow with two ports and one level, which is two events."""
    return flow_row(id=f"at{start_ms}", submit_ns=start_ms * MS, finish_ns=(start_ms + 5) * MS)


def test_a_run_that_fits_is_shown_whole_and_in_its_order() -> None:
    record = serving_record(requests=6, layers=3)
    shown = excerpt(record, SCALE)
    assert tuple(shown.requests) == record.requests
    assert tuple(shown.flows) == record.flows
    assert tuple(shown.spans) == record.spans
    assert shown.only is None


def test_what_does_not_fit_is_cut_where_it_begins_too_late() -> None:
    """A request has 6 events, a flow 2, and a span 1. With the flows at 0, 10 ... 310 ms and the spans at
    0, 20 ... 300 ms, that is 6 + 32 * 2 + 16 = 86 of 86, so the flow at 320 ms is left out."""
    record = msgspec.structs.replace(
        micro_record(),
        requests=(request_row(arrival_ns=0), request_row(request=1, arrival_ns=400 * MS)),
        flows=tuple(flow_at(start) for start in range(990, -10, -10)),
        spans=tuple(span_row(0, "compute", start, start + 1) for start in range(0, 1000, 20)),
        decisions=(),
        links=(),
        duration_ns=1_000 * MS,
    )
    shown = excerpt(record, SCALE, most=86)
    assert [row.request for row in shown.requests] == [0]
    assert [row.id for row in shown.flows] == [f"at{start}" for start in range(310, -10, -10)]
    assert [row.start_ns // MS for row in shown.spans] == list(range(0, 310, 20))
    assert shown.only == (
        "what was under way from 0 s to 0.32 s of 1 s: 1 of 2 requests, 32 of 100 flows, 16 of 50 spans"
    )
    assert events_of(shown) <= 86


def events_of(shown: Excerpt) -> int:
    return sum(event["ph"] != "M" for event in json.loads(b"[" + b",".join(trace_events(shown)) + b"]"))


def test_what_begins_at_one_moment_is_shown_or_left_out_together() -> None:
    """2 events of the first flow, and 10 of those at 1 ms, of which 8 would fit."""
    flows = (flow_at(0), *(flow_row(id=f"f{i}", submit_ns=MS, finish_ns=2 * MS) for i in range(5)))
    record = msgspec.structs.replace(micro_record(), flows=flows, decisions=(), links=())
    assert [row.id for row in excerpt(record, SCALE, most=10).flows] == ["at0"]


def request_at(number: int, start_ms: int, *, misses: bool = False) -> RequestRow:
    """Return a request with a TTFT of 10 ms, from `start_ms` to its first token."""
    return request_row(
        request=number,
        arrival_ns=start_ms * MS,
        start_ns=start_ms * MS,
        prefill_end_ns=start_ms * MS,
        p2d_end_ns=start_ms * MS,
        first_token_ns=(start_ms + 10) * MS,
        ttft_ns=10 * MS,
        slo_ns=(9 if misses else 10) * MS,
    )


def of_requests(*requests: RequestRow) -> RunRecord:
    """Return a run of 1 s with these requests, and a flow (2 events) every 10 ms."""
    return msgspec.structs.replace(
        micro_record(),
        requests=requests,
        flows=tuple(flow_at(start) for start in range(0, 1000, 10)),
        decisions=(),
        links=(),
        duration_ns=1_000 * MS,
    )


def test_the_window_holds_as_many_requests_that_missed_as_fit() -> None:
    """Of 60 events, the three requests from 500 ms take 18, and 21 flows 42. One that missed was alone at
    100 ms, and another at 900 ms: neither fits with the three, which are 390 ms away."""
    missed = [request_at(i, start, misses=True) for i, start in enumerate((100, 500, 510, 540, 900))]
    shown = excerpt(of_requests(*missed, request_at(9, 700)), SCALE, most=60)
    assert [row.request for row in shown.requests] == [1, 2, 3]
    assert shown.window.from_ns < 500 * MS
    assert shown.window.until_ns is not None
    assert shown.window.until_ns >= 550 * MS
    assert shown.only is not None
    assert shown.only.endswith(
        "of the 5 requests that missed their SLO, it holds 3 from arrival to first token and 0 in part"
    )
    assert events_of(shown) <= 60


def test_of_equal_windows_the_one_with_most_of_the_time_before_is_shown() -> None:
    """A request that missed, from 500 to 510 ms, takes 6 of 26 events, and 10 flows 20."""
    shown = excerpt(of_requests(request_at(0, 500, misses=True)), SCALE, most=26)
    assert shown.window.until_ns == 520 * MS  # the next flow begins then
    assert [row.submit_ns // MS for row in shown.flows] == list(range(420, 520, 10))


def test_if_no_request_that_missed_fits_whole_the_most_are_shown_in_part() -> None:
    """Each of them takes 10 ms, and 300 flows at 500, 502 ... 520 ms are 600 events of 100."""
    requests = [request_at(i, start, misses=True) for i, start in enumerate((500, 503, 506))]
    crowd = [
        flow_row(id=f"{start}.{i}", submit_ns=start * MS, finish_ns=(start + 1) * MS)
        for start in range(490, 530, 2)
        for i in range(30)
    ]
    record = msgspec.structs.replace(of_requests(*requests), flows=tuple(crowd))
    shown = excerpt(record, SCALE, most=100)
    assert len(shown.requests) == 3
    assert shown.only is not None
    assert "it holds 0 from arrival to first token and 3 in part" in shown.only


def test_a_window_that_was_asked_for_shows_what_is_under_way_in_it() -> None:
    """The flows take 5 ms from 0, 10 ... ms: those at 200 and 250 ms are the first and the last in the window
    from 204 to 251 ms. The request from 195 to 205 ms had begun before."""
    record = of_requests(request_at(0, 195), request_at(1, 251))
    shown = excerpt(record, SCALE, Window(204 * MS, 251 * MS))
    assert [row.submit_ns // MS for row in shown.flows] == [200, 210, 220, 230, 240, 250]
    assert [row.request for row in shown.requests] == [0]
    assert shown.only is not None
    assert shown.only.startswith("what was under way from 0.204 s to 0.251 s of 1 s: 1 of 2 requests")


def test_a_window_that_was_asked_for_ends_where_its_events_no_longer_fit() -> None:
    shown = excerpt(of_requests(), SCALE, Window(500 * MS, None), most=6)
    assert [row.submit_ns // MS for row in shown.flows] == [500, 510, 520]
    assert shown.window == Window(500 * MS, 530 * MS)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("1.5:2", Window(1_500 * MS, 2_000 * MS)),
        ("0.25:", Window(250 * MS, None)),
        (":3", Window(0, 3_000 * MS)),
        (":", Window(0, None)),
    ],
)
def test_a_window_is_read_in_seconds(text: str, window: Window) -> None:
    assert Window.read(text) == window


@pytest.mark.parametrize("text", ["3", "2:1", "1:1", "a:2", "-1:2", "nan:", "1:2:3"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"wanted|not a|has to end"):
        Window.read(text)


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
    write_timeline(tmp_path / "trace.json.gz", [], title="t", only="what was under way in the first second")
    assert opened(tmp_path / "trace.json.gz").about["only"] == "what was under way in the first second"


def test_rates_are_cut_where_the_window_begins_and_ends() -> None:
    """The rate of a link is constant between its samples. `steady` sends 100 bytes in each ms, with samples
    at 0, 1 ... 9 ms. `sparse` has samples at 0, 3 and 9 ms only. `before` has its last sample at 2 ms, before
    the window."""

    def sample(port: str, time_ms: int, p2_bytes: int) -> LinkSample:
        sent, none = (0, 0, p2_bytes, 0, 0, 0, 0, 0), (0,) * 8
        return LinkSample(time_ns=time_ms * MS, port=port, sent_bytes=sent, backlog_bytes=none, drops=none)

    links = [
        *(sample("steady", time, 100 * time) for time in range(10)),
        *(sample("sparse", time, sent) for time, sent in ((0, 0), (3, 0), (9, 60))),
        *(sample("before", time, sent) for time, sent in ((0, 0), (2, 50))),
    ]
    record = msgspec.structs.replace(micro_record(), flows=(), decisions=(), links=links, duration_ns=9 * MS)
    shown = excerpt(record, SCALE, Window(4 * MS + MS // 2, 7 * MS))
    times = {port: (rate.time_ns / MS).tolist() for port, rate in shown.rates.items()}
    assert times == {"steady": [4.5, 5, 6, 7], "sparse": [4.5, 7]}
    model_bps = 8 / 0.001 / SCALE.bytes_scale  # of a wire byte in a millisecond
    assert shown.rates["steady"].bps[:, 2] == pytest.approx([100 * model_bps] * 3)
    assert shown.rates["sparse"].bps[:, 2] == pytest.approx([10 * model_bps])


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

"""The Chrome trace is well formed: every event has what viewers require of its kind."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from record_factory import micro_record, serving_record
from result_rows import MS, span_row

from controller.flow import Level
from experiments.results.excerpt import excerpt
from experiments.results.perfetto import Event, nesting_lanes, trace_events, write_timeline
from testbed.job import Scale

SCALE = Scale(time_dilation=30, bytes_scale=0.001)


def decoded(events: Iterable[bytes]) -> list[Event]:
    found: list[Event] = json.loads(b"[" + b",".join(events) + b"]")
    return found


@pytest.fixture(scope="module")
def serving() -> list[Event]:
    return decoded(trace_events(excerpt(serving_record(requests=6, layers=3), SCALE)))


@pytest.fixture(scope="module")
def micro() -> list[Event]:
    return decoded(trace_events(excerpt(micro_record(), SCALE)))


def process_names(events: list[Event]) -> dict[int, str]:
    return {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}


def test_every_event_has_the_required_fields(serving: list[Event]) -> None:
    assert {event["ph"] for event in serving} == {"M", "X", "b", "e", "n", "C"}
    for event in serving:
        assert {"ph", "pid", "tid", "name"} <= event.keys()
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] in "ben":
            assert {"id", "cat"} <= event.keys()


def test_every_process_and_thread_has_a_name(serving: list[Event]) -> None:
    names = process_names(serving)
    assert {event["pid"] for event in serving} == names.keys()
    assert {"requests", "ranks", "link h1->s1", "link s1->h9"} <= set(names.values())
    threads = {(e["pid"], e["tid"]) for e in serving if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in serving if e["ph"] == "X"} == threads
    assert sum(e["name"] == "process_name" for e in serving) == len(names)


def test_asynchronous_slices_open_and_close_in_order(serving: list[Event]) -> None:
    open_slices: dict[tuple[int, str, str], list[tuple[str, float]]] = defaultdict(list)
    for event in serving:
        key = (event["pid"], event.get("cat", ""), event.get("id", ""))
        if event["ph"] == "b":
            open_slices[key].append((event["name"], event["ts"]))
        elif event["ph"] == "e":
            name, since = open_slices[key].pop()
            assert name == event["name"]
            assert since <= event["ts"]
    assert not any(open_slices.values())


def test_slices_of_a_rank_follow_or_nest(serving: list[Event]) -> None:
    by_thread = defaultdict(list)
    for event in serving:
        if event["ph"] == "X":
            # Viewers count in whole nanoseconds, as the rows do.
            start, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
            by_thread[event["tid"]].append((start, start + length))
    for slices in by_thread.values():
        assert slices == sorted(slices, key=lambda s: (s[0], -s[1]))
        for i, (start, end) in enumerate(slices):
            for later_start, later_end in slices[i + 1 :]:
                assert later_start >= end or (start <= later_start and later_end <= end)


def test_overlapping_decode_steps_get_a_second_lane() -> None:
    first, second = span_row(8, "decode", 0, 9), span_row(8, "decode", 5, 14)
    inside, after = span_row(8, "decode", 1, 3), span_row(8, "decode", 9, 12)
    assert nesting_lanes([after, second, first, inside]) == [[first, inside, after], [second]]


def test_a_flow_is_cut_on_each_link_where_its_level_changes(micro: list[Event]) -> None:
    # "low" is permitted at 1 ms, promoted from P6 to P1 at 100 ms, done at 321 ms.
    link = next(pid for pid, name in process_names(micro).items() if name == "link s1->h3")
    marks = [
        (event["ph"], event["ts"], event["name"])
        for event in micro
        if event["pid"] == link and event["ph"] in "be" and event["id"] == f"{link}.1"
    ]
    assert marks == [
        ("b", 1_000.0, "S3 P6 lowest"),
        ("e", 100_000.0, "S3 P6 lowest"),
        ("b", 100_000.0, "S3 P1 most urgent"),
        ("e", 321_000.0, "S3 P1 most urgent"),
    ]
    begins = [e for e in micro if e["ph"] == "b" and e["pid"] == link]
    assert begins[-1]["args"]["reason"] == "MLU 0.53 >= 0.50"
    assert begins[-1]["cname"] == "terrible"


def test_a_link_counts_the_rate_of_the_levels_it_used_and_ends_at_zero(micro: list[Event]) -> None:
    link = next(pid for pid, name in process_names(micro).items() if name == "link h1->s1")
    counters = [event for event in micro if event["ph"] == "C" and event["pid"] == link]
    # 20 MB of "high" from 1 to 161 ms are 1 Gb/s, all of it at P2.
    assert counters[2]["args"] == {Level.P2.name: pytest.approx(1.0, rel=1e-3)}
    assert counters[-1]["args"] == {Level.P2.name: 0.0}


def test_a_request_shows_its_phases_and_its_deadline(serving: list[Event]) -> None:
    mine = [e for e in serving if e.get("id") == "request-0"]
    names = [e["name"] for e in mine if e["ph"] == "b"]
    assert names == ["request 0", "queue", "prefill", "S3 tail", "decode step"]
    (deadline,) = [e for e in mine if e["ph"] == "n"]
    assert deadline["ts"] == 240 * MS / 1000


def test_the_file_is_json_that_names_the_run(tmp_path: Path, micro: list[Event]) -> None:
    events = [json.dumps(event).encode() for event in micro]
    write_timeline(tmp_path / "trace.json", events, title="two flows: mfs")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace["traceEvents"] == micro
    assert trace["otherData"]["title"] == "two flows: mfs"


def test_a_trace_without_events_is_still_json(tmp_path: Path) -> None:
    write_timeline(tmp_path / "trace.json", [], title="nothing")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == []

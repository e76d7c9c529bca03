"""Which requests and flows met a fault."""

import msgspec
from record_factory import serving_record
from result_rows import MS, flow_row, request_row

from controller.flow import Stage
from experiments.results.faults import FaultEntry, entries_of, fault_entries, fault_lines, in_force, met_by
from testbed.faults import ControllerRestart, Fault, LinkFault, Straggler, UnitLoss
from testbed.record import RequestRow, RunRecord, SpanRow
from workers.spans import SpanKind

S = 1000 * MS
UPLINK = LinkFault(link="h1->s1", ports=("h1->s1",), share=0.0, from_ns=100 * MS, to_ns=200 * MS)
REQUESTS = [
    request_row(request=0, batch="b0"),
    request_row(request=1, batch="b1", earlier_batches=("b0",), ttft_ns=101 * MS),
    request_row(request=2, batch="b2"),
]
"""Of an SLO of 100 ms, request 1 needs a millisecond more."""


def record(*faults: Fault, **changes: object) -> RunRecord:
    fields = {"flows": (), "spans": (), "duration_ns": S, "requests": tuple(REQUESTS)} | changes
    return msgspec.structs.replace(serving_record("mfs"), faults=faults, **fields)


def entry(fault: Fault, **changes: object) -> FaultEntry:
    (found,) = fault_entries(record(fault, **changes), REQUESTS)
    return found


def span(
    rank: int, start_ms: int, end_ms: int, kind: SpanKind = SpanKind.COMPUTE, label: str = ""
) -> SpanRow:
    return SpanRow(
        rank=rank, kind=kind, label=label, batch="b0", layer=0, start_ns=start_ms * MS, end_ns=end_ms * MS
    )


def test_flows_that_cross_the_link_while_it_is_down_meet_the_fault() -> None:
    flows = (
        flow_row(id="before", request=2, submit_ns=0, finish_ns=100 * MS),
        flow_row(id="into", request=0, submit_ns=0, finish_ns=101 * MS),
        flow_row(id="after", request=2, submit_ns=200 * MS, finish_ns=300 * MS),
        flow_row(id="beside", request=2, submit_ns=0, finish_ns=S, path=("h2->s1", "s1->h1")),
    )
    found = entry(UPLINK, flows=flows)
    assert (found.flows, found.requests, found.missed) == (1, 1, 0)


def test_a_share_of_a_collective_is_of_all_requests_of_its_batch() -> None:
    """Requests 0 and 1 had parts in batch b0."""
    share = flow_row(batch="b0", stage=Stage.COLLECTIVE, submit_ns=150 * MS, finish_ns=160 * MS)
    found = entry(UPLINK, flows=(share,))
    assert (found.flows, found.requests, found.missed) == (1, 2, 1)


def test_requests_under_way_and_flows_that_wait_for_their_permits_meet_a_restart_of_the_controller() -> None:
    """It is away from 100 to 200 ms. A flow that has its permit goes on, whatever it crosses."""
    away = ControllerRestart(from_ns=100 * MS, to_ns=200 * MS)
    flows = (
        flow_row(id="on", request=2, submit_ns=0, permit_ns=90 * MS, finish_ns=S),
        flow_row(id="waits", request=0, submit_ns=150 * MS, permit_ns=210 * MS, finish_ns=S),
        flow_row(id="after", request=2, submit_ns=200 * MS, permit_ns=210 * MS, finish_ns=S),
    )
    rows = [
        request_row(request=0, arrival_ns=0, first_token_ns=100 * MS),
        request_row(request=1, arrival_ns=0, first_token_ns=101 * MS),
        request_row(request=2, arrival_ns=199 * MS, first_token_ns=None),
        request_row(request=3, arrival_ns=200 * MS, first_token_ns=S),
    ]
    (found,) = fault_entries(record(away, flows=flows), rows)
    assert (found.flows, found.requests, found.fault) == (1, 2, "the controller restarting")
    assert [met_by([found], row, (), ()) == [found] for row in rows] == [False, True, True, False]
    assert [found.meets_flow(flow) for flow in flows] == [False, True, False]


def test_what_a_slow_rank_computes_meets_it() -> None:
    slow = Straggler(rank=3, factor=2.0, from_ns=100 * MS, to_ns=None)
    assert entry(slow, spans=(span(3, 50, 101),)).requests == 2
    assert entry(slow, spans=(span(3, 50, 100), span(4, 50, 300))).requests == 0
    assert entry(slow, spans=(span(3, 200, 300, SpanKind.PAUSED),)).requests == 0
    assert entry(slow, spans=(span(3, 200, 300, SpanKind.COLLECTIVE),)).requests == 2
    assert entry(slow, spans=(span(3, 200, 300, SpanKind.DECODE_STEP, "request 2"),)).requests == 1


def test_a_fault_after_the_end_never_began() -> None:
    assert entry(UPLINK, duration_ns=99 * MS).began is False
    assert entry(UPLINK).began is True


def test_a_policy_that_ran_before_a_server_was_lost_is_not_to_be_compared() -> None:
    loss = UnitLoss(unit="p1", from_ns=0, to_ns=None)
    runs = [
        {"policy": "fair", "faults": []},
        {"policy": "mfs", "faults": msgspec.to_builtins([entry(loss)])},
    ]
    (line,) = fault_lines({"runs": runs})
    assert line.endswith("; fair ran without this fault, so do not compare the two")


def test_the_lines_tell_every_policy() -> None:
    crossing = flow_row(request=1, submit_ns=0, finish_ns=S)
    runs = [
        {"policy": "fair", "faults": msgspec.to_builtins([entry(UPLINK, flows=(crossing,))])},
        {"policy": "mfs", "faults": msgspec.to_builtins([entry(UPLINK)])},
        {"policy": "stage", "faults": msgspec.to_builtins([entry(UPLINK, duration_ns=0)])},
    ]
    assert list(fault_lines({"runs": runs})) == [
        "fault: link h1->s1 down from 0.1 s to 0.2 s: fair 1 request met it, 1 of which missed its SLO;"
        " mfs nothing met it; stage had ended before"
    ]
    assert list(fault_lines({"runs": [{"policy": "fair"}]})) == []


def test_one_sentence_names_the_faults_that_a_run_had() -> None:
    slow = Straggler(rank=3, factor=2.0, from_ns=0, to_ns=None)
    late = Straggler(rank=4, factor=2.0, from_ns=2 * S, to_ns=None)
    entries = msgspec.to_builtins(fault_entries(record(UPLINK, UPLINK, slow, late), REQUESTS))
    runs = [{"policy": policy, "faults": entries} for policy in ("fair", "mfs")]
    assert in_force({"runs": runs}) == [
        "The scenario has faults: link h1->s1 down, rank 3 computing 2 times as long"
    ]
    assert in_force({"runs": [{"policy": "fair"}]}) == []


def test_a_loss_is_met_by_those_that_failed_and_by_those_that_moved() -> None:
    lost = UnitLoss(unit="p0", from_ns=S, to_ns=2 * S)
    words = "unit p0 lost from 1 s to 2 s"
    rows = [
        request_row(request=0, lost_to=words, status="failed", ttft_ns=None, first_token_ns=None),
        request_row(request=1, moved_by=(words,)),
        request_row(request=2),
    ]
    (found,) = fault_entries(record(lost), rows)
    assert (found.failed, found.moved, found.requests, found.missed) == (1, 1, 2, 1)
    runs = [{"policy": "mfs", "faults": msgspec.to_builtins([found])}]
    assert list(fault_lines({"runs": runs})) == [f"fault: {words}: mfs 1 failed, 1 moved to another unit"]
    assert met_by([found], rows[1], [], []) == [found]
    assert met_by([found], rows[2], [], []) == []


def life(row: RequestRow, *spans: SpanRow, **flow: object) -> list[FaultEntry]:
    slow = Straggler(rank=3, factor=2.0, from_ns=100 * MS, to_ns=None)
    entries = entries_of({"faults": msgspec.to_builtins(fault_entries(record(UPLINK, slow), REQUESTS))})
    return met_by(entries, row, [flow_row(**flow)] if flow else [], spans)


def test_a_request_is_told_the_faults_that_it_met() -> None:
    words = [met.words for met in life(REQUESTS[0], span(3, 0, 200), submit_ns=150 * MS, finish_ns=S)]
    assert words == [
        "link h1->s1 down from 0.1 s to 0.2 s",
        "rank 3 computing 2 times as long from 0.1 s on",
    ]
    assert life(REQUESTS[0], span(3, 0, 100), submit_ns=200 * MS, finish_ns=S) == []
    assert life(REQUESTS[0], span(3, 200, 300, SpanKind.DECODE_STEP, "request 1")) == []

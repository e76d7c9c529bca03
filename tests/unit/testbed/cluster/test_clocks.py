"""Clocks of other servers: what round trips say of them, and how records are put right."""

from controller.flow import Stage, Transfer
from controller.pulse import Pause
from testbed.cluster.clocks import Drift, Reading, RoundTrip, corrected, read
from workers.protocol import ProgressMark, ReceivedFlow, Records, SentFlow, Span

SECOND = 10**9


def test_the_shortest_round_trip_decides() -> None:
    """Their clock is 1000 ahead. The answer to the slow question was late: its middle is off by 40."""
    slow = RoundTrip(sent_ns=0, theirs_ns=1010, received_ns=100)
    quick = RoundTrip(sent_ns=200, theirs_ns=1204, received_ns=210)
    assert read([slow, quick]) == Reading(wall_ns=205, ahead_ns=999, error_ns=5)


def test_the_true_offset_is_within_the_error_however_lopsided_the_ways_are() -> None:
    """The question takes 30, the answer nothing: 1015 is measured, 1030 - 30 = 1000 is true."""
    reading = read([RoundTrip(sent_ns=0, theirs_ns=1030, received_ns=30)])
    assert reading.ahead_ns - 1000 == 15 == reading.error_ns


def drift(before_ns: int, after_ns: int) -> Drift:
    """The readings are 100 s apart, from 0 on."""
    return Drift(
        before=Reading(wall_ns=0, ahead_ns=before_ns, error_ns=0),
        after=Reading(wall_ns=100 * SECOND, ahead_ns=after_ns, error_ns=0),
    )


def test_a_clock_drifts_evenly_between_its_readings() -> None:
    drifting = drift(5000, 6000)
    assert drifting.total_ns == 1000
    assert [drifting.by_ns(second * SECOND) for second in (0, 25, 100)] == [0, 250, 1000]


def records() -> Records:
    transfer = Transfer(id="f", stage=Stage.P2D, src=0, dst=1, size_bytes=1)
    return Records(
        rank=0,
        sent=(
            SentFlow(
                transfer=transfer,
                submit_ns=10 * SECOND,
                permit_ns=20 * SECOND,
                lane_wait_ns=7,
                permit_latency_wall_ns=8,
            ),
        ),
        received=(ReceivedFlow(id="f", finish_ns=25 * SECOND, verified=True),),
        spans=(Span(kind="compute", label="", batch=None, layer=None, start_ns=0, end_ns=5 * SECOND),),
        progress=(ProgressMark(flow="f", time_ns=20 * SECOND, received_bytes=1),),
        late_wakeups_ms=(),
        longest_pause=Pause(begin_wall_ns=50 * SECOND, wall_ns=3),
    )


def test_records_are_put_right_by_what_the_clock_had_gained_at_that_time() -> None:
    """Model time begins at 10 s and is stretched by 2, so 20 s of it are at 50 s: half of the 1000 ns, which
    are 500 ns of wall time and 250 ns of model time."""
    right = corrected(records(), drift(5000, 6000), zero_wall_ns=10 * SECOND, time_dilation=2.0)
    [sent], [received], [span], [mark] = right.sent, right.received, right.spans, right.progress
    assert 20 * SECOND - sent.permit_ns == 250
    assert 10 * SECOND - sent.submit_ns == 150  # at 30 s: 300 ns
    assert 25 * SECOND - received.finish_ns == 300  # at 60 s: 600 ns
    assert (span.start_ns, 5 * SECOND - span.end_ns) == (-50, 100)  # at 10 s and 20 s
    assert 20 * SECOND - mark.time_ns == 250
    assert right.longest_pause == Pause(begin_wall_ns=50 * SECOND - 500, wall_ns=3)
    assert (sent.lane_wait_ns, sent.permit_latency_wall_ns) == (7, 8)


def test_a_clock_that_does_not_drift_changes_nothing() -> None:
    assert corrected(records(), drift(77, 77), zero_wall_ns=0, time_dilation=1.0) == records()

"""What a rank records is handed over as it comes: once, and nothing after the last records."""

from controller.pulse import Pause
from workers.protocol import ProgressMark, ReceivedFlow, Rows, decode_from_rank, encode
from workers.recorder import Recorder

NO_PAUSE = Pause(begin_wall_ns=0, wall_ns=0)


def received(flow: str) -> ReceivedFlow:
    return ReceivedFlow(id=flow, finish_ns=1, verified=None)


def test_rows_are_handed_over_once_and_still_count_as_steps() -> None:
    recorder, late_ms, told = Recorder(), [0.5], list[Rows]()
    recorder.received += [received("f"), received("g")]
    recorder.progress.append(ProgressMark(flow="f", time_ns=1, received_bytes=2))
    recorder.hand_over(3, late_ms, told.append)
    assert [one.id for one in told[0].received] == ["f", "g"]
    assert (told[0].rank, told[0].late_wakeups_ms, len(told[0].progress)) == (3, (0.5,), 1)
    assert (recorder.received, recorder.progress, late_ms) == ([], [], [])
    recorder.hand_over(3, late_ms, told.append)
    assert len(told) == 1  # there was nothing to tell
    recorder.received.append(received("h"))
    assert recorder.steps == 4
    rest = recorder.records(3, late_ms, (NO_PAUSE,))
    assert [one.id for one in rest.received] == ["h"]
    assert type(decode_from_rank(encode(told[0]))) is Rows


def test_nothing_is_handed_over_after_the_last_records() -> None:
    """Who waits for the records does not wait for more."""
    recorder, told = Recorder(), list[Rows]()
    recorder.received.append(received("f"))
    assert len(recorder.records(0, [], (NO_PAUSE,)).received) == 1
    recorder.hand_over(0, [], told.append)
    assert told == []

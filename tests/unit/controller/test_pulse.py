"""The longest pause between beats, which are due every 100 ms."""

from controller.pulse import Pause, Pulse

MS = 1_000_000


def after(*beats_ms: int, until_ms: int) -> Pause:
    pulse = Pulse(0)
    for beat_ms in beats_ms:
        pulse.beat(beat_ms * MS)
    return pulse.longest(until_ms * MS)


def test_beats_in_time_are_no_pause() -> None:
    assert after(100, 200, 300, until_ms=360) == Pause(begin_wall_ns=0, wall_ns=0)


def test_a_pause_is_by_how_much_a_beat_is_late() -> None:
    """After the beat at 200 ms, the next one is due at 300 ms and comes at 2,300 ms."""
    late = Pause(begin_wall_ns=200 * MS, wall_ns=2000 * MS)
    assert after(100, 200, 2300, until_ms=2310) == late
    assert after(100, 200, 2300, 2700, until_ms=2710) == late  # a shorter one follows: 300 ms


def test_a_pause_that_has_not_ended_counts() -> None:
    """The message that asks can be read before the next beat."""
    assert after(100, 200, until_ms=1100) == Pause(begin_wall_ns=200 * MS, wall_ns=800 * MS)


def test_a_restart_forgets_the_pauses_before_it() -> None:
    pulse = Pulse(0)
    pulse.beat(5000 * MS)
    pulse.restart(6000 * MS)
    assert pulse.longest(6040 * MS) == Pause(begin_wall_ns=6000 * MS, wall_ns=0)
    pulse.beat(6200 * MS)
    assert pulse.longest(6200 * MS) == Pause(begin_wall_ns=6000 * MS, wall_ns=100 * MS)


def test_further_pauses_are_kept_the_longest_first() -> None:
    """Late by 400, 100 and 900 ms."""
    pulse = Pulse(0)
    for beat_ms in (500, 600, 800, 1800):
        pulse.beat(beat_ms * MS)
    late_ms = [pause.wall_ns / MS for pause in pulse.longest_ones(1810 * MS)]
    assert late_ms == [900, 400, 100, 0]

"""Who has said nothing for more than ten seconds, as someone sees it who may have been stopped himself."""

from testbed.coordinator.silence import Silences


def looks(silences: Silences, *seconds: float) -> list[str]:
    for second in seconds:
        silences.look(second)
    return silences.too_long()


def test_who_says_nothing_for_ten_seconds_is_named() -> None:
    silences = Silences(["rank 0", "rank 1"], 100.0)
    assert looks(silences, *(100.5 + half / 2 for half in range(20))) == []  # until 110.0
    silences.heard("rank 0")
    assert looks(silences, 110.5) == ["rank 1"]


def test_who_looks_after_a_long_time_blames_nobody() -> None:
    """What the others said meanwhile has still to be read."""
    silences = Silences(["rank 0"], 0.0)
    assert looks(silences, 60.0, 120.0, 180.0) == []


def test_who_was_never_heard_since_was_silent_for_all_that_was_watched() -> None:
    silences = Silences(["rank 0"], 0.0)
    looks(silences, 0.25, 60.0)
    assert silences.silent_s("rank 0") == silences.watched_s == 1.25
    silences.heard("rank 0")
    looks(silences, 60.5)
    assert (silences.silent_s("rank 0"), silences.watched_s) == (0.5, 1.75)

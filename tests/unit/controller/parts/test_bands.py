"""Mapping keys to a few levels, by the values observed lately."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.flow import RMLQ_LEVELS, Level
from controller.parts.bands import Bands

P1, P2, P3, P4, P5, P6 = RMLQ_LEVELS


def six(*observed: float, window: int = 512) -> Bands:
    bands = Bands(RMLQ_LEVELS, window)
    for value in observed:
        bands.observe(value, 1)
    return bands


@pytest.mark.parametrize(("levels", "middle"), [(6, P3), (5, P3), (4, P2), (3, P2), (2, P1), (1, P1)])
def test_before_anything_was_seen_the_middle_level_is_given(levels: int, middle: Level) -> None:
    assert Bands(RMLQ_LEVELS[:levels]).enter("f", 7) is middle


@pytest.mark.parametrize(("value", "level"), [(5, P1), (15, P2), (20, P3), (25, P4), (35, P5), (45, P6)])
def test_a_level_is_the_share_of_the_window_that_is_smaller(value: float, level: Level) -> None:
    """Of 10, 20, 30, 40, smaller than 15 is 1/4: floor(6 / 4) = 1, P2. 20 itself counts half: 3/8 of
    6 is 2.25, P3. All are smaller than 45: floor(6) would be a seventh level, so P6."""
    assert six(30, 10, 40, 20).enter("f", value) is level


def test_a_share_on_the_line_between_two_levels_belongs_to_the_lower() -> None:
    """1 of 3 is smaller: 6 / 3 is 2 exactly, P3. A float 1/3 might have made it 1.99."""
    assert six(10, 20, 30).enter("f", 15) is P3


def test_the_window_forgets_what_was_seen_long_ago() -> None:
    """Of 1, 2, 3 a window of two holds 2, 3: nothing smaller than 1.5."""
    assert six(1, 2, 3, window=2).enter("f", 1.5) is P1


def test_the_share_before_a_value_is_unknown_until_something_was_seen() -> None:
    assert six().share_before(1) is None
    assert six(10, 20, 30, 40).share_before(20) == 0.375


def drifted(*recent: float) -> Bands:
    """`f` has key 25 and came when that was the middle, P4. Since then only `recent` was seen."""
    bands = six(10, 20, 30, 40, window=4)
    assert bands.enter("f", 25) is P4
    for value in recent:
        bands.observe(value, 1)
    return bands


def test_a_larger_key_never_goes_above_an_active_smaller_one() -> None:
    """Everything seen lately is larger than 26, which would be P1."""
    assert drifted(100, 200, 300, 400).enter("larger", 26) is P4


def test_a_smaller_key_never_goes_below_an_active_larger_one() -> None:
    """Everything seen lately is smaller than 24, which would be P6."""
    assert drifted(1, 2, 3, 4).enter("smaller", 24) is P4


def test_an_equal_key_joins_the_active_one() -> None:
    assert drifted(100, 200, 300, 400).enter("equal", 25) is P4


def test_who_has_left_holds_nobody_back() -> None:
    bands = drifted(100, 200, 300, 400)
    bands.leave("f")
    assert "f" not in bands
    assert bands.enter("larger", 26) is P1


def test_the_last_of_equal_keys_to_leave_frees_the_place() -> None:
    bands = drifted(100, 200, 300, 400)
    bands.enter("equal", 25)
    bands.leave("f")
    assert bands.enter("larger", 26) is P4
    bands.leave("larger")
    bands.leave("equal")
    assert bands.enter("larger", 26) is P1


def test_rebanding_moves_keys_that_have_come_closer_and_names_only_those() -> None:
    """Slacks of 10, 20, 30, 40 were seen. At 0 the keys 15, 25, 45 are on P2, P4, P6. At 12 they are
    3, 13, 33 off: P1, P2, P5. One more at 100 stays at P6."""
    bands = six(10, 20, 30, 40)
    for key in (15, 25, 45, 100):
        bands.enter(f"at {key}", key)
    assert bands.reband(12) == {"at 15": P1, "at 25": P2, "at 45": P5}
    assert bands.level("at 100") is P6
    assert bands.reband(12) == {}


def test_a_value_of_its_own_ranks_a_key_that_is_far_from_those_seen() -> None:
    """A deadline at 1015, 15 from now, among slacks of 10, 20, 30, 40."""
    assert six(10, 20, 30, 40).enter("f", 1015, 15) is P2


def test_a_name_is_in_one_band_only() -> None:
    bands = six()
    bands.enter("f", 1)
    with pytest.raises(ValueError, match="'f' has a band already"):
        bands.enter("f", 2)


def test_bands_that_could_not_hold_anything_are_refused() -> None:
    with pytest.raises(ValueError, match="no levels"):
        Bands(())
    with pytest.raises(ValueError, match="at least 1 value, not 0"):
        Bands(RMLQ_LEVELS, window=0)


moves = st.lists(
    st.tuples(st.sampled_from(["enter", "enter", "leave", "observe", "reband"]), st.integers(0, 40)),
    max_size=80,
)


@given(moves, st.integers(1, 6))
def test_active_keys_are_never_inverted(played: list[tuple[str, int]], levels: int) -> None:
    bands, now, active = Bands(RMLQ_LEVELS[:levels], window=8), 0, {}
    for number, (kind, much) in enumerate(played):
        before = {name: bands.level(name) for name in active}
        if kind == "enter":
            active[f"f{number}"] = now + much
            bands.enter(f"f{number}", now + much, much)
        elif kind == "leave" and active:
            name = list(active)[much % len(active)]
            del active[name]
            bands.leave(name)
        elif kind == "observe":
            bands.observe(much, 1 + much % 3)
        elif kind == "reband":
            now += much
            moved = bands.reband(now)
            assert {name: bands.by_rank(key - now) for name, key in active.items()} == before | moved
            assert all(before[name] is not level for name, level in moved.items())
        ranked = sorted((key, bands.level(name)) for name, key in active.items())
        assert all(one[1] <= other[1] for one, other in pairwise(ranked))
        assert all(one[1] == other[1] for one, other in pairwise(ranked) if one[0] == other[0])


def test_a_value_ranks_by_the_bytes_below_it_not_by_how_many_values_there_are() -> None:
    """Three values of 1 byte and one of 97: of the 100 bytes 3 lie below 50, 3 % of six levels is P1."""
    bands = Bands(RMLQ_LEVELS)
    for value, size_bytes in ((1, 1), (2, 1), (3, 1), (60, 97)):
        bands.observe(value, size_bytes)
    assert bands.by_rank(50) is Level.P1
    assert bands.by_rank(70) is Level.P6
    assert bands.share_before(50) == 0.03

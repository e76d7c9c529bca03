"""The grid, the bracket and the rates that are tried next, by hand."""

import pytest

from experiments.capacity.search import Outcome, bracket, grid


def test_a_grid_has_its_ends_and_steps_of_at_most_the_root_of_two() -> None:
    assert grid(1, 4) == [1, 1.414, 2, 2.828, 4]
    assert grid(1, 1.5) == [1, 1.225, 1.5]  # one step would be 1.5
    with pytest.raises(ValueError, match="0 < low < high"):
        grid(2, 1)


def test_the_bracket_ends_where_the_attainment_first_does_not_hold() -> None:
    found = bracket({4: 0.5, 1: 1.0, 2: 0.9, 3: 0.8}, 0.9)
    assert (found.holds, found.fails, found.again, found.outcome) == (2, 3, None, Outcome.FOUND)


def test_an_attainment_that_never_or_always_holds_has_one_end() -> None:
    never, always = bracket({1: 0.8, 2: 0.7}, 0.9), bracket({1: 1.0, 2: 0.9}, 0.9)
    assert (never.holds, never.fails, never.outcome) == (None, 1, Outcome.NEVER)
    assert (always.holds, always.fails, always.outcome) == (2, None, Outcome.ALWAYS)
    assert never.next_rate(0.1) is always.next_rate(0.1) is None


def test_an_attainment_that_holds_again_at_a_higher_rate_is_told() -> None:
    found = bracket({1: 1.0, 2: 0.8, 3: 0.95, 4: 0.9, 5: 0.1}, 0.9)
    assert (found.holds, found.fails, found.again) == (1, 2, 4)


def test_a_bracket_is_halved_until_it_is_narrow() -> None:
    """The geometric middle of 2 and 8 is 4. From 8 to 8.4 it is 5 %."""
    assert bracket({2: 1.0, 8: 0.0}, 0.9).next_rate(0.05) == 4
    assert bracket({8: 1.0, 8.4: 0.0}, 0.9).next_rate(0.05) is None
    assert bracket({8: 1.0, 8.4: 0.0}, 0.9).next_rate(0.04) == pytest.approx(8.198)

"""Coarse clocks: which stamps are ticks, and how arrivals are spread inside them."""

from experiments.trace_formats import ticks


def test_shared_stamps_on_a_grid_are_a_tick_despite_jitter() -> None:
    """Stamps 0, 3000, 5999, 9000 (twice each): gaps 3000, 2999, 3001, so the tick is 3000."""
    assert ticks.tick_of([0, 0, 3000, 3000, 5999, 5999, 9000, 9000]) == 3000


def test_a_grid_with_holes_is_still_a_grid() -> None:
    """Gaps 3, 3, 6, 3: the third is two ticks."""
    assert ticks.tick_of([t * 1000 for t in (0, 0, 3, 3, 6, 6, 12, 12, 15, 15)]) == 3000


def test_stamps_nobody_shares_are_no_tick() -> None:
    assert ticks.tick_of([0, 3000, 6000, 9000]) is None


def test_stamps_without_a_grid_are_no_tick() -> None:
    assert ticks.tick_of([0, 0, 100, 100, 1700, 1700, 1950, 1950]) is None


def test_arrivals_of_one_tick_get_one_share_of_it_each() -> None:
    """Three arrivals in a tick of 3000: one in each of [0, 1000), [1000, 2000), [2000, 3000)."""
    spread = ticks.spread([0, 0, 0, 3000, 3000, 3000], 3000, seed=4)

    assert [arrival // 1000 for arrival in spread] == [0, 1, 2, 3, 4, 5]


def test_a_stamp_that_comes_early_shortens_the_tick_before_it() -> None:
    spread = ticks.spread([0] * 50 + [2500], 3000, seed=1)

    assert max(spread[:50]) < 2500
    assert spread == sorted(spread)


def test_the_spread_of_a_tick_follows_the_seed() -> None:
    arrivals = [0, 0, 3000, 3000]

    assert ticks.spread(arrivals, 3000, seed=1) == ticks.spread(arrivals, 3000, seed=1)
    assert ticks.spread(arrivals, 3000, seed=1) != ticks.spread(arrivals, 3000, seed=2)

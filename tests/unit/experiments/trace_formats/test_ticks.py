"""Coarse clocks: which stamps are ticks, and how arrivals are spread inside them."""

import random

import numpy as np
import pytest

from experiments.trace_formats import ticks


def clock_of(arrivals_ns: list[int]) -> ticks.Clock | None:
    return ticks.clock_of(np.array(arrivals_ns, dtype=np.int64))


def spread(arrivals_ns: list[int], tick_ns: int, seed: int) -> list[int]:
    spread_ns = np.array(arrivals_ns, dtype=np.int64)
    ticks.spread(spread_ns, tick_ns, seed)
    return spread_ns.tolist()


def test_shared_stamps_on_a_grid_are_a_tick_despite_jitter() -> None:
    """Stamps 0, 3000, 5999, 9000 (twice each): gaps 3000, 2999, 3001, so the tick is 3000."""
    assert clock_of([0, 0, 3000, 3000, 5999, 5999, 9000, 9000]).tick_ns == 3000


def test_a_grid_with_holes_is_still_a_grid() -> None:
    """Gaps 3, 3, 6, 3: the third is two ticks."""
    assert clock_of([t * 1000 for t in (0, 0, 3, 3, 6, 6, 12, 12, 15, 15)]).tick_ns == 3000


def test_stamps_nobody_shares_are_no_tick() -> None:
    assert clock_of([0, 3000, 6000, 9000]) is None


def test_stamps_without_a_grid_are_no_tick() -> None:
    assert clock_of([0, 0, 100, 100, 1700, 1700, 1950, 1950]) is None


S = 1_000_000_000


def poisson(rate_rps: float, count: int, *, tick_ns: int, jitter_ns: int = 0) -> list[int]:
    """A Poisson process as a clock stamps it: each tick has one stamp, which may be off a little."""
    draw = random.Random(rate_rps)
    time_s = 0.0
    ticks_seen = []
    for _ in range(count):
        time_s += draw.expovariate(rate_rps)
        ticks_seen.append(int(time_s * S) // tick_ns)
    off = {tick: draw.randint(-jitter_ns, jitter_ns) for tick in ticks_seen}
    return [tick * tick_ns + off[tick] for tick in ticks_seen]


@pytest.mark.parametrize("rate_rps", [0.03, 0.3, 0.5, 0.8, 3, 30])
@pytest.mark.parametrize("jitter_ns", [0, S // 500])
def test_a_clock_of_seconds_is_seen_at_any_rate(rate_rps: float, jitter_ns: int) -> None:
    """At 0.3 requests/s, most gaps are not one tick, and a quarter of the arrivals share one."""
    clock = clock_of(poisson(rate_rps, 1000, tick_ns=S, jitter_ns=jitter_ns))

    assert clock is not None
    assert clock.tick_ns == pytest.approx(S, rel=0.001)


def test_the_share_of_arrivals_that_have_company_is_told() -> None:
    """Four of 14 arrivals are in pairs."""
    clock = clock_of([s * S for s in (0, 0, 2, 3, 5, 6, 6, 8, 9, 11, 13, 14, 16, 17)])

    assert clock is not None
    assert (clock.tick_ns, clock.sharing) == (S, 4 / 14)
    assert clock.note(True) == (
        "arrivals spread inside the trace's 1.0 s tick (as stamped, 29% of the arrivals share their moment "
        "with another)"
    )


@pytest.mark.parametrize("tick_ns", [1, 1000, S // 1000])
def test_a_clock_that_is_fine_for_its_rate_is_not_coarse(tick_ns: int) -> None:
    """At 1 request/s, a tick of a millisecond has a thousandth of an arrival. Some arrive together."""
    arrivals = poisson(1, 500, tick_ns=tick_ns)

    assert clock_of(sorted(arrivals + arrivals[::10])) is None


def test_arrivals_of_one_tick_get_one_share_of_it_each() -> None:
    """Three arrivals in a tick of 3000: one in each of [0, 1000), [1000, 2000), [2000, 3000)."""
    found = spread([0, 0, 0, 3000, 3000, 3000], 3000, seed=4)

    assert [arrival // 1000 for arrival in found] == [0, 1, 2, 3, 4, 5]


def test_a_stamp_that_comes_early_shortens_the_tick_before_it() -> None:
    found = spread([0] * 50 + [2500], 3000, seed=1)

    assert max(found[:50]) < 2500
    assert found == sorted(found)


def test_the_spread_of_a_tick_follows_the_seed() -> None:
    arrivals = [0, 0, 3000, 3000]

    assert spread(arrivals, 3000, seed=1) == spread(arrivals, 3000, seed=1)
    assert spread(arrivals, 3000, seed=1) != spread(arrivals, 3000, seed=2)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_arrivals_that_are_worked_on_in_parts_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    arrivals = poisson(3, 200, tick_ns=S, jitter_ns=S // 500)
    whole = clock_of(arrivals), spread(arrivals, S, seed=1)

    monkeypatch.setattr(ticks, "_CHUNK", chunk)

    assert (clock_of(arrivals), spread(arrivals, S, seed=1)) == whole


def test_a_place_in_a_tick_is_the_one_that_the_seed_has_always_given() -> None:
    """The first two numbers that Python's generator gives for this seed are 0.3427... and 0.1113...."""
    draw = random.Random("7:ticks")
    first, second = draw.random(), draw.random()

    assert spread([0, 0], 3000, seed=7) == [int(first * 3000 / 2), int((1 + second) * 3000 / 2)]

"""The incremental network against the oracle, which works everything out again at every event."""

from fractions import Fraction
from typing import Any

import pytest
from fluid import max_min
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.simulation.links.network import FluidNetwork, Place

BPS = {"a": 8_000, "b": 16_000, "c": 24_000, "d": 8_000}
PER_NS = {port: Fraction(bps, 8 * 10**9) for port, bps in BPS.items()}


def oracle(streams: list[tuple[tuple[str, ...], Place, float | None]]) -> list[float]:
    spare = dict(PER_NS)
    rates = [0.0] * len(streams)
    for i, (_, _, cap) in enumerate(streams):
        if cap is not None:
            spare[f"cap {i}"] = Fraction(cap)
    for place in sorted({place for _, place, _ in streams}):
        peers = [i for i, stream in enumerate(streams) if stream[1] == place]
        weights = [
            dict.fromkeys(streams[i][0], Fraction(1))
            | ({} if streams[i][2] is None else {f"cap {i}": Fraction(1)})
            for i in peers
        ]
        for i, rate in zip(peers, max_min(weights, spare), strict=True):
            rates[i] = float(rate)
    return rates


paths = st.lists(st.sampled_from(sorted(BPS)), min_size=1, max_size=3, unique=True).map(tuple)
places = st.tuples(st.integers(1, 4), st.sampled_from([0.0, 1.0]))
caps = st.none() | st.sampled_from([1e-7, 5e-7, 2e-6])
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "move", "wait", "both"]), paths, places, caps, st.integers(0, 99)
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(steps, st.booleans())
def test_rates_are_those_of_the_oracle_after_every_change(
    steps: list[tuple[str, tuple[str, ...], Place, float | None, int]],
    bundled: bool,
) -> None:
    """Streams are added, moved and ended in any order. Those that are not affected must be right, too."""
    network = FluidNetwork(BPS, bundled=bundled)
    alive: dict[int, tuple[tuple[str, ...], Place, float | None]] = {}
    now_ns = 0
    for what, path, place, cap, pick in steps:
        if what in ("add", "both"):
            stream = network.add(network.ports(path), 1_000 * (1 + pick), place, cap)
            alive[stream] = path, place, cap
        if what in ("move", "both") and alive:
            stream = list(alive)[pick % len(alive)]
            network.move(stream, place, cap)
            alive[stream] = alive[stream][0], place, cap
        if what == "wait":
            end_ns = network.next_end_ns()
            if end_ns is not None:
                now_ns = end_ns
                for done in network.take_finished(now_ns):
                    del alive[done]
        network.settle(now_ns)
        expected = oracle(list(alive.values()))
        assert [network.rate(stream) for stream in alive] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert network.held_back(1e-9) == 0
        assert network.fullest <= 1 + 1e-9


def test_a_stream_that_is_held_back_is_seen() -> None:
    """Two share 1 B/ms. One of them is set to a third of its rate, so it has no bottleneck any more."""
    network = FluidNetwork({"a": 8_000})
    slow = network.add((0,), 1_000, (1, 0.0))
    network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    assert network.held_back(1e-9) == 0
    network.falsify(slow, 1 / 3)
    assert network.held_back(1e-9) > 0


def test_a_stream_that_waits_for_the_next_settling_after_another_has_ended_is_held_back() -> None:
    """Two share 1 B/ns until the shorter one has ended. The other one has half the rate until `settle`."""
    network = FluidNetwork({"a": 8 * 10**9})
    network.add((0,), 1_000, (1, 0.0))
    network.add((0,), 3_000, (1, 0.0))
    network.settle(0)
    assert network.take_finished(2_000) == [0]
    assert network.held_back(1e-9) == 1
    network.settle(2_000)
    assert network.held_back(1e-9) == 0


def test_the_fullest_port_is_the_one_with_the_largest_share_in_use_at_any_time() -> None:
    """A stream at 0.75 B/ns takes three eighths of b (2 B/ns), and three quarters of a (1 B/ns)."""
    network = FluidNetwork({"a": 8 * 10**9, "b": 16 * 10**9})
    stream = network.add((0, 1), 1_000, (1, 0.0), 0.75)
    network.settle(0)
    assert (network.fullest, network.fullest_now()) == (0.75, 0.75)
    network.move(stream, (1, 0.0), 0.5)
    network.settle(0)
    assert (network.fullest, network.fullest_now()) == (0.75, 0.5)


def test_a_move_that_comes_too_late_does_not_reach_the_next_stream_with_the_same_number() -> None:
    """The first one ends at 1,000 ns with its move still pending. The second one keeps its own place."""
    network = FluidNetwork({"a": 8 * 10**9})
    first = network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    network.move(first, (3, 0.0))
    assert network.take_finished(1_000) == [first]
    assert network.add((0,), 500, (2, 0.0)) == first
    network.settle(1_000)
    assert network.next_end_ns() == 1_500
    network.settle(1_500)
    assert network.sent_bytes(1_500)[0].tolist() == [0, 1_000, 500, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((0,), 0, (1, 0.0)), ValueError),
        (((0,), 1, (1, 0.0), None, (0.0,)), ValueError),
        (((0,), 1, (1, 0.0), None, (1.0, 1.0)), ValueError),
        (((1,), 1, (1, 0.0)), IndexError),
        (((-1,), 1, (1, 0.0)), IndexError),
        (((0,), 1, (8, 0.0)), IndexError),
        (((0,), 1, (-1, 0.0)), IndexError),
    ],
)
def test_a_stream_that_cannot_be_is_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    with pytest.raises(error):
        network.add(*arguments)
    assert len(network) == 0


def test_streams_and_ports_that_do_not_exist_are_refused() -> None:
    network = FluidNetwork({"a": 8 * 10**9})
    network.add((0,), 1, (1, 0.0))
    for call in (
        lambda: network.move(1, (1, 0.0)),
        lambda: network.move(0, (8, 0.0)),
        lambda: network.rate(-1),
        lambda: network.capacity(1),
    ):
        with pytest.raises(IndexError):
            call()
    with pytest.raises(ValueError, match="above 0"):
        FluidNetwork({"a": 0})


def test_a_weighted_stream_takes_its_weight_on_each_port_and_ends_as_one_connection_would() -> None:
    """Three connections in step on a (8 b/ns), one of them on b; they share a with one other stream.

    Four connections share a: 0.25 B/ns each, so 3,000 B a connection take 12,000 ns; b carries 0.25 B/ns.
    """
    network = FluidNetwork({"a": 8 * 10**9, "b": 8 * 10**9})
    group = network.add((0, 1), 3_000, (1, 0.0), weights=(3.0, 1.0))
    single = network.add((0,), 9_000, (1, 0.0))
    network.settle(0)
    assert (network.rate(group), network.rate(single)) == (0.25, 0.25)
    assert network.next_end_ns() == 12_000
    assert network.take_finished(12_000) == [group]
    network.settle(12_000)
    assert network.rate(single) == 1.0
    assert network.sent_bytes(12_000)[:, 1].tolist() == [12_000, 3_000]


def test_a_port_has_sent_what_its_streams_have_by_level() -> None:
    """8 kb/s is 1 B/ms. 1,000 B on level 1 go first, 500 B on level 2 wait for 1 s, then 1 B/ms."""
    network = FluidNetwork({"a": 8_000})
    network.add((0,), 500, (2, 0.0))
    network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    assert network.next_end_ns() == 10**9
    assert len(network.take_finished(10**9)) == 1
    network.settle(10**9)
    assert network.sent_bytes(10**9 + 100_000_000)[0, 1:3].tolist() == [1_000, 100]


def test_a_stream_ends_in_the_nanosecond_by_whose_end_it_is_through() -> None:
    """Three of 1,000 B share 8 Gb/s, 1 B/ns: all end at 3,000 ns. 1,001 B alone: at 1,001."""
    network = FluidNetwork({"a": 8 * 10**9})
    for _ in range(3):
        network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    assert network.next_end_ns() == 3_000
    assert len(network.take_finished(3_000)) == 3
    network.add((0,), 1_001, (1, 0.0))
    network.settle(3_000)
    assert network.next_end_ns() == 4_001


def test_streams_that_share_nothing_are_left_alone() -> None:
    """A change on `a` is worked out for the streams on `a`, not for the one on `b`."""
    network = FluidNetwork(BPS)
    network.add(network.ports(["b"]), 1_000, (1, 0.0))
    network.settle(0)
    _, before = network.worked_out
    network.add(network.ports(["a"]), 1_000, (1, 0.0))
    network.settle(0)
    assert network.worked_out[1] == before + 1


def test_a_change_below_leaves_the_levels_above_alone() -> None:
    network = FluidNetwork(BPS)
    for _ in range(5):
        network.add((0,), 1_000, (1, 0.0))
    network.settle(0)
    _, before = network.worked_out
    network.add((0,), 1_000, (2, 0.0))
    network.settle(0)
    assert network.worked_out[1] == before + 1


def test_rows_are_used_again() -> None:
    """Ten thousand streams one after another, never more than two at once."""
    network = FluidNetwork(BPS)
    now_ns = 0
    seen = set()
    for i in range(10_000):
        seen.add(network.add((i % 4,), 1_000, (1, 0.0)))
        network.settle(now_ns)
        now_ns = network.next_end_ns()
        network.take_finished(now_ns)
    assert len(network) == 0
    assert len(seen) <= 2


def test_hundreds_of_streams_outgrow_the_first_rows() -> None:
    """600 of 1 B share 8 b/ns on a: each has 1/600 B/ns, all end at 600 ns."""
    network = FluidNetwork({"a": 8 * 10**9, "b": 8 * 10**9})
    added = [network.add((0, 1), 1, (1, 0.0)) for _ in range(600)]
    network.settle(0)
    assert network.next_end_ns() == 600
    assert network.take_finished(600) == added


def test_a_level_that_is_guaranteed_a_share_gets_it_under_any_load_and_no_more() -> None:
    """8 B/ns. P1 alone has all; with P3 and P6 there it leaves 2 % for each; P3 gets what P1 leaves."""
    network = FluidNetwork({"a": 64 * 10**9, "b": 8 * 10**9}, guarantee=0.02)
    high = network.add((0,), 10**6, (1, 0.0))
    network.settle(0)
    assert network.rate(high) == 8.0
    low = network.add((0,), 10**6, (3, 0.0))
    lowest = network.add((0,), 10**6, (6, 0.0))
    network.settle(0)
    rates = [network.rate(stream) for stream in (high, low, lowest)]
    assert rates == pytest.approx([8 * 0.96, 8 * 0.02, 8 * 0.02])
    network.move(high, (1, 0.0), 1.0)
    network.settle(0)
    rates = [network.rate(stream) for stream in (high, low, lowest)]
    assert rates == pytest.approx([1.0, 7 - 0.16, 0.16])

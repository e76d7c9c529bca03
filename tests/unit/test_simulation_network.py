"""The incremental network against the oracle, which works everything out again at every event."""

from fractions import Fraction

import pytest
from fluid import max_min
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.simulation.network import FluidNetwork, Place, Stream

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
@given(steps)
def test_rates_are_those_of_the_oracle_after_every_change(
    steps: list[tuple[str, tuple[str, ...], Place, float | None, int]],
) -> None:
    """Adds, moves and endings in any order; what is not affected must be right as well."""
    network = FluidNetwork(BPS)
    alive: dict[int, tuple[Stream, tuple[str, ...]]] = {}
    now_ns = 0
    for what, path, place, cap, pick in steps:
        if what in ("add", "both"):
            stream = network.add(now_ns, network.ports(path), 1_000 * (1 + pick), place, cap)
            alive[stream.serial] = stream, path
        if what in ("move", "both") and alive:
            stream, _ = list(alive.values())[pick % len(alive)]
            network.move(now_ns, stream, place, cap)
        if what == "wait":
            end_ns = network.next_end_ns()
            if end_ns is not None:
                now_ns = end_ns
                for done in network.take_finished(now_ns):
                    del alive[done.serial]
        network.settle(now_ns)
        expected = oracle([(path, stream.place, stream.cap) for stream, path in alive.values()])
        assert [stream.rate for stream, _ in alive.values()] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_port_has_sent_what_its_streams_have_by_level() -> None:
    """8 kb/s is 1 B/ms. 1,000 B on level 1 go first, 500 B on level 2 wait for 1 s, then 1 B/ms."""
    network = FluidNetwork({"a": 8_000})
    network.add(0, (0,), 500, (2, 0.0), None)
    network.add(0, (0,), 1_000, (1, 0.0), None)
    network.settle(0)
    assert network.next_end_ns() == 10**9
    assert len(network.take_finished(10**9)) == 1
    network.settle(10**9)
    assert network.sent_bytes(10**9 + 100_000_000)["a"][1:3] == (1_000, 100)


def test_a_stream_ends_in_the_nanosecond_by_whose_end_it_is_through() -> None:
    """Three of 1,000 B share 8 Gb/s, 1 B/ns: all are through at 3,000 ns. 1,001 B alone: at 1,001."""
    network = FluidNetwork({"a": 8 * 10**9})
    for _ in range(3):
        network.add(0, (0,), 1_000, (1, 0.0), None)
    network.settle(0)
    assert network.next_end_ns() == 3_000
    assert len(network.take_finished(3_000)) == 3
    network.add(3_000, (0,), 1_001, (1, 0.0), None)
    network.settle(3_000)
    assert network.next_end_ns() == 4_001


def test_streams_that_share_nothing_are_left_alone() -> None:
    """A change on `a` does not put the ending of a stream on `b` on the list again."""
    network = FluidNetwork(BPS)
    apart = network.add(0, network.ports(["b"]), 1_000, (1, 0.0), None)
    network.settle(0)
    before = apart.version
    network.add(0, network.ports(["a"]), 1_000, (1, 0.0), None)
    network.settle(0)
    assert apart.version == before

"""Levels that share ports by weight: cases worked out by hand, and the law that all rates must keep."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow import Level
from controller.policy import MOST_WEIGHT_RATIO
from testbed.simulation.links.network import FluidNetwork

BYTE_PER_NS = 8 * 10**9

Stream = tuple[tuple[str, ...], int]
"""The path of a stream, and its level."""


def rates(
    bps: dict[str, int], weights: dict[Level, float], *streams: Stream, bundled: bool = False
) -> list[float]:
    network = FluidNetwork(bps, level_weights=weights, bundled=bundled)
    numbers = [network.add(network.ports(path), 1e9, (level, 0.0)) for path, level in streams]
    network.settle(0)
    assert network.held_back(1e-9) == 0
    assert network.fullest <= 1 + 1e-9
    return [network.rate(number) for number in numbers]


@pytest.mark.parametrize("bundled", [False, True])
def test_two_levels_share_a_port_by_weight_and_a_level_shares_its_part_fairly(bundled: bool) -> None:
    """99 : 1 of 1 B/ns; the two streams of the first level have half of its part each."""
    streams: Sequence[Stream] = [(("a",), 1), (("a",), 1), (("a",), 2)]
    found = rates({"a": BYTE_PER_NS}, {Level.P1: 99, Level.P2: 1}, *streams, bundled=bundled)
    assert found == pytest.approx([0.495, 0.495, 0.01])


def test_the_number_of_streams_of_a_level_does_not_change_its_part() -> None:
    found = rates({"a": BYTE_PER_NS}, {Level.P2: 3, Level.P3: 1}, (("a",), 2), *[(("a",), 3)] * 50)
    assert found == pytest.approx([0.75, *[0.005] * 50])


def test_a_level_alone_has_all_of_a_port() -> None:
    assert rates({"a": BYTE_PER_NS}, {Level.P1: 99, Level.P2: 1}, (("a",), 2)) == [1.0]


def test_what_a_level_cannot_use_goes_to_the_others_by_their_weights() -> None:
    """The first level may have half of 1 B/ns and can use 0.2. The other two share 0.8 as 3 : 1."""
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 4, Level.P2: 3, Level.P3: 1})
    capped = network.add((0,), 1e9, (1, 0.0), 0.2)
    second, third = network.add((0,), 1e9, (2, 0.0)), network.add((0,), 1e9, (3, 0.0))
    network.settle(0)
    assert [network.rate(one) for one in (capped, second, third)] == pytest.approx([0.2, 0.6, 0.2])
    assert network.held_back(1e-9) == 0


def test_a_level_that_another_port_holds_back_leaves_its_part_to_its_neighbour() -> None:
    """On b, of 0.5 B/ns, the two first ones have 0.25 each. So the third has 0.75 of a."""
    streams: Sequence[Stream] = [(("a", "b"), 1), (("b",), 2), (("a",), 2)]
    found = rates({"a": BYTE_PER_NS, "b": BYTE_PER_NS // 2}, {Level.P1: 1, Level.P2: 1}, *streams)
    assert found == pytest.approx([0.25, 0.25, 0.75])


def test_two_levels_that_hold_each_other_back_over_two_ports() -> None:
    """Both cross a and b, the first beside nine of its level on a, the second beside nine of its own on b.

    The first has a tenth of what the second leaves of a: x = (1 - y) / 10, and likewise y = (1 - x) / 10. So
    both are 1/11, and so is each of the others, which share the rest of their port with one of the two.
    """
    streams: Sequence[Stream] = [(("a", "b"), 1), (("a", "b"), 2), *[(("a",), 1)] * 9, *[(("b",), 2)] * 9]
    found = rates({"a": BYTE_PER_NS, "b": BYTE_PER_NS}, {Level.P1: 1, Level.P2: 1}, *streams)
    assert found == pytest.approx([1 / 11] * 20)


def test_two_levels_that_would_take_turns_for_ever() -> None:
    """If w = 1, P1 has 1 of d, so y = 0.7 and z = 0.3; then w = 0.7, so y = 1 and z = 0; then w = 1 again.

    On a, y goes before z. So z = 1 - y, w = 1 - z on c, and y = 2 - w - 0.3 on d: w = y = 0.85, and z = 0.15.
    Then c holds P2 back, which uses most of it, and d holds P1 back, with 1.15 of 2.
    """
    bps = {"a": BYTE_PER_NS, "c": BYTE_PER_NS, "d": 2 * BYTE_PER_NS}
    network = FluidNetwork(bps, level_weights={Level.P1: 1, Level.P2: 1})
    w = network.add(network.ports(("d", "c")), 1e9, (2, 0.0))
    capped = network.add(network.ports(("d",)), 1e9, (1, 0.0), 0.3)
    z = network.add(network.ports(("a", "c")), 1e9, (1, 1.0))
    y = network.add(network.ports(("a", "d")), 1e9, (1, 0.0))
    network.settle(0)
    assert [network.rate(one) for one in (w, capped, y, z)] == pytest.approx([0.85, 0.3, 0.85, 0.15])
    assert (network.unsettled, network.held_back(1e-9)) == (0, 0)


def test_levels_above_go_first_and_levels_below_last() -> None:
    """P1 takes 0.6 of 1 B/ns; P2 and P3 share 0.4 as 3 : 1; the scavenger gets nothing."""
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P2: 3, Level.P3: 1})
    top = network.add((0,), 60, (1, 0.0), 0.6)
    numbers = [network.add((0,), 1e9, (level, 0.0)) for level in (2, 3, 7)]
    network.settle(0)
    assert [network.rate(one) for one in numbers] == pytest.approx([0.3, 0.1, 0.0])
    assert network.take_finished(100) == [top]
    network.settle(100)
    assert [network.rate(one) for one in numbers] == pytest.approx([0.75, 0.25, 0.0])


def test_a_guarantee_for_the_levels_below_comes_out_of_what_is_shared() -> None:
    """2 % are kept for the scavenger, which has a stream; 0.98 is shared as 3 : 1."""
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P2: 3, Level.P3: 1}, guarantee=0.02)
    numbers = [network.add((0,), 1e9, (level, 0.0)) for level in (2, 3, 7)]
    network.settle(0)
    assert [network.rate(one) for one in numbers] == pytest.approx([0.735, 0.245, 0.02])


def test_inside_its_part_a_level_keeps_its_order() -> None:
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 3, Level.P2: 1})
    numbers = [network.add((0,), 1e9, place) for place in ((1, 1.0), (1, 0.0), (2, 0.0))]
    network.settle(0)
    assert [network.rate(one) for one in numbers] == pytest.approx([0.0, 0.75, 0.25])
    assert network.held_back(1e-9) == 0


def test_a_stream_that_ends_leaves_its_part_to_the_other_level() -> None:
    """300 B at 0.75 B/ns end at 400 ns, when the other one has sent 100 of its 500 B: it ends at 800 ns."""
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 3, Level.P2: 1})
    first, second = network.add((0,), 300, (1, 0.0)), network.add((0,), 500, (2, 0.0))
    network.settle(0)
    assert network.next_end_ns() == 400
    assert network.take_finished(400) == [first]
    network.settle(400)
    assert network.next_end_ns() == 800
    assert network.take_finished(800) == [second]
    assert network.sent_bytes(800)[0].tolist() == pytest.approx([0, 300, 500, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("slowed", [0, 1])
def test_a_level_that_has_less_than_its_part_is_seen(slowed: int) -> None:
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 3, Level.P2: 1})
    for level in (1, 2):
        network.add((0,), 1e9, (level, 0.0))
    network.settle(0)
    network.falsify(slowed, 0.9)
    assert network.held_back(1e-9) > 0


def test_a_full_port_that_is_shared_by_other_weights_is_seen() -> None:
    """1.2 * 0.75 + 0.4 * 0.25 = 1: the port is full, but the second level has less than its part."""
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 3, Level.P2: 1})
    for level in (1, 2):
        network.add((0,), 1e9, (level, 0.0))
    network.settle(0)
    network.falsify(0, 1.2)
    network.falsify(1, 0.4)
    assert network.held_back(1e-9) == 1


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: weight})


def test_a_level_without_a_weight_between_levels_with_one_is_refused() -> None:
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 3, Level.P3: 1})
    stream = network.add((0,), 1e9, (1, 0.0))
    with pytest.raises(IndexError, match="level 2 has no weight"):
        network.add((0,), 1e9, (2, 0.0))
    with pytest.raises(IndexError, match="level 2 has no weight"):
        network.move(stream, (2, 0.0))


def test_groups_have_no_weights() -> None:
    network = FluidNetwork({"a": BYTE_PER_NS}, level_weights={Level.P1: 3, Level.P2: 1}, bundled=True)
    network.add((0,), 1e9, (1, 0.0), group=network.add_group(0.0))
    with pytest.raises(ValueError, match="no groups with weights"):
        network.settle(0)


BPS = {"a": 8_000, "b": 16_000, "c": 24_000, "d": 8_000}
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "move", "wait", "both"]),
        st.lists(st.sampled_from(sorted(BPS)), min_size=1, max_size=3, unique=True).map(tuple),
        st.tuples(st.sampled_from([1, 2, 4, 6]), st.sampled_from([0.0, 0.0, 1.0])),
        st.none() | st.sampled_from([1e-7, 5e-7]),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(
    steps,
    st.sampled_from([{Level.P2: 99.0, Level.P4: 1.0}, {Level.P1: 2.0, Level.P2: 1.0, Level.P4: 1.0}]),
    st.booleans(),
)
def test_rates_keep_the_law_after_every_change_and_do_not_depend_on_the_way_there(
    steps: list[tuple[str, tuple[str, ...], tuple[int, float], float | None, int]],
    weights: dict[Level, float],
    bundled: bool,
) -> None:
    network = FluidNetwork(BPS, level_weights=weights, bundled=bundled)
    alive: dict[int, tuple[tuple[str, ...], tuple[int, float], float | None]] = {}
    now_ns = 0
    for what, path, place, cap, pick in steps:
        if what in ("add", "both"):
            alive[network.add(network.ports(path), 1_000 * (1 + pick), place, cap)] = path, place, cap
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
        assert network.unsettled == 0
        assert network.held_back(1e-9) == 0
        assert network.fullest <= 1 + 1e-9
        anew = FluidNetwork(BPS, level_weights=weights, bundled=bundled)
        numbers = [anew.add(anew.ports(path), 1e6, place, cap) for path, place, cap in alive.values()]
        anew.settle(0)
        found = [network.rate(stream) for stream in alive]
        assert found == pytest.approx([anew.rate(number) for number in numbers], rel=1e-9, abs=1e-12)


def networks_that_break_the_law(ratio: float) -> int:
    """Count those of 300 random networks, three levels and the same seed each time, that break the law."""
    random = Random(5)
    broken = 0
    for _ in range(300):
        weights = [1.0, ratio**0.5, ratio]
        random.shuffle(weights)
        network = FluidNetwork(
            dict.fromkeys("abcdefgh", BYTE_PER_NS),
            level_weights=dict(zip((Level.P2, Level.P3, Level.P4), weights, strict=True)),
        )
        for _ in range(random.randint(2, 40)):
            path = network.ports(random.sample("abcdefgh", random.randint(1, 3)))
            network.add(path, 1e9, (random.choice((2, 3, 4)), 0.0), random.choice((None, None, 0.05)))
        network.settle(0)
        broken += network.unsettled > 0 or network.held_back(1e-9) > 0 or network.fullest > 1 + 1e-9
    return broken


def test_random_networks_of_several_levels_keep_the_law() -> None:
    """Without half steps, one of these goes in circles."""
    random = Random(7)
    levels = (Level.P1, Level.P2, Level.P3, Level.P4, Level.P5)
    for _ in range(300):
        used = levels[: random.randint(2, 5)]
        ratio = random.choice((1.0, 2.0, 10.0, 99.0, MOST_WEIGHT_RATIO))
        ports = "abcdefghijklmnop"[: random.choice((4, 8, 16))]
        network = FluidNetwork(
            {port: random.choice((1, 1, 2, 5)) * BYTE_PER_NS for port in ports},
            level_weights={level: ratio ** random.random() for level in used},
        )
        for _ in range(random.randint(2, 40)):
            path = network.ports(random.sample(ports, random.randint(1, random.choice((2, 4)))))
            place = int(random.choice(used)), float(random.choice((0, 0, 1)))
            network.add(path, 1e9, place, random.choice((None, None, 0.05, 0.3)))
        network.settle(0)
        assert (network.unsettled, network.held_back(1e-9)) == (0, 0)
        assert network.fullest <= 1 + 1e-9


def test_the_largest_ratio_of_weights_that_policies_may_ask_for_keeps_the_law() -> None:
    assert networks_that_break_the_law(MOST_WEIGHT_RATIO) == 0
    assert networks_that_break_the_law(1e10) > 100, "the networks would not show it"

"""An order that counts on the ports of hosts only: cases worked out by hand, and the law of all rates."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow import Level
from testbed.simulation.links.network import FluidNetwork

BYTE_PER_NS = 8 * 10**9
HOSTS = ("up1", "up2")
BPS = dict.fromkeys((*HOSTS, "down3", "down4"), BYTE_PER_NS)

Stream = tuple[tuple[str, ...], tuple[int, float]]
"""The path of a stream, and its place."""


def rates(*streams: Stream, bundled: bool = False) -> list[float]:
    network = FluidNetwork(BPS, ordered_ports=HOSTS, bundled=bundled)
    numbers = [network.add(network.ports(path), 1e9, place) for path, place in streams]
    network.settle(0)
    assert (network.unsettled, network.held_back(1e-9)) == (0, 0)
    return [network.rate(number) for number in numbers]


@pytest.mark.parametrize("bundled", [False, True])
def test_a_host_keeps_the_order_and_a_switch_shares_a_level_fairly(bundled: bool) -> None:
    """From host 1, the first in order goes before the second. Into server 3, the third one has as much as the
    first, although its order is larger; with an order on all ports it would get nothing."""
    streams: list[Stream] = [
        (("up1", "down3"), (3, 1.0)),
        (("up1", "down4"), (3, 2.0)),
        (("up2", "down3"), (3, 9.0)),
    ]
    assert rates(*streams, bundled=bundled) == pytest.approx([0.5, 0.5, 0.5])
    everywhere = FluidNetwork(BPS, bundled=bundled)
    numbers = [everywhere.add(everywhere.ports(path), 1e9, place) for path, place in streams]
    everywhere.settle(0)
    assert [everywhere.rate(number) for number in numbers] == pytest.approx([1.0, 0.0, 0.0])


def test_the_first_in_order_has_its_host_to_itself() -> None:
    found = rates((("up1", "down3"), (3, 2.0)), (("up1", "down4"), (3, 1.0)))
    assert found == pytest.approx([0.0, 1.0])


def test_levels_count_on_all_ports() -> None:
    """The stream on P2 takes the downlink, although it is the last in order at its host."""
    found = rates((("up1", "down3"), (3, 1.0)), (("up2", "down3"), (2, 9.0)))
    assert found == pytest.approx([0.0, 1.0])


def test_streams_of_one_order_share_what_those_before_them_leave() -> None:
    """Three into server 3 have a third each. So host 1 has two thirds left for its last two, of one order."""
    third = float(Fraction(1, 3))
    found = rates(
        (("up1", "down3"), (3, 1.0)),
        (("up2", "down3"), (3, 1.0)),
        (("up2", "down3"), (3, 1.0)),
        (("up1", "down4"), (3, 5.0)),
        (("up1", "down4"), (3, 5.0)),
    )
    assert found == pytest.approx([third] * 5)


def test_the_first_in_order_goes_first_to_one_server_too() -> None:
    """The host is before the switch: what it does not send, the switch cannot share."""
    assert rates((("up1", "down3"), (3, 2.0)), (("up1", "down3"), (3, 1.0))) == pytest.approx([0.0, 1.0])


def test_the_second_of_a_host_is_not_beside_the_first_of_another_while_its_own_first_takes_all() -> None:
    """Server 3 is for the first of host 1 and the second of host 2, server 4 the other way round. The firsts
    fill their hosts, so the seconds send nothing."""
    found = rates(
        (("up1", "down3"), (3, 1.0)),
        (("up1", "down4"), (3, 2.0)),
        (("up2", "down4"), (3, 1.0)),
        (("up2", "down3"), (3, 2.0)),
    )
    assert found == pytest.approx([1.0, 0.0, 1.0, 0.0])


def test_two_hosts_that_would_take_turns_for_ever() -> None:
    """If y has all 5 B/ns of host 2, x has nothing there, so z has 1 of host 1. The switch then leaves y 4.
    So x has 1, z has nothing, and y has 5 again.

    So x = 5 - y at host 2, z = 1 - x at host 1, and y = 5 - z in the switch: y = 4.5, and x = z = 0.5.
    """
    bps = {"host1": BYTE_PER_NS, "host2": 5 * BYTE_PER_NS, "switch": 5 * BYTE_PER_NS}
    network = FluidNetwork(bps, ordered_ports=("host1", "host2"))
    x = network.add(network.ports(("host1", "host2")), 1e9, (2, 2.0))
    y = network.add(network.ports(("host2", "switch")), 1e9, (2, 1.0))
    z = network.add(network.ports(("host1", "switch")), 1e9, (2, 3.0))
    network.settle(0)
    assert [network.rate(one) for one in (x, y, z)] == pytest.approx([0.5, 4.5, 0.5])
    assert (network.unsettled, network.held_back(1e-9)) == (0, 0)


def test_random_networks_keep_the_law() -> None:
    """Without half steps, three of these go in circles."""
    random = Random(10)
    for _ in range(300):
        ports = "abcdefghijklmnop"[: random.choice((4, 8, 16))]
        network = FluidNetwork(
            {port: random.choice((1, 1, 2, 5)) * BYTE_PER_NS for port in ports},
            ordered_ports=random.sample(ports, random.randint(1, len(ports) - 1)),
        )
        for _ in range(random.randint(2, random.choice((20, 40)))):
            path = network.ports(random.sample(ports, random.randint(1, random.choice((2, 4)))))
            order = float(random.randint(0, random.choice((1, 3, 40))))
            network.add(path, 1e9, (2, order), random.choice((None, None, 0.05, 0.3)))
        network.settle(0)
        assert (network.unsettled, network.held_back(1e-9)) == (0, 0)
        assert network.fullest <= 1 + 1e-9


def test_a_cap_leaves_the_rest_to_the_next_in_order() -> None:
    network = FluidNetwork(BPS, ordered_ports=HOSTS)
    first = network.add(network.ports(("up1", "down3")), 1e9, (3, 1.0), 0.3)
    second = network.add(network.ports(("up1", "down3")), 1e9, (3, 2.0))
    network.settle(0)
    assert (network.rate(first), network.rate(second)) == pytest.approx((0.3, 0.7))
    assert network.held_back(1e-9) == 0


def test_a_host_that_does_not_keep_the_order_is_seen() -> None:
    network = FluidNetwork(BPS, ordered_ports=HOSTS)
    for order in (1.0, 2.0):
        network.add(network.ports(("up1", "down3")), 1e9, (3, order))
    network.settle(0)
    network.falsify(0, 0.5)
    assert network.held_back(1e-9) > 0


def test_levels_with_weights_keep_the_order_of_hosts_inside_their_parts() -> None:
    """3 : 1 on every port. Host 1 gives all of the 0.75 to its first of P1, and P2 has the rest."""
    network = FluidNetwork(BPS, ordered_ports=HOSTS, level_weights={Level.P1: 3, Level.P2: 1})
    places = ((1, 2.0), (1, 1.0), (2, 0.0))
    numbers = [network.add(network.ports(("up1", "down3")), 1e9, place) for place in places]
    network.settle(0)
    assert [network.rate(number) for number in numbers] == pytest.approx([0.0, 0.75, 0.25])
    assert network.held_back(1e-9) == 0


def test_groups_are_not_for_ordered_ports() -> None:
    network = FluidNetwork(BPS, ordered_ports=HOSTS, bundled=True)
    network.add((0,), 1e9, (1, 0.0), group=network.add_group(0.0))
    with pytest.raises(ValueError, match="with ordered ports"):
        network.settle(0)


streams = st.lists(
    st.tuples(
        st.sampled_from(HOSTS),
        st.sampled_from(["down3", "down4"]),
        st.integers(1, 3),
        st.integers(0, 5),
        st.none() | st.sampled_from([0.1, 0.4]),
    ),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(streams, st.booleans())
def test_rates_keep_the_law_while_streams_end(
    made: list[tuple[str, str, int, int, float | None]], bundled: bool
) -> None:
    network = FluidNetwork(BPS, ordered_ports=HOSTS, bundled=bundled)
    for number, (up, down, level, order, cap) in enumerate(made):
        network.add(network.ports((up, down)), 100 + 37 * number, (level, float(order)), cap)
    now_ns: int | None = 0
    while now_ns is not None:
        network.settle(now_ns)
        assert (network.unsettled, network.held_back(1e-9)) == (0, 0)
        assert network.fullest <= 1 + 1e-9
        now_ns = network.next_end_ns()
        if now_ns is not None:
            network.take_finished(now_ns)
    assert len(network) == 0

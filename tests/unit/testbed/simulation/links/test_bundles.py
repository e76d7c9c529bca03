"""Bundles of streams that are alike, against the network that has a row for each stream."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.simulation.links.network import FluidNetwork, Place

BPS = {"a": 8_000_000_000, "b": 16_000_000_000, "c": 24_000_000_000}

paths = st.sampled_from([("a",), ("a", "b"), ("b", "c"), ("c",)])
places = st.tuples(st.integers(3, 4), st.sampled_from([0.0, 1.0]))
caps = st.sampled_from([None, None, None, 0.3])
sizes = st.sampled_from([1_000, 1_000, 2_500]) | st.integers(1, 50_000)


@dataclass
class Step:
    """After `wait_ns`: so many streams are added, and some of those there are move."""

    wait_ns: int
    count: int
    path: tuple[str, ...]
    size: int
    place: Place
    cap: float | None
    moved: list[tuple[int, Place, float | None]]


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from([0, 0, 10, 900, 5_000]),
        st.integers(0, 6),
        paths,
        sizes,
        places,
        caps,
        st.lists(st.tuples(st.integers(0, 99), places, caps), max_size=3),
    ),
    min_size=1,
    max_size=15,
)


@dataclass
class Seen:
    """What a network did: ends by stream; at each step, what its streams had left and its ports had sent."""

    ends_ns: dict[int, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    left: list[dict[int, float]] = field(default_factory=list)
    sent: list[list[float]] = field(default_factory=list)
    busy_ns: list[float] = field(default_factory=list)


def played(script: list[Step], *, guarantee: float, bundled: bool) -> Seen:
    """Streams are numbered in order of addition."""
    network = FluidNetwork(BPS, guarantee=guarantee, bundled=bundled)
    seen = Seen()
    alive: dict[int, int] = {}
    now_ns, added = 0, 0

    def go_to(until_ns: int | None) -> None:
        nonlocal now_ns
        while (end_ns := network.next_end_ns()) is not None and (until_ns is None or end_ns <= until_ns):
            now_ns = end_ns
            ended = network.take_finished(now_ns)
            numbers = {stream: number for number, stream in alive.items()}
            for stream in ended:
                seen.ends_ns[numbers[stream]] = now_ns
                seen.order.append(numbers[stream])
                del alive[numbers[stream]]
            network.settle(now_ns)
        now_ns = now_ns if until_ns is None else until_ns

    for step in script:
        go_to(now_ns + step.wait_ns)
        for _ in range(step.count):
            alive[added] = network.add(network.ports(step.path), step.size, step.place, step.cap)
            added += 1
        for pick, place, cap in step.moved:
            if pick in alive:
                network.move(alive[pick], place, cap)
        seen.busy_ns.append(network.busy_ns(now_ns, "a"))
        left = network.left_bytes(now_ns)
        seen.left.append({number: left[stream] for number, stream in alive.items()})
        network.settle(now_ns)
        seen.sent.append(network.sent_bytes(now_ns).ravel().tolist())
        assert len(network) == len(alive)
        assert network.fullest_now() <= 1 + 1e-9
        assert guarantee or network.held_back(1e-9) == 0
    go_to(None)
    seen.sent.append(network.sent_bytes(now_ns).ravel().tolist())
    return seen


@settings(deadline=None, max_examples=300)
@given(steps, st.sampled_from([0.0, 0.0, 0.02]))
def test_bundles_change_nothing_but_rounding(script: list[Step], guarantee: float) -> None:
    alone = played(script, guarantee=guarantee, bundled=False)
    bundled = played(script, guarantee=guarantee, bundled=True)
    assert bundled.ends_ns == {
        number: pytest.approx(end_ns, rel=1e-9, abs=2) for number, end_ns in alone.ends_ns.items()
    }
    assert bundled.order == sorted(
        bundled.order, key=lambda number: (bundled.ends_ns[number], number)
    )  # streams that end together, in order of addition
    # In a nanosecond more or less, a port of 3 bytes/ns sends 3 bytes.
    for mine, other in zip(bundled.left, alone.left, strict=True):
        both = mine.keys() & other.keys()
        assert [mine[number] for number in both] == pytest.approx([other[n] for n in both], abs=10)
    for mine_sent, other_sent in zip(bundled.sent, alone.sent, strict=True):
        assert mine_sent == pytest.approx(other_sent, abs=10)
    assert bundled.busy_ns == pytest.approx(alone.busy_ns, abs=50)


def test_streams_that_are_alike_are_worked_out_once() -> None:
    network = FluidNetwork(BPS, bundled=True)
    for size in range(1, 101):
        network.add(network.ports(["a", "b"]), 1_000 * size, (3, 0.0))
    network.settle(0)
    assert (len(network), network.worked_out) == (100, (1, 1))
    assert network.rate(0) == pytest.approx(1 / 100)


def test_members_end_one_by_one_and_speed_up_those_that_stay() -> None:
    """By hand, at 1 byte/ns: 3 streams until each has 1,000 bytes, then 2 for 1,000 bytes more, then 1."""
    network = FluidNetwork(BPS, bundled=True)
    for size in (3_000, 1_000, 2_000):
        network.add(network.ports(["a"]), size, (3, 0.0))
    ends = []
    network.settle(0)
    while (now_ns := network.next_end_ns()) is not None:
        ends.append((now_ns, network.take_finished(now_ns)))
        network.settle(now_ns)
    assert ends == [(3_000, [1]), (5_000, [2]), (6_000, [0])]
    assert network.sent_bytes(6_000)[0].sum() == 6_000


def test_hundreds_of_ends_do_not_add_up_their_rounding() -> None:
    """Every end is rounded up to a nanosecond, and the bundle goes on from where it really is."""
    network = FluidNetwork(BPS, bundled=True)
    sizes = [1_001 + 7 * i for i in range(500)]
    for size in sizes:
        network.add(network.ports(["a"]), size, (3, 0.0))
    network.settle(0)
    now_ns = 0
    while (end_ns := network.next_end_ns()) is not None:
        now_ns = end_ns
        network.take_finished(now_ns)
        network.settle(now_ns)
    # The port always has something to send at its 1 byte/ns.
    assert now_ns == pytest.approx(sum(sizes), abs=2)


def test_a_stream_of_a_bundle_has_no_weights() -> None:
    network = FluidNetwork(BPS, bundled=True)
    with pytest.raises(ValueError, match="weights"):
        network.add(network.ports(["a", "b"]), 1_000, (3, 0.0), weights=[1.0, 2.0])


def test_bundles_that_are_held_back_count_all_their_streams() -> None:
    network = FluidNetwork(BPS, bundled=True)
    streams = [network.add(network.ports(["a"]), 1_000, (3, 0.0)) for _ in range(3)]
    network.settle(0)
    network.falsify(streams[0], 0.5)
    assert network.held_back(1e-9) == 3


# --- groups -------------------------------------------------------------------------------------


groups = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "order", "end", "anew"]),
        st.integers(0, 3),
        paths,
        st.sampled_from([1_000, 2_500, 40_000]),
        st.sampled_from([1.0, 2.0, 3.0, 4.0]),
        st.integers(3, 4),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(groups, st.booleans(), st.sampled_from([0.0, 0.1]))
def test_streams_of_a_group_are_served_as_if_each_had_the_order_of_the_group(
    script: list[tuple[str, int, tuple[str, ...], int, float, int, bool]], some_alone: bool, guarantee: float
) -> None:
    """The network without bundles moves each stream by itself. Some streams can be in no group.

    Groups come and go, and several changes can come between two settlings.
    """
    plain = FluidNetwork(BPS, guarantee=guarantee)
    grouped = FluidNetwork(BPS, guarantee=guarantee, bundled=True)
    numbers = [grouped.add_group(float(i)) for i in range(4)]
    orders = [float(i) for i in range(4)]
    streams: dict[int, tuple[int, int, int]] = {}  # in `grouped` -> in `plain`, group, level
    now_ns = 0
    for what, which, path, size, order, level, at_once in script:
        if what == "end":
            plain.settle(now_ns)
            grouped.settle(now_ns)
        if what == "add":
            alone = some_alone and which == 3
            stream = plain.add(plain.ports(path), size, (level, order if alone else orders[which]))
            there = grouped.add(
                grouped.ports(path), size, (level, order), group=-1 if alone else numbers[which]
            )
            streams[there] = stream, -1 if alone else which, level
        elif what == "order":
            orders[which] = order
            grouped.set_order(numbers[which], order)
            for stream, group, its_level in streams.values():
                if group == which:
                    plain.move(stream, (its_level, order))
        elif what == "anew":
            if all(group != which for _, group, _ in streams.values()):
                grouped.drop_group(numbers[which])
                numbers[which], orders[which] = grouped.add_group(order), order
        elif (end_ns := plain.next_end_ns()) is not None:
            assert grouped.next_end_ns() == pytest.approx(end_ns, abs=2, rel=1e-9)
            now_ns = max(end_ns, grouped.next_end_ns() or 0) + 2
            ended = plain.take_finished(now_ns)
            assert sorted(streams.pop(there)[0] for there in grouped.take_finished(now_ns)) == sorted(ended)
        if not at_once:
            continue
        plain.settle(now_ns)
        grouped.settle(now_ns)
        rates = [plain.rate(stream) for stream, _, _ in streams.values()]
        assert [grouped.rate(there) for there in streams] == pytest.approx(rates, rel=1e-9, abs=1e-12)
        assert guarantee or grouped.held_back(1e-9) == 0
    assert grouped.sent_bytes(now_ns).ravel() == pytest.approx(plain.sent_bytes(now_ns).ravel(), abs=10)


def test_a_new_order_that_overtakes_nobody_works_out_nothing() -> None:
    network = FluidNetwork(BPS, bundled=True)
    first, second = network.add_group(1.0), network.add_group(5.0)
    for group in (first, second):
        network.add(network.ports(["a"]), 1_000, (3, 0.0), group=group)
    network.settle(0)
    settlings, _ = network.worked_out
    network.set_order(second, 3.0)
    network.settle(10)
    assert network.worked_out[0] == settlings
    network.set_order(second, 0.5)
    network.settle(20)
    assert (network.worked_out[0], network.rate(0), network.rate(1)) == (settlings + 1, 0.0, 1.0)

"""What ports must have sent, from when flows began and ended.

The line is 1 B/s in most cases, so bytes are seconds.
"""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.coordinator.lines import Ahead, Crossed, Crossing, by_port, most_ahead

S = 1_000_000_000
LINE_BPS = 8.0
SECONDS = st.integers(0, 30)


def crossed(flow: str, size: int, begin_s: float, end_s: float) -> Crossed:
    return Crossed(flow=flow, size_bytes=size, begin_ns=round(begin_s * S), end_ns=round(end_s * S))


def crossing(
    flow: str, ports: dict[str, int], begin_s: int, end_s: int, collective: str | None = None
) -> Crossing:
    return Crossing(
        flow=flow,
        collective=collective,
        permit_ns=begin_s * S,
        finish_ns=end_s * S,
        ports=tuple(ports),
        sizes=tuple(ports.values()),
    )


def test_flows_in_turn_at_line_rate_are_not_ahead() -> None:
    assert most_ahead([crossed("a", 10, 0, 10), crossed("b", 5, 10, 15)], LINE_BPS) is None


def test_flows_that_share_the_line_are_not_ahead() -> None:
    assert most_ahead([crossed("a", 10, 0, 20), crossed("b", 10, 0, 20)], LINE_BPS) is None


def test_a_flow_that_is_faster_than_the_line_is_ahead_by_what_the_line_could_not_carry() -> None:
    found = most_ahead([crossed("a", 10, 3, 9)], LINE_BPS)
    assert found == Ahead(
        ahead_bytes=pytest.approx(4.0), sent_bytes=10, begin_ns=3 * S, end_ns=9 * S, last="a"
    )


def test_flows_none_of_which_is_faster_than_the_line_can_be_so_together() -> None:
    """Two flows of 8 B in the same 10 s: 16 B, of which the line carries 10."""
    found = most_ahead([crossed("a", 8, 0, 10), crossed("b", 8, 0, 10)], LINE_BPS)
    assert found is not None
    assert (found.sent_bytes, found.ahead_bytes) == (16, pytest.approx(6.0))


def test_the_interval_leaves_out_flows_that_had_more_time() -> None:
    """20 B in 10 s; the flows around them had 100 s for 10 B each."""
    around = [crossed("long", 10, 0, 100), crossed("longer", 10, 0, 100)]
    found = most_ahead([*around, crossed("a", 12, 40, 50), crossed("b", 8, 41, 50)], LINE_BPS)
    assert found is not None
    assert (found.sent_bytes, found.begin_ns, found.end_ns) == (20, 40 * S, 50 * S)


def worst(flows: Sequence[Crossed]) -> float:
    """The same by looking at every interval that begins with a flow and ends with one."""
    found = 0.0
    for first, last in itertools.product(flows, flows):
        inside = [f for f in flows if f.begin_ns >= first.begin_ns and f.end_ns <= last.end_ns]
        if last.end_ns >= first.begin_ns:
            found = max(found, sum(f.size_bytes for f in inside) - (last.end_ns - first.begin_ns) / S)
    return found


@given(st.lists(st.tuples(st.integers(1, 20), SECONDS, SECONDS), max_size=8))
def test_the_interval_is_the_worst_of_all(drawn: list[tuple[int, int, int]]) -> None:
    flows = [crossed(str(i), size, begin, begin + took) for i, (size, begin, took) in enumerate(drawn)]
    found = most_ahead(flows, LINE_BPS)
    assert (0.0 if found is None else found.ahead_bytes) == pytest.approx(worst(flows), abs=1e-6)


def test_a_flow_crosses_each_port_of_its_path_with_all_its_bytes() -> None:
    found = by_port([crossing("f", {"h1->s1": 9, "s1->h2": 9}, 1, 4)])
    assert found == {port: [crossed("f", 9, 1, 4)] for port in ("h1->s1", "s1->h2")}


def test_a_share_may_be_on_its_way_until_the_last_member_is_done() -> None:
    """A member that only sends is done when its kernel has the bytes. 6 B go to h2, and 3 B to h3."""
    shares = [
        crossing("c.0", {"h1->s1": 9, "s1->h2": 6, "s1->h3": 3}, 1, 2, "c"),
        crossing("c.1", {"h2->s1": 5}, 3, 8, "c"),
    ]
    found = by_port(shares)
    assert found["s1->h2"] == [crossed("c.0", 6, 1, 8)]
    assert found["s1->h3"] == [crossed("c.0", 3, 1, 8)]
    assert found["h2->s1"] == [crossed("c.1", 5, 3, 8)]


def test_a_member_whose_share_stays_in_its_server_still_tells_when_the_collective_was_done() -> None:
    shares = [crossing("c.0", {"h1->s1": 9}, 1, 2, "c"), crossing("c.1", {}, 1, 7, "c")]
    assert by_port(shares) == {"h1->s1": [crossed("c.0", 9, 1, 7)]}

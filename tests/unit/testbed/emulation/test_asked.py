"""What a scenario asked for, and what is left of a disturbance without it. Times are wall seconds."""

import pytest

from testbed.emulation.asked import Asked, Window, longest_outside
from testbed.emulation.links import Change, Down, Outages
from testbed.faults import LinkFault

S = 1_000_000_000


def window(begin_s: float, end_s: float | None = None) -> Window:
    return Window(begin_ns=round(begin_s * S), end_ns=None if end_s is None else round(end_s * S))


@pytest.mark.parametrize(
    ("windows", "begin_s", "seconds"),
    [
        ((), 10, 10),
        ((window(10, 20),), 10, 0),
        ((window(9, 21),), 10, 0),
        ((window(13, 20),), 10, 3),
        ((window(10, 14),), 14, 6),
        ((window(12, 15), window(14, 19)), 10, 2),
        ((window(11, 12), window(18, 19)), 12, 6),
        ((window(16),), 10, 6),  # not over yet
        ((window(1, 3), window(22, 30)), 10, 10),
    ],
)
def test_the_longest_part_of_ten_seconds_outside_some_windows(
    windows: tuple[Window, ...], begin_s: int, seconds: int
) -> None:
    assert longest_outside(10 * S, 20 * S, windows)[1] == seconds * S
    if seconds:
        assert longest_outside(10 * S, 20 * S, windows)[0] == begin_s * S


def outages(*events: tuple[float, bool]) -> Outages:
    made = Outages({"nh1-eth2": "link h1-s1"})
    for second, up in events:
        made.changed(Change(device="nh1-eth2", up=up), round(second * S))
    return made


def asked_for(link: str) -> list[Window]:
    assert link == "link h1-s1"
    return [window(4.7, 6.3)]


def test_an_outage_that_was_asked_for_is_none() -> None:
    assert outages((5.0, False), (6.0, True)).until(9 * S, asked_for) == []


def test_one_that_goes_on_after_its_time_is_one_from_then_on() -> None:
    found = outages((5.0, False), (8.3, True)).until(9 * S, asked_for)
    assert found == [Down(link="link h1-s1", begin_wall_ns=round(6.3 * S), wall_ns=2 * S)]


def test_another_outage_of_the_same_link_is_seen() -> None:
    made = outages((5.0, False), (6.0, True), (7.0, False), (7.5, True))
    assert made.until(9 * S, asked_for) == [Down(link="link h1-s1", begin_wall_ns=7 * S, wall_ns=S // 2)]


def test_a_link_is_given_up_only_for_the_time_that_nobody_asked_for() -> None:
    made = outages((5.0, False))
    assert made.lasting(16 * S, asked_for) == []
    assert made.lasting(17 * S, asked_for) == ["link h1-s1"]
    assert made.lasting(99 * S, lambda link: [window(4.9)]) == []


def link(share: float) -> Asked:
    fault = LinkFault(link="h1-s1", ports=("h1->s1",), share=share, from_ns=0, to_ns=None)
    return Asked(fault=fault, window=window(5, 9))


def test_tcp_is_upset_until_it_has_tried_again_after_an_outage() -> None:
    assert link(0.0).upset == window(5, 10.5)


def test_tcp_is_upset_by_a_slower_link_until_it_knows_its_round_trips() -> None:
    assert link(0.5).upset == window(5, 6.5)

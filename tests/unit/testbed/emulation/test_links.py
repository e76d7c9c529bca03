"""Outages of links: what the kernel's messages say, and how long a link of two devices was down."""

import struct

from testbed.emulation.links import Change, Down, Outages, changes

S = 1_000_000_000
BOTH = {"nh1-eth2": "link h1-s1", "s1-eth1": "link h1-s1", "nh2-eth2": "link h2-s1"}


def message(kind: int, flags: int, name: str) -> bytes:
    """A message about a device as rtnetlink(7) lays it out, with an attribute (MTU) before the name."""
    raw = name.encode() + b"\0"
    attributes = struct.pack("=HHI", 8, 4, 1500) + struct.pack("=HH", 4 + len(raw), 3) + raw
    attributes += bytes(-len(attributes) % 4)
    link = struct.pack("=BxHiII", 0, 1, 7, flags, 0xFFFFFFFF)
    return struct.pack("=IHHII", 16 + len(link) + len(attributes), kind, 0, 0, 0) + link + attributes


def test_a_device_can_send_if_it_is_up_and_so_is_the_other_end() -> None:
    up, carrier = 1, 1 << 16
    data = b"".join(
        [
            message(16, up | carrier, "nh1-eth2"),
            message(16, up, "s1-eth1"),
            message(16, carrier, "nh2-eth2"),
            message(17, up | carrier, "s1-eth2"),
            message(20, up | carrier, "an-address"),
        ]
    )
    assert list(changes(data)) == [
        Change(device="nh1-eth2", up=True),
        Change(device="s1-eth1", up=False),
        Change(device="nh2-eth2", up=False),
        Change(device="s1-eth2", up=False),  # it was deleted
    ]


def outages(*events: tuple[float, str, bool]) -> Outages:
    made = Outages(BOTH)
    for second, device, up in events:
        made.changed(Change(device=device, up=up), round(second * S))
    return made


def test_both_ends_of_a_link_report_one_outage() -> None:
    made = outages(
        (1.0, "nh1-eth2", False), (1.1, "s1-eth1", False), (3.0, "nh1-eth2", True), (3.0, "s1-eth1", True)
    )
    assert made.until(9 * S) == [Down(link="link h1-s1", begin_wall_ns=1 * S, wall_ns=2 * S)]


def test_a_link_that_stays_down_is_down_until_now() -> None:
    made = outages((1.0, "nh2-eth2", False), (2.0, "nh1-eth2", False), (2.5, "nh1-eth2", True))
    assert made.until(4 * S) == [
        Down(link="link h2-s1", begin_wall_ns=1 * S, wall_ns=3 * S),
        Down(link="link h1-s1", begin_wall_ns=2 * S, wall_ns=S // 2),
    ]
    assert made.lasting(11 * S) == []
    assert made.lasting(11 * S + 1) == ["link h2-s1"]


def test_outages_that_have_ended_can_be_forgotten() -> None:
    made = outages((1.0, "nh2-eth2", False), (2.0, "nh2-eth2", True), (3.0, "nh1-eth2", False))
    made.forget()
    assert made.until(5 * S) == [Down(link="link h1-s1", begin_wall_ns=3 * S, wall_ns=2 * S)]


def test_a_message_that_repeats_a_state_changes_nothing() -> None:
    made = outages((1.0, "nh1-eth2", True), (2.0, "nh1-eth2", False), (2.5, "nh1-eth2", False))
    assert made.until(3 * S) == [Down(link="link h1-s1", begin_wall_ns=2 * S, wall_ns=S)]


def test_devices_of_no_link_do_not_count() -> None:
    assert outages((1.0, "lo", False)).until(3 * S) == []

"""Datagrams among three servers, which are addresses of the loopback interface here."""

import socket
import struct
from collections.abc import Iterator

import pytest

from workers.neighbours import Neighbours

OWN, OTHER, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
DSCP = 56


def free_port() -> int:
    """A UDP port that is free at all three."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def two(port: int) -> Iterator[tuple[Neighbours, Neighbours]]:
    made = Neighbours(OWN, port, (OTHER, THIRD), DSCP), Neighbours(OTHER, port, (OWN,), None)
    yield made
    for one in made:
        one.close()


def test_who_greets_is_heard_once(two: tuple[Neighbours, Neighbours]) -> None:
    own, other = two
    other.greet()
    other.greet()
    assert own.heard() == (OTHER,)
    assert own.heard() == ()


def test_a_server_that_is_not_there_holds_nobody_up(two: tuple[Neighbours, Neighbours]) -> None:
    own, other = two
    own.greet()  # to the third one, too
    own.greet()
    assert other.heard() == (OWN,)
    other.greet()
    assert own.heard() == (OTHER,)


def test_who_is_no_neighbour_is_not_heard(two: tuple[Neighbours, Neighbours], port: int) -> None:
    _, other = two
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind((THIRD, 0))
        stranger.sendto(b"x" * 100, (OTHER, port))
    assert other.heard() == ()


def test_greetings_have_their_mark(port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as receiver:
        receiver.bind((OTHER, port))
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        receiver.settimeout(5.0)
        sender = Neighbours(OWN, port, (OTHER,), DSCP)
        sender.greet()
        _, [(_, kind, value)], _, _ = receiver.recvmsg(16, socket.CMSG_SPACE(1))
        sender.close()
    assert (kind, struct.unpack("B", value[:1])[0] >> 2) == (socket.IP_TOS, DSCP)


def test_a_port_that_is_taken_is_refused(two: tuple[Neighbours, Neighbours], port: int) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        Neighbours(OWN, port, (OTHER,), None)

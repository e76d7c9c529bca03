"""Marks on this process's own connections: what a socket is told while it is in use."""

import os
import socket

import pytest

from controller.protocol import TcpConnection
from workers.marking import Marker


def pair() -> tuple[socket.socket, socket.socket, TcpConnection]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        out = socket.create_connection(server.getsockname())
        back, _ = server.accept()
    (src_ip, src_port), (dst_ip, dst_port) = out.getsockname(), out.getpeername()
    return out, back, TcpConnection(src_ip=src_ip, src_port=src_port, dst_ip=dst_ip, dst_port=dst_port)


def tos(one: socket.socket) -> int:
    return one.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)


def test_a_connection_begins_at_control_and_is_marked_as_told() -> None:
    """DSCP 56 and 24 are the upper six bits of 224 and 96."""
    out, back, connection = pair()
    marker = Marker(56)
    marker.take(connection, out.fileno())
    assert tos(out) == 224
    marker.mark([connection], 24)
    assert tos(out) == 96
    assert tos(back) == 0  # the other end marks its own packets
    out.close()
    back.close()


def test_a_number_that_now_belongs_to_another_file_is_not_touched() -> None:
    out, back, connection = pair()
    marker = Marker(56)
    marker.take(connection, out.fileno())
    number = out.fileno()
    out.close()
    other, theirs, _ = pair()
    os.dup2(other.fileno(), number)
    marker.mark([connection], 24)
    assert tos(other) == 0
    os.close(number)
    for one in (back, other, theirs):
        one.close()


def test_an_unknown_connection_is_an_error() -> None:
    _, _, connection = pair()
    with pytest.raises(KeyError):
        Marker(56).mark([connection], 24)

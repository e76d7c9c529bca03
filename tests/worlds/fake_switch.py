"""The smallest OpenFlow 1.3 switch that a controller accepts: a socket and a few messages.

It decodes rules from the bytes on the wire into the controller's own `FlowMod`, as the OpenFlow 1.3
specification says, and answers barriers only on request.
"""

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

from controller.openflow import Command, FlowMod, Match

_VERSION = 4
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _FEATURES_REQUEST, _FEATURES_REPLY = 0, 1, 2, 3, 5, 6
_FLOW_REMOVED = 11
_FLOW_MOD, _MULTIPART_REQUEST, _MULTIPART_REPLY, _BARRIER_REQUEST, _BARRIER_REPLY = 14, 18, 19, 20, 21

_ADD, _DELETE = 0, 3
_ALL_TABLES = 0xFF
_GOTO_TABLE, _APPLY_ACTIONS = 1, 4
_OUTPUT, _SET_FIELD = 0, 25
_IP_DSCP = 8
_NUMBERS = {0: "in_port", 5: "eth_type", 10: "ip_proto", 13: "tcp_src", 14: "tcp_dst"}
_ADDRESSES = {11: "ipv4_src", 12: "ipv4_dst"}
_ETH_DST = 3


class FakeSwitch:
    """A switch connected to the controller on loopback. Every wait ends after `timeout_s`."""

    def __init__(self, name: str, dpid: int, port: int, *, timeout_s: float = 8.0) -> None:
        self.name = name
        self._sock = _connect(port, timeout_s)
        self._sock.settimeout(timeout_s)
        self._send(_HELLO, 0)
        while self._read()[0] != _FEATURES_REQUEST:
            pass
        self._send(_FEATURES_REPLY, self._xid, struct.pack("!QIBBHII", dpid, 0, 254, 0, 0, 0, 0))

    def changes(self) -> tuple[list[FlowMod], int]:
        """Return the rules that the controller sends until its next barrier, and the barrier's number."""
        mods = []
        while True:
            kind, body = self._read()
            if kind == _FLOW_MOD:
                mods.append(_flow_mod(self.name, body))
            elif kind == _BARRIER_REQUEST:
                return mods, self._xid
            else:
                self._answer(kind, body)

    def reply(self, barrier: int) -> None:
        self._send(_BARRIER_REPLY, barrier)

    def refuse(self, kind: int, code: int) -> None:
        """Send an error message, as a switch that cannot take a rule does."""
        self._send(_ERROR, 1, struct.pack("!HH", kind, code) + bytes(64))

    def lose_a_rule(self, table: int, cookie: int) -> None:
        """Tell that a rule of `table` with that cookie was deleted."""
        reason_delete, match = 2, struct.pack("!HHI", 1, 4, 0)
        removed = struct.pack("!QHBBIIHHQQ", cookie, 1, reason_delete, table, 0, 0, 0, 0, 0, 0)
        self._send(_FLOW_REMOVED, 0, removed + match)

    def close(self) -> None:
        self._sock.close()

    def _answer(self, kind: int, body: bytes) -> None:
        if kind == _ECHO_REQUEST:
            self._send(_ECHO_REPLY, self._xid, body)
        elif kind == _MULTIPART_REQUEST:  # for a description of the ports: there are none
            self._send(_MULTIPART_REPLY, self._xid, body[:2] + bytes(6))

    def _send(self, kind: int, xid: int, body: bytes = b"") -> None:
        self._sock.sendall(struct.pack("!BBHI", _VERSION, kind, 8 + len(body), xid) + body)

    def _read(self) -> tuple[int, bytes]:
        _, kind, length, self._xid = struct.unpack("!BBHI", self._exactly(8))
        return kind, self._exactly(length - 8)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            if not more:
                raise ConnectionError("the controller has closed the connection")
            data += more
        return data


def _connect(port: int, timeout_s: float) -> socket.socket:
    """Connect as soon as the controller listens."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _flow_mod(switch: str, body: bytes) -> FlowMod:
    table, command, _, _, priority = struct.unpack_from("!BBHHH", body, 16)
    if command == _DELETE:
        assert table == _ALL_TABLES
        return FlowMod(switch=switch, command=Command.DELETE_ALL)
    assert command == _ADD
    _, match_length = struct.unpack_from("!HH", body, 40)
    dscp = goto = output = None
    for kind, data in _blocks(body[40 + _padded(match_length) :]):
        if kind == _GOTO_TABLE:
            goto = data[0]
        elif kind == _APPLY_ACTIONS:
            for action, value in _blocks(data[4:]):
                if action == _SET_FIELD:
                    ((field, raw),) = _fields(value[:5])
                    assert field == _IP_DSCP
                    dscp = raw[0]
                else:
                    assert action == _OUTPUT
                    (output,) = struct.unpack_from("!I", value)
        else:
            raise AssertionError(f"instruction {kind}")
    return FlowMod(
        switch=switch,
        command=Command.ADD,
        table=table,
        priority=priority,
        match=_match(body[44 : 40 + match_length]),
        dscp=dscp,
        goto=goto,
        output=output,
    )


def _match(data: bytes) -> Match:
    found: dict[str, int | str] = {}
    for field, raw in _fields(data):
        if field in _NUMBERS:
            found[_NUMBERS[field]] = int.from_bytes(raw, "big")
        elif field in _ADDRESSES:
            found[_ADDRESSES[field]] = str(IPv4Address(raw))
        else:
            assert field == _ETH_DST
            found["eth_dst"] = raw.hex(":")
    return Match(**found)  # type: ignore[arg-type]


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Instructions or actions: type, length (which includes both), content."""
    while data:
        kind, length = struct.unpack_from("!HH", data)
        yield kind, data[4:length]
        data = data[length:]


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """OXM fields without masks."""
    while data:
        oxm_class, field, length = struct.unpack_from("!HBB", data)
        assert oxm_class == 0x8000
        assert field & 1 == 0
        yield field >> 1, data[4 : 4 + length]
        data = data[4 + length :]


def _padded(length: int) -> int:
    return -(-length // 8) * 8

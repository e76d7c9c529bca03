"""Which links of the fabric went down during a run, and when: the kernel reports each change (rtnetlink)."""

import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from controller.units import NS_PER_S
from testbed.coordinator.outages import Down
from testbed.coordinator.silence import PATIENCE_S
from testbed.emulation.asked import Window, longest_outside
from testbed.emulation.network import Network
from testbed.fabric import RunFailed
from testbed.readable import readable

_GROUP_LINK = 1
_NEW_LINK, _DEL_LINK = 16, 17
_NAME = 3  # the attribute with a device's name
_UP, _LOWER_UP = 1, 1 << 16
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LOOK_S = 0.2
_BUFFER = 1 << 20


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A device, and whether it can send: it is up, and so is the other end."""

    device: str
    up: bool


def changes(data: bytes) -> Iterator[Change]:
    """The changes of devices in what a netlink socket has received."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        if kind in (_NEW_LINK, _DEL_LINK):
            _, _, _, flags, _ = _LINK.unpack_from(data, _HEADER.size)
            name = _name(data[_HEADER.size + _LINK.size : length])
            yield Change(device=name, up=kind == _NEW_LINK and flags & _UP != 0 and flags & _LOWER_UP != 0)
        data = data[_padded(length) :]


def _name(attributes: bytes) -> str:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _NAME:
            return attributes[_ATTRIBUTE.size : length].rstrip(b"\0").decode()
        attributes = attributes[max(_padded(length), _ATTRIBUTE.size) :]
    return ""


def _padded(length: int) -> int:
    return -(-length // 4) * 4


AskedFor = Callable[[str], Sequence[Window]]
"""When a link was to be down, because the scenario asked for it."""


def _never(link: str) -> Sequence[Window]:
    return ()


class Outages:
    """When links were down. Pure: whoever hears of a change says when it was.

    A link has two devices; it is down while one of them is. `links` names the link of each device.
    """

    def __init__(self, links: dict[str, str]) -> None:
        self._links = links
        self._since_ns: dict[str, dict[str, int]] = {}
        self._ended: list[Down] = []

    def changed(self, change: Change, wall_ns: int) -> None:
        link = self._links.get(change.device)
        if link is None:
            return
        down = self._since_ns.setdefault(link, {})
        if not change.up:
            down.setdefault(change.device, wall_ns)
        elif (since_ns := down.pop(change.device, None)) is not None:
            self._ended.append(Down(link=link, begin_wall_ns=since_ns, wall_ns=wall_ns - since_ns))

    def until(self, wall_ns: int, asked_for: AskedFor = _never) -> list[Down]:
        """The longest outage of each link, those included that have not ended; the longest first.

        What was asked for is no outage.
        """
        still = [
            Down(link=link, begin_wall_ns=since_ns, wall_ns=wall_ns - since_ns)
            for link, down in self._since_ns.items()
            for since_ns in down.values()
        ]
        longest: dict[str, Down] = {}
        found = [_without(outage, asked_for(outage.link)) for outage in (*self._ended, *still)]
        for outage in sorted(filter(None, found), key=lambda one: -one.wall_ns):
            longest.setdefault(outage.link, outage)
        return list(longest.values())

    def forget(self) -> None:
        """Forget the outages that have ended."""
        self._ended.clear()

    def lasting(self, wall_ns: int, asked_for: AskedFor = _never) -> list[str]:
        """The links that have been down for longer than `PATIENCE_S`, though nobody asked for it."""
        return [
            link
            for link, down in self._since_ns.items()
            if any(
                longest_outside(since_ns, wall_ns, asked_for(link))[1] > PATIENCE_S * NS_PER_S
                for since_ns in down.values()
            )
        ]


def _without(outage: Down, windows: Sequence[Window]) -> Down | None:
    """The longest part of an outage that was not asked for; None if all of it was."""
    if not windows:
        return outage
    begin_ns, wall_ns = longest_outside(outage.begin_wall_ns, outage.begin_wall_ns + outage.wall_ns, windows)
    return Down(link=outage.link, begin_wall_ns=begin_ns, wall_ns=wall_ns) if wall_ns > 0 else None


def links_of(net: Network) -> dict[str, str]:
    """The link of each device outside the servers, in words. A server's own device has its other end here."""
    links = {}
    for port, device in net.devices.items():
        a, b = port.split("->")
        ends = sorted((device, net.devices[f"{b}->{a}"]))
        links[device] = f"link {min(a, b)}-{max(a, b)} ({', '.join(ends)})"
    for server, device in net.nic_devices.items():
        links[device] = f"link of {server} to its NIC bridge ({net.host_devices[server]}, {device})"
    return links


class LinkWatch:
    """Hears of every change of the fabric's links, in a thread, from `start` to `stop`.

    It starts when the network is there. Only outages that end after `start_clock` are returned. `asked_for`
    says when a link was to be down.
    """

    def __init__(self, net: Network, asked_for: AskedFor = _never) -> None:
        self._asked_for = asked_for
        self._outages = Outages(links_of(net))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="link watch", daemon=True)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    def start(self) -> None:
        """Listen, and take in how links are now."""
        self._socket.bind((0, _GROUP_LINK))
        now = subprocess.run(["ip", "-j", "link", "show"], capture_output=True, text=True, check=True).stdout
        for device in json.loads(now):
            up = {"UP", "LOWER_UP"} <= set(device["flags"])
            self._outages.changed(Change(device=device["ifname"], up=up), time.monotonic_ns())
        self._thread.start()

    def start_clock(self) -> None:
        with self._lock:
            self._outages.forget()

    def check(self) -> None:
        """Raise `RunFailed` if a link has been down for `PATIENCE_S`, or if changes cannot be heard."""
        if self._failure is not None:
            what = f"{type(self._failure).__name__}: {self._failure}"
            raise RunFailed(f"the state of links can no longer be read: {what}") from self._failure
        with self._lock:
            down = self._outages.lasting(time.monotonic_ns(), self._asked_for)
        if down:
            raise RunFailed(f"{', '.join(down)} has been down for {PATIENCE_S:.0f} s")

    def outages(self) -> list[Down]:
        """Return the longest outage of each link so far, the longest first, asked for or not."""
        with self._lock:
            return self._outages.until(time.monotonic_ns())

    def stop(self) -> list[Down]:
        """Return the longest outage of each link that nobody asked for, the longest first.

        Raises as `check` does.
        """
        self._stop.set()
        self._thread.join()
        self.check()
        self._socket.close()
        return self._outages.until(time.monotonic_ns(), self._asked_for)

    def _run(self) -> None:
        try:
            while True:
                last = self._stop.is_set()  # what is there already is still read
                if readable(self._socket, 0 if last else _LOOK_S):
                    heard = list(changes(self._socket.recv(_BUFFER)))
                    with self._lock:
                        for change in heard:
                            self._outages.changed(change, time.monotonic_ns())
                elif last:
                    return
        except BaseException as error:
            self._failure = error

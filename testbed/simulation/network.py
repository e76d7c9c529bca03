"""Fluid links: strict priority by place, max-min fair among equals, recomputed only where it matters.

A stream drains over fixed ports at one rate. Streams of one *place* share; a smaller place goes
before a larger one on every port they have in common. Sizes are bytes, rates bytes per nanosecond
(binary floating point), times whole nanoseconds: a stream ends in the first nanosecond by whose end
its last byte is through.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controller.flow import Level, PortId

Place = tuple[int, float]
"""Level, then order inside the level; smaller first."""

_SLACK_NS = 1e-6  # a byte count that rounding left a hair above zero does not cost a nanosecond
_FULL = 1e-12  # of a port, bytes per nanosecond: less than a byte in a quarter of an hour


@dataclass(slots=True, eq=False)
class Stream:
    """`left` bytes as of `since_ns`, moving at `rate` since then over `ports` (numbers, none twice)."""

    ports: tuple[int, ...]
    left: float
    place: Place
    cap: float | None = None
    rate: float = 0.0
    since_ns: int = 0
    serial: int = 0
    version: int = 0

    def left_at(self, now_ns: int) -> float:
        return max(0.0, self.left - self.rate * (now_ns - self.since_ns))


@dataclass(slots=True)
class _Port:
    capacity: float
    streams: dict[int, Stream] = field(default_factory=dict)
    sent: list[float] = field(default_factory=lambda: [0.0] * len(Level))


class FluidNetwork:
    """The streams on ports of `bps` bits per second, in the order given.

    Changes (`add`, `move`, `take_finished`) only mark what they touch; `settle` works out the new
    rates once, for all changes of a moment, so that their order among themselves does not matter.
    What it works out again are the streams that share a port, directly or through others, with a
    change of a place at or above their own.
    """

    def __init__(self, bps: Mapping[PortId, int]) -> None:
        self._numbers = {port: number for number, port in enumerate(bps)}
        self._ports = [_Port(rate / 8e9) for rate in bps.values()]
        self._serial = 0
        self._touched: set[int] = set()
        self._highest: Place | None = None
        self._ends: list[tuple[int, int, int, Stream]] = []
        self.streams: dict[int, Stream] = {}

    def ports(self, path: Iterable[PortId]) -> tuple[int, ...]:
        """The numbers of the ports called so. Raises `KeyError` for one that is not there."""
        return tuple(self._numbers[port] for port in path)

    def add(self, now_ns: int, ports: Sequence[int], size: float, place: Place, cap: float | None) -> Stream:
        """A stream of `size` bytes, above 0, over at least one port; no faster than `cap`."""
        self._serial += 1
        stream = Stream(tuple(ports), float(size), place, cap, since_ns=now_ns, serial=self._serial)
        self.streams[stream.serial] = stream
        for port in stream.ports:
            self._ports[port].streams[stream.serial] = stream
        self._touch(stream, place)
        return stream

    def move(self, now_ns: int, stream: Stream, place: Place, cap: float | None) -> None:
        if (place, cap) == (stream.place, stream.cap):
            return
        self._bring_up_to(now_ns, stream)
        self._touch(stream, min(place, stream.place))
        stream.place, stream.cap = place, cap

    def next_end_ns(self) -> int | None:
        """When the next stream ends if nothing changes; call `settle` before."""
        while self._ends and self._ends[0][3].version != self._ends[0][2]:
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    def take_finished(self, now_ns: int) -> list[Stream]:
        """Remove and return the streams that have ended by `now_ns`, in order of addition."""
        done: list[Stream] = []
        while (end_ns := self.next_end_ns()) is not None and end_ns <= now_ns:
            stream = heapq.heappop(self._ends)[3]
            stream.version += 1
            done.append(stream)
        done.sort(key=lambda stream: stream.serial)
        for stream in done:
            del self.streams[stream.serial]
            for number in stream.ports:
                port = self._ports[number]
                del port.streams[stream.serial]
                port.sent[stream.place[0]] += stream.left
            stream.left = stream.rate = 0.0
            self._touch(stream, stream.place)
        return done

    def settle(self, now_ns: int) -> None:
        """Work out the rates that hold from `now_ns` on."""
        if self._highest is None:
            return
        place = self._highest
        ports, streams = self._affected(place)
        for stream in streams.values():
            self._bring_up_to(now_ns, stream)
        spare = {number: self._spare(number, place) for number in ports}
        before = {serial: stream.rate for serial, stream in streams.items()}
        groups: dict[Place, list[Stream]] = {}
        for serial in sorted(streams):
            groups.setdefault(streams[serial].place, []).append(streams[serial])
        for key in sorted(groups):
            _share(groups[key], spare)
        for serial, stream in streams.items():
            if stream.rate != before[serial] or stream.version == 0:
                self._foresee(now_ns, stream)
        self._touched.clear()
        self._highest = None

    def sent_bytes(self, now_ns: int) -> dict[PortId, tuple[int, ...]]:
        """What each port has sent so far, by level. Call `settle` before: rates must be those of now."""
        for stream in self.streams.values():
            self._bring_up_to(now_ns, stream)
        return {
            name: tuple(round(sent) for sent in self._ports[number].sent)
            for name, number in self._numbers.items()
        }

    # --- inside ---------------------------------------------------------------------------------

    def _touch(self, stream: Stream, place: Place) -> None:
        self._touched.update(stream.ports)
        if self._highest is None or place < self._highest:
            self._highest = place

    def _affected(self, place: Place) -> tuple[set[int], dict[int, Stream]]:
        ports, streams = set(self._touched), {}
        frontier = list(ports)
        while frontier:
            for serial, stream in self._ports[frontier.pop()].streams.items():
                if stream.place >= place and serial not in streams:
                    streams[serial] = stream
                    for number in stream.ports:
                        if number not in ports:
                            ports.add(number)
                            frontier.append(number)
        return ports, streams

    def _spare(self, number: int, place: Place) -> float:
        port = self._ports[number]
        above = math.fsum(stream.rate for stream in port.streams.values() if stream.place < place)
        return max(0.0, port.capacity - above)

    def _bring_up_to(self, now_ns: int, stream: Stream) -> None:
        left = stream.left_at(now_ns)
        for number in stream.ports:
            self._ports[number].sent[stream.place[0]] += stream.left - left
        stream.left, stream.since_ns = left, now_ns

    def _foresee(self, now_ns: int, stream: Stream) -> None:
        stream.version += 1
        if stream.rate > 0:
            end_ns = now_ns + max(0, math.ceil(stream.left / stream.rate - _SLACK_NS))
            heapq.heappush(self._ends, (end_ns, stream.serial, stream.version, stream))
            if len(self._ends) > 4 * len(self.streams) + 64:
                self._ends = [end for end in self._ends if end[3].version == end[2]]
                heapq.heapify(self._ends)


def _share(streams: list[Stream], spare: dict[int, float]) -> None:
    """Max-min fair rates for `streams` from what is `spare`, which is reduced by them.

    Progressive filling, a bottleneck at a time: the port that leaves each of its streams least, or
    the cap of a stream that is lower still, settles them.
    """
    waiting: dict[int, dict[int, Stream]] = {}
    capped: list[tuple[float, int, Stream]] = []
    for stream in streams:
        stream.rate = 0.0
        if all(spare[number] > _FULL for number in stream.ports):
            for number in stream.ports:
                waiting.setdefault(number, {})[stream.serial] = stream
            if stream.cap is not None:
                heapq.heappush(capped, (stream.cap, stream.serial, stream))
    settled: set[int] = set()
    shares = [(spare[number] / len(there), number) for number, there in waiting.items()]
    heapq.heapify(shares)
    while shares:
        share, number = heapq.heappop(shares)
        there = waiting[number]
        if not there:
            continue
        now = max(0.0, spare[number]) / len(there)
        if now > share:  # streams were settled below their share here: there is more for the others
            heapq.heappush(shares, (now, number))
            continue
        while capped and capped[0][1] in settled:
            heapq.heappop(capped)
        if capped and capped[0][0] < now:
            cap, _, stream = heapq.heappop(capped)
            heapq.heappush(shares, (share, number))
            _settle([stream], cap, waiting, spare, settled)
        else:
            _settle(list(there.values()), now, waiting, spare, settled)


def _settle(
    streams: list[Stream],
    rate: float,
    waiting: dict[int, dict[int, Stream]],
    spare: dict[int, float],
    settled: set[int],
) -> None:
    for stream in streams:
        stream.rate = rate
        settled.add(stream.serial)
        for number in stream.ports:
            spare[number] -= rate
            del waiting[number][stream.serial]

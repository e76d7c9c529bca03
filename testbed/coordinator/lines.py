"""What flows moved across ports, compared with what the lines of these ports carry. Pure.

All bytes of a flow cross its ports between its permit and its finish, and those of a collective before the
last of its members is done. In any time, a port sends what its line carries in that time, and at most what it
passes at once after it was idle. So the flows that lie in an interval bound what its ports must have sent, on
any fabric, without a look at a queue.
"""

import heapq
from collections.abc import Iterable, Sequence

import msgspec

from controller.flow import PortId
from controller.units import NS_PER_S


class Crossing(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A flow that is done: what it put on its ports, in model bytes.

    `collective` is the one that a share belongs to; None for other flows.
    """

    flow: str
    collective: str | None
    permit_ns: int
    finish_ns: int
    ports: tuple[PortId, ...]
    sizes: tuple[int, ...]


class Crossed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Model bytes that crossed a port at some time between two moments."""

    flow: str
    size_bytes: int
    begin_ns: int
    end_ns: int


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """In this interval, a port sent `sent_bytes`, which is `ahead_bytes` more than its line carries in it.

    `last` is the flow with which it ended. Model bytes.
    """

    ahead_bytes: float
    sent_bytes: int
    begin_ns: int
    end_ns: int
    last: str


def by_port(crossings: Iterable[Crossing]) -> dict[PortId, list[Crossed]]:
    """What crossed each port."""
    done_ns: dict[str, int] = {}
    shares: list[Crossing] = []
    found: dict[PortId, list[Crossed]] = {}

    def add(one: Crossing, end_ns: int) -> None:
        for port, size in zip(one.ports, one.sizes, strict=True):
            found.setdefault(port, []).append(
                Crossed(flow=one.flow, size_bytes=size, begin_ns=one.permit_ns, end_ns=end_ns)
            )

    for one in crossings:
        if one.collective is None:
            add(one, one.finish_ns)
        else:
            done_ns[one.collective] = max(done_ns.get(one.collective, 0), one.finish_ns)
            shares.append(one)
    for one in shares:
        add(one, done_ns[one.collective or ""])
    return found


def most_ahead(crossed: Sequence[Crossed], line_bps: float) -> Ahead | None:
    """The interval in which a port was furthest ahead of its line; None if it never was.

    If a port can move everything in time at the rate of its line, it can do so by sending, at each moment,
    what has to be there first (Horn 1974). So it was ahead by the bytes with which this order is late.
    """
    per_ns = line_bps / 8 / NS_PER_S
    late_ns, at = 0.0, -1
    waiting: list[tuple[int, int]] = []  # end, number
    left = [float(one.size_bytes) for one in crossed]
    order = sorted(range(len(crossed)), key=lambda number: crossed[number].begin_ns)
    now_ns = 0.0
    for place, number in enumerate(order):
        now_ns = max(now_ns, float(crossed[number].begin_ns))
        heapq.heappush(waiting, (crossed[number].end_ns, number))
        last = place + 1 == len(order)
        until_ns = float("inf") if last else float(crossed[order[place + 1]].begin_ns)
        while waiting and now_ns < until_ns:
            end_ns, first = waiting[0]
            done_ns = now_ns + left[first] / per_ns
            if done_ns > until_ns:
                left[first] -= (until_ns - now_ns) * per_ns
                now_ns = until_ns
                break
            heapq.heappop(waiting)
            now_ns = done_ns
            if done_ns - end_ns > late_ns:
                late_ns, at = done_ns - end_ns, first
    return None if at < 0 else _interval_to(crossed, at, per_ns)


def _interval_to(crossed: Sequence[Crossed], at: int, per_ns: float) -> Ahead:
    """The interval that ends with flow `at` in which the port was furthest ahead."""
    end_ns = crossed[at].end_ns
    inside = sorted((one for one in crossed if one.end_ns <= end_ns), key=lambda one: -one.begin_ns)
    sent = 0
    most: tuple[float, int, int] | None = None
    for one in inside:
        sent += one.size_bytes
        ahead = sent - (end_ns - one.begin_ns) * per_ns
        if most is None or ahead > most[0]:
            most = ahead, sent, one.begin_ns
    assert most is not None
    return Ahead(
        ahead_bytes=most[0], sent_bytes=most[1], begin_ns=most[2], end_ns=end_ns, last=crossed[at].flow
    )

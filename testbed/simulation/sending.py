"""A flow on its way, and the lanes it waits for."""

from collections.abc import Callable, Mapping

from controller.flow import Assignment, Flow, Level, PortId
from testbed.simulation.connections import Route
from testbed.simulation.links.network import Place, StreamId

Done = Callable[[], None]
Arrived = Callable[[int], None]
Message = tuple[int, int, Arrived | None, int]
"""A peer (-1: all of a group), bytes for it, whom to tell when they have arrived, and what they take besides
their time on the links, in nanoseconds."""


class Lane:
    __slots__ = ("flow", "level", "route", "taken")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.flow: Sending | None = None
        self.level = Level.CONTROL  # then that of the flow that it had last
        self.taken = 0


class Pool:
    """The lanes of a pair of ranks for a stage. Without `bounded` there are always more of them.

    `lanes_on` is how many of the lanes cross a port.
    """

    __slots__ = ("_load", "bounded", "free", "lanes", "lanes_on", "waiting")

    def __init__(self, lanes: list[Lane], bounded: bool) -> None:
        self.lanes = lanes
        self.bounded = bounded
        self.free = len(lanes)
        self.waiting: dict[str, Sending] = {}
        self.lanes_on: dict[PortId, int] = {}
        self._load: tuple[int, dict[PortId, int]] | None = None
        for lane in lanes:
            for port in lane.route.path:
                self.lanes_on[port] = self.lanes_on.get(port, 0) + 1

    def take(self, level: Level) -> Lane:
        """A free lane, one that is on `level` already if there is one."""
        self.free -= 1
        first = None
        for lane in self.lanes:
            if lane.flow is None:
                if lane.level == level:
                    return lane
                first = first or lane
        assert first is not None
        return first

    def load(self, size: int) -> dict[PortId, int]:
        """What a flow puts on each port, as far as is known before it has a lane. Flows of one size after
        another, those of a request's layers, have the same one."""
        if self._load is None or self._load[0] != size:
            count = len(self.lanes)
            self._load = size, {port: size * lanes // count for port, lanes in self.lanes_on.items()}
        return self._load[1]


class Sending:
    """A flow on its way. `owed` are the bytes that have not arrived, `unsent` those not handed over yet.

    A byte of a stream is `in_step` bytes of the flow: one, unless it stands for all connections of a group.
    `after_ns` is what its next message takes besides its bytes, `then_ns` what those after that do. `caps`
    bounds its connections by peer, bytes per nanosecond; `beside` says how many begin with each at its ends.
    """

    __slots__ = (
        "after_ns", "beside", "caps", "done", "dst", "first", "flow", "in_step", "lane", "lane_ns", "last",
        "lent", "level", "number", "order", "owed", "path", "permit_ns", "place", "pool", "promotions",
        "rate_bps", "routes", "src", "streams", "submit_ns", "then_ns", "told", "unsent", "wanted",
    )  # fmt: skip

    def __init__(self, flow: Flow, src: int, dst: int, submit_ns: int, done: Done) -> None:
        self.flow = flow
        self.src = src
        self.dst = dst
        self.submit_ns = submit_ns
        self.done = done
        self.pool: Pool | None = None
        self.lane: Lane | None = None
        self.routes: Mapping[int, Route] = {}
        self.level = self.wanted = self.first = self.last = Level.SCAVENGER
        self.lent: Level | None = None
        self.order = 0.0
        self.place: Place = self.wanted, self.order
        self.rate_bps: int | None = None
        self.permit_ns: int | None = None
        self.streams: dict[StreamId, Message] = {}
        self.owed = self.unsent = flow.size_bytes
        self.in_step = 1.0
        self.lane_ns = submit_ns
        self.after_ns = self.then_ns = 0
        self.caps: Mapping[int, float] = {}
        self.beside: Mapping[int, tuple[int, int]] = {}
        self.path: tuple[PortId, ...] = ()
        self.promotions = -1  # the first word is none
        self.told = flow.size_bytes
        self.number = 0  # of its submission

    def obey(self, said: Assignment) -> None:
        self.level, self.order, self.rate_bps = said.level, said.order, said.rate_bps
        self.wanted = self.level if self.lent is None else min(self.level, self.lent)
        self.place = self.wanted, self.order

    def borrow(self, level: Level) -> None:
        self.lent = level
        self.wanted = min(self.level, level)
        self.place = self.wanted, self.order

    def bounds(self, peer: int) -> float | None:
        """The most that a stream to `peer` may have, bytes per nanosecond.

        A pace is for the flow: its streams get an even part of it.
        """
        pace = None if self.rate_bps is None else self.rate_bps / 8e9 / max(1, len(self.streams))
        cap = self.caps.get(peer) if self.caps else None
        return cap if pace is None else pace if cap is None else min(pace, cap)


def urgency(waiting: Sending) -> Place:
    """The place in line of a flow that waits for a lane: it has been lent nothing."""
    return waiting.level, waiting.order


def submission(sending: Sending) -> int:
    return sending.number


def taken_at(lane: Lane) -> int:
    return lane.taken

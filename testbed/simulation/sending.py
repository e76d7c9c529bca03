"""A flow on its way over the simulated network, and its lane."""

from collections.abc import Callable, Mapping

from controller.flow import Transfer
from controller.lanes import Claim, Lane
from testbed.simulation.connections import Route
from testbed.simulation.links.network import Place, StreamId

Done = Callable[[], None]
OnArrival = Callable[[int], None]
SentMessage = tuple[int, int, OnArrival | None, int]
"""A peer (-1: all of a group), bytes for it, what to call when they have arrived, and nanoseconds that they
take in addition to their time on the links."""


class SimulatedLane(Lane["Sending"]):
    """A lane with its route, or a member's side of a process group with a route to each peer."""

    __slots__ = ("routes",)

    def __init__(self, name: str, routes: Mapping[int, Route], *, spare: bool = False) -> None:
        ports = next(iter(routes.values())).path if len(routes) == 1 else ()
        super().__init__(name, ports, spare=spare)
        self.routes = routes


class Sending(Claim[SimulatedLane]):
    """A flow on its way. `owed` bytes have not arrived, and `unsent` bytes have not been handed over yet.

    A byte of a stream stands for `in_step` bytes of the flow: 1, unless the stream stands for all
    connections of a group. The next message takes `after_ns` in addition to its bytes, and later ones
    take `then_ns`. `caps` limits the connection to each peer, in bytes per nanosecond. `beside` has, for
    each peer, how many connections begin together at the sender and at the peer. `told` is what the
    scheduler believes is left.
    """

    __slots__ = (
        "after_ns", "beside", "caps", "done", "in_step", "lane_ns", "owed", "path", "permit_ns", "routes",
        "streams", "submit_ns", "then_ns", "told", "transfer", "unsent",
    )  # fmt: skip

    def __init__(self, transfer: Transfer, submit_ns: int, done: Done) -> None:
        super().__init__(transfer.id)
        self.transfer = transfer
        self.submit_ns = submit_ns
        self.done = done
        self.routes: Mapping[int, Route] = {}
        self.permit_ns: int | None = None
        self.streams: dict[StreamId, SentMessage] = {}
        self.owed = self.unsent = transfer.size_bytes
        self.in_step = 1.0
        self.lane_ns = submit_ns
        self.after_ns = self.then_ns = 0
        self.caps: Mapping[int, float] = {}
        self.beside: Mapping[int, tuple[int, int]] = {}
        self.path: tuple[str, ...] = ()
        self.told = transfer.size_bytes

    @property
    def place(self) -> Place:
        """The place of its streams among the others on a link."""
        return self.wanted, self.order

    def bounds(self, peer: int) -> float | None:
        """The highest rate of a stream to `peer`, in bytes per nanosecond; None: no limit.

        A pace holds for the whole flow, so each of its streams gets an even part of it.
        """
        pace = None if self.rate_bps is None else self.rate_bps / 8e9 / max(1, len(self.streams))
        cap = self.caps.get(peer) if self.caps else None
        return cap if pace is None else pace if cap is None else min(pace, cap)


def submission(sending: Sending) -> int:
    return sending.number

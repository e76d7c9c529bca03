"""Fluid links: strict priority by place, max-min fair among equals, recomputed only where it matters.

A stream drains over fixed ports at one rate. Streams of one *place* share; a smaller place goes
before a larger one on every port they have in common. Sizes are bytes, rates bytes per nanosecond
(binary floating point), times whole nanoseconds: a stream ends in the first nanosecond by whose end
its last byte is through.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.flow import PortId
from testbed.simulation import sharing
from testbed.simulation.sharing import Hops, Ports, Scratch, Streams

Place = tuple[int, float]
"""Level, then order inside the level; smaller first."""

StreamId = int
"""Of a stream from `add` until it is taken; used again afterwards."""

_Rows = npt.NDArray[np.float64]
_Numbers = npt.NDArray[np.int64]

_NONE_ADDED, _NONE_MOVED, _NO_WEIGHTS = np.zeros((0, 5)), np.zeros((0, 4)), np.zeros(0)

_FEW = 256  # rows to begin with; arrays double when they are full


class FluidNetwork:
    """The streams on ports of `bps` bits per second, in the order given.

    Changes (`add`, `move`, `take_finished`) only mark what they touch; `settle` works out the new
    rates once, for all changes of a moment, so that their order among themselves does not matter.
    What it works out again are the streams of a level that share a port, directly or through others,
    with a change; and of lower levels those on ports where the levels above now take another rate.

    A level that has something to send keeps `guarantee` of a port's rate whatever the levels above have;
    what it does not use of it is lost.
    """

    def __init__(self, bps: Mapping[PortId, float], *, guarantee: float = 0.0) -> None:
        self.guarantee = guarantee
        self.names = tuple(bps)
        self._numbers = {port: number for number, port in enumerate(bps)}
        count = len(bps)
        self._ports = Ports(
            capacity=np.array([rate / 8e9 for rate in bps.values()]),
            used=np.zeros((count, sharing.LEVELS)),
            sent=np.zeros((count, sharing.LEVELS)),
            first_hop=np.full((count, sharing.LEVELS), sharing.NONE),
            spare=np.zeros(count),
            weight=np.zeros(count),
            waiting=np.zeros(count, np.int64),
            seen=np.zeros(count, np.int64),
            dirty=np.full(count, sharing.CLEAN),
        )
        self._streams = Streams(*_columns(Streams, _FEW))
        self._hops = Hops(*_columns(Hops, 4 * _FEW))
        self._scratch = Scratch(
            counts=np.zeros(5, np.int64),
            fullest=np.zeros(1),
            heap=np.zeros(_FEW, np.int64),
            dirty=np.zeros(count, np.int64),
            queue=np.zeros(count, np.int64),
            affected=np.zeros(_FEW, np.int64),
            shares=np.zeros(count + 1),
            share_ports=np.zeros(count + 1, np.int64),
        )
        self._out = np.zeros(_FEW, np.int64)
        self._rows = 0
        self._hop_rows = 0
        self._free: dict[int, list[StreamId]] = {}
        self._place: list[tuple[Place, float | None]] = []
        self._active = 0
        self._serials = 0
        self._next_ns = int(sharing.NEVER)
        self._changed = False
        self._added: list[tuple[StreamId, float, int, float, float]] = []
        self._add_ports: list[int] = []
        self._add_weights: list[float] | None = None  # all 1 as long as nobody says otherwise
        self._moved: list[tuple[StreamId, int, float, float]] = []

    def __len__(self) -> int:
        """How many streams there are."""
        return self._active

    def ports(self, path: Iterable[PortId]) -> tuple[int, ...]:
        """The numbers of the ports called so. Raises `KeyError` for one that is not there."""
        return tuple(self._numbers[port] for port in path)

    def capacity(self, port: int) -> float:
        """Bytes per nanosecond of the port of that number."""
        return float(self._ports.capacity[port])

    def add(
        self,
        ports: Sequence[int],
        size: float,
        place: Place,
        cap: float | None = None,
        weights: Sequence[float] | None = None,
    ) -> StreamId:
        """A stream of `size` bytes, above 0, over at least one port and none twice; no faster than `cap`.

        With `weights` it takes that many times its rate on each of the ports: so many connections that
        move in step. It begins at the next `settle`.
        """
        free = self._free.get(len(ports))
        stream = free.pop() if free else self._new_row(len(ports))
        self._place[stream] = place, cap
        self._added.append((stream, size, place[0], place[1], np.inf if cap is None else cap))
        if weights is not None and self._add_weights is None:
            self._add_weights = [1.0] * len(self._add_ports)
        if self._add_weights is not None:
            self._add_weights.extend([1.0] * len(ports) if weights is None else weights)
        self._add_ports.extend(ports)
        self._active += 1
        return stream

    def move(self, stream: StreamId, place: Place, cap: float | None = None) -> None:
        """Give `stream` another place and cap from the next `settle` on."""
        if (place, cap) == self._place[stream]:
            return
        self._place[stream] = place, cap
        self._moved.append((stream, place[0], place[1], np.inf if cap is None else cap))

    def next_end_ns(self) -> int | None:
        """When the next stream ends if nothing changes; call `settle` before."""
        return None if self._next_ns == sharing.NEVER else self._next_ns

    def take_finished(self, now_ns: int) -> list[StreamId]:
        """Remove and return the streams that have ended by `now_ns`, in order of addition."""
        if now_ns < self._next_ns:
            return []
        count = sharing.take_finished(
            now_ns, self._ports, self._streams, self._hops, self._scratch, self._out
        )
        self._changed = True
        done = self._out[:count]
        if count > 1:
            done = done[np.argsort(self._streams.serial[done])]
        streams: list[StreamId] = done.tolist()
        for stream, hops in zip(streams, self._streams.hops[done].tolist(), strict=True):
            self._free[hops].append(stream)
        self._active -= count
        return streams

    def settle(self, now_ns: int) -> None:
        """Work out the rates that hold from `now_ns` on."""
        if not (self._added or self._moved or self._changed):
            return
        self._changed = False
        self._next_ns = sharing.settle(
            now_ns,
            self._ports,
            self._streams,
            self._hops,
            self._scratch,
            self.guarantee,
            *self._pending(),
        )

    def rate(self, stream: StreamId) -> float:
        """Bytes per nanosecond (of each of its connections), as of the last `settle`."""
        return float(self._streams.rate[stream])

    def left_bytes(self, now_ns: int) -> list[float]:
        """What is left of each stream, by its number, as of `now_ns`.

        Means nothing for numbers that are not in use.
        """
        streams, rows = self._streams, self._rows
        gone = streams.rate[:rows] * (now_ns - streams.since_ns[:rows])
        left: list[float] = np.maximum(0.0, streams.left[:rows] - gone).tolist()
        for stream, size, *_ in self._added:
            left[stream] = size
        return left

    def sent_bytes(self, now_ns: int) -> npt.NDArray[np.float64]:
        """What each port, in the order of `names`, has sent so far, by level: (ports, 8).

        Call `settle` before: rates must be those of now.
        """
        sharing.bring_all_up_to(now_ns, self._ports, self._streams, self._hops, self._scratch)
        return self._ports.sent.copy()

    def busy_ns(self, now_ns: int, port: PortId) -> float:
        """How long `port` would take for what its streams, those just added too, have left for it."""
        if self._added or self._moved:
            self._changed = True
            sharing.take_in(now_ns, self._ports, self._streams, self._hops, self._scratch, *self._pending())
        number = self._numbers[port]
        left = sharing.bytes_left(now_ns, self._ports, self._streams, self._hops, number)
        return float(left / self._ports.capacity[number])

    @property
    def worked_out(self) -> tuple[int, int]:
        """How often rates were worked out so far, and of how many streams in all."""
        counts = self._scratch.counts
        return int(counts[sharing.SETTLINGS]), int(counts[sharing.WORKED_OUT])

    @property
    def fullest(self) -> float:
        """The most that any port was asked to carry at any time, over its capacity."""
        return float(self._scratch.fullest[0])

    def held_back(self, tolerance: float) -> int:
        """How many streams are slower than strict priority and max-min fairness would have them.

        Call `settle` before. `tolerance` is relative. Costs as much as all streams there are.
        """
        return int(sharing.held_back(self._ports, self._streams, self._hops, self._rows, tolerance))

    # --- inside ---------------------------------------------------------------------------------

    def _pending(self) -> tuple[_Rows, int, _Numbers, _Rows, _Rows]:
        """What `sharing.take_in` is to take in, and nothing is pending any more."""
        added = np.array(self._added, np.float64) if self._added else _NONE_ADDED
        moved = np.array(self._moved, np.float64) if self._moved else _NONE_MOVED
        weights = _NO_WEIGHTS if self._add_weights is None else np.array(self._add_weights, np.float64)
        paths = np.array(self._add_ports, np.int64)
        first_serial = self._serials
        self._serials += len(self._added)
        self._added.clear()
        self._add_ports.clear()
        self._add_weights = None
        self._moved.clear()
        return added, first_serial, paths, weights, moved

    def _new_row(self, hops: int) -> StreamId:
        """A row for a stream of so many hops; it keeps its hops for good."""
        self._free.setdefault(hops, [])
        stream = self._rows
        if stream == len(self._streams.left):
            self._streams = Streams(*map(_twice, self._streams))
            self._out = np.zeros(2 * stream, np.int64)
            self._scratch = self._scratch._replace(
                heap=_twice(self._scratch.heap), affected=_twice(self._scratch.affected)
            )
        while self._hop_rows + hops > len(self._hops.port):
            self._hops = Hops(*map(_twice, self._hops))
        self._streams.first_hop[stream] = self._hop_rows
        self._streams.hops[stream] = hops
        self._place.append(((0, 0.0), None))
        self._streams.level[stream] = sharing.NONE
        self._rows += 1
        self._hop_rows += hops
        return stream


def _columns(table: type[Streams] | type[Hops], rows: int) -> list[npt.NDArray[Any]]:
    """All zero; what they hold follows from their type."""
    return [
        np.zeros(rows, np.float64 if column is sharing.Floats else np.int64)
        for column in table.__annotations__.values()
    ]


def _twice(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate((column, np.zeros_like(column)))

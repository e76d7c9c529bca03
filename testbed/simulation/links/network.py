"""Fluid links: strict priority by place, max-min fair among equals, recomputed only where it matters.

A stream drains over fixed ports at one rate. Streams of one *place* share fairly. A smaller place goes
before a larger one on every port that they have in common. Sizes are in bytes, rates in bytes per
nanosecond (binary floating point), and times in whole nanoseconds: a stream's end is rounded up.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.flow import PortId
from testbed.simulation.links import inspection, sharing
from testbed.simulation.links.link_tables import Hops, Ports, Scratch, Streams, make_table

Place = tuple[int, float]
"""Level, then order inside the level; smaller first."""

StreamId = int
"""Identifies a stream from `add` until `take_finished`; it is used again afterwards."""

_Cells = npt.NDArray[np.float64]

_NONE = np.zeros(0)
_INF = math.inf

_FEW = 256  # initial rows; tables double when they are full


class FluidNetwork:
    """The streams on ports of `bps` bits per second, in the order given.

    Changes (`add`, `move`, `take_finished`) only mark what they touch. `settle` works out the new rates
    once for all changes of a moment, so their order does not matter. It works out streams that share a
    port with a change on their level, directly or through others. On lower levels, it works out those on
    ports where the rate of the levels above has changed.

    A level that has something to send keeps the share `guarantee` of a port's rate, whatever the levels
    above have to send. What it does not use of that share is lost.
    """

    def __init__(self, bps: Mapping[PortId, float], *, guarantee: float = 0.0) -> None:
        self.guarantee = guarantee
        self.names = tuple(bps)
        self._numbers = {port: number for number, port in enumerate(bps)}
        count = len(bps)
        self._ports = make_table(Ports, count)
        self._ports["capacity"] = [rate / 8e9 for rate in bps.values()]
        self._ports["first_hop"] = sharing.NONE
        self._ports["dirty"] = sharing.CLEAN
        self._streams = make_table(Streams, _FEW)
        self._hops = make_table(Hops, 4 * _FEW)
        self._scratch = make_table(Scratch, max(_FEW, count))
        self._out = np.zeros(_FEW, np.int64)
        self._rows = 0
        self._hop_rows = 0
        self._free: dict[int, list[StreamId]] = {}  # by number of hops
        self._free_like: list[list[StreamId]] = []  # for each stream, the free list for its number of hops
        self._place: list[tuple[Place, float | None]] = []
        self._active = 0
        self._next_ns = int(sharing.NEVER)
        self._changed = False
        # Flat lists of rows, because they are the fastest to turn into an array.
        self._added: list[float] = []
        self._moved: list[float] = []

    def __len__(self) -> int:
        """The number of streams."""
        return self._active

    def ports(self, path: Iterable[PortId]) -> tuple[int, ...]:
        """The numbers of the named ports. Raises `KeyError` for an unknown one."""
        return tuple(self._numbers[port] for port in path)

    def capacity(self, port: int) -> float:
        """Rate of the port with number `port`, in bytes per nanosecond."""
        return float(self._ports["capacity"][port])

    def add(
        self,
        ports: Sequence[int],
        size: float,
        place: Place,
        cap: float | None = None,
        weights: Sequence[float] | None = None,
    ) -> StreamId:
        """Add a stream of `size` bytes, above 0, over one or more different ports.

        Its rate is at most `cap` bytes per nanosecond. With `weights`, it takes that many times its rate on
        each of the ports, like several connections that move in step. It begins at the next `settle`.
        """
        free = self._free.get(len(ports))
        stream = free.pop() if free else self._new_row(len(ports))
        self._place[stream] = place, cap
        bound = _INF if cap is None else cap
        if weights is None:
            self._added += (stream, size, *place, bound, 0, *ports)
        else:
            self._added += (stream, size, *place, bound, 1, *ports, *weights)
        self._active += 1
        return stream

    def move(self, stream: StreamId, place: Place, cap: float | None = None) -> None:
        """Give `stream` this place and cap from the next `settle` on."""
        standing = place, cap
        if standing == self._place[stream]:
            return
        self._place[stream] = standing
        self._moved += (stream, *place, _INF if cap is None else cap)

    def next_end_ns(self) -> int | None:
        """When the next stream ends if nothing changes; None if none does. Call `settle` before."""
        return None if self._next_ns == sharing.NEVER else self._next_ns

    def take_finished(self, now_ns: int) -> list[StreamId]:
        """Remove and return the streams that have ended by `now_ns`, in order of addition."""
        if now_ns < self._next_ns:
            return []
        count = sharing.take_finished(
            now_ns, self._ports, self._streams, self._hops, self._scratch, self._out
        )
        self._changed = True
        streams: list[StreamId] = self._out[:count].tolist()
        for stream in streams:
            self._free_like[stream].append(stream)
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
        """Rate of `stream` as of the last `settle`, in bytes per nanosecond at weight 1."""
        return float(self._streams["rate"][stream])

    def left_bytes(self, now_ns: int) -> list[float]:
        """Bytes left of each stream, by its id, as of `now_ns`. Ids that are not in use have no meaning."""
        streams, rows = self._streams, self._rows
        gone = streams["rate"][:rows] * (now_ns - streams["since_ns"][:rows])
        left: list[float] = np.maximum(0.0, streams["left"][:rows] - gone).tolist()
        added, at = self._added, 0
        while at < len(added):
            stream, size, *_, weighted = added[at : at + sharing.ADDED]
            left[int(stream)] = size
            at += sharing.ADDED + int(streams["hops"][int(stream)] * (1 + weighted))
        return left

    def sent_bytes(self, now_ns: int) -> npt.NDArray[np.float64]:
        """Bytes that each port has sent so far, by level, in an array of shape (ports, 8).

        The ports are in the order of `names`. Call `settle` before, so that rates are up to date.
        """
        sharing.bring_all_up_to(now_ns, self._ports, self._streams, self._hops, self._scratch)
        sent: npt.NDArray[np.float64] = self._ports["sent"].copy()
        return sent

    def busy_ns(self, now_ns: int, port: PortId) -> float:
        """Nanoseconds that `port` takes for the bytes left of its streams, including those just added."""
        if self._added or self._moved:
            self._changed = True
            sharing.take_in(now_ns, self._ports, self._streams, self._hops, self._scratch, *self._pending())
        number = self._numbers[port]
        left = inspection.bytes_left(now_ns, self._ports, self._streams, self._hops, number)
        return float(left / self._ports["capacity"][number])

    @property
    def worked_out(self) -> tuple[int, int]:
        """How often rates have been worked out so far, and for how many streams in all."""
        counts = self._scratch["counts"]
        return int(counts[sharing.SETTLINGS]), int(counts[sharing.WORKED_OUT])

    @property
    def fullest(self) -> float:
        """The largest share of its capacity that `sharing` has ever given any port to carry."""
        return float(self._scratch["fullest"][0])

    def fullest_now(self) -> float:
        """The largest share of its capacity that any port carries now, added up from its streams.

        Call `settle` before. The cost grows with the number of all streams.
        """
        return float(inspection.fullest(self._ports, self._streams, self._hops))

    def held_back(self, tolerance: float) -> int:
        """How many streams are slower than strict priority and max-min fairness would have them.

        Call `settle` before. `tolerance` is relative. The cost grows with the number of all streams.
        """
        return int(inspection.held_back(self._ports, self._streams, self._hops, self._rows, tolerance))

    # --- inside ---------------------------------------------------------------------------------

    def _pending(self) -> tuple[_Cells, _Cells]:
        """Return the pending changes for `sharing.take_in`, and clear them."""
        added = np.array(self._added, np.float64) if self._added else _NONE
        moved = np.array(self._moved, np.float64) if self._moved else _NONE
        self._added.clear()
        self._moved.clear()
        return added, moved

    def _new_row(self, hops: int) -> StreamId:
        """A new row for a stream with `hops` hops. The row keeps these hops for good."""
        self._free_like.append(self._free.setdefault(hops, []))
        stream = self._rows
        if stream == len(self._streams):
            self._streams = _twice(self._streams)
            self._out = np.zeros(2 * stream, np.int64)
            if len(self._scratch) < 2 * stream:
                self._scratch = _twice(self._scratch)
        while self._hop_rows + hops > len(self._hops):
            self._hops = _twice(self._hops)
        self._streams["first_hop"][stream] = self._hop_rows
        self._streams["hops"][stream] = hops
        self._place.append(((0, 0.0), None))
        self._streams["level"][stream] = sharing.NONE
        self._rows += 1
        self._hop_rows += hops
        return stream


def _twice(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate((table, np.zeros_like(table))).view(type(table))

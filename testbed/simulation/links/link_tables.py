"""The tables of the fluid network: what a row of each holds, and how compiled code gets at it.

A change of their columns or of `LEVELS` changes the type of a table, so whatever is compiled for it is
compiled again.
"""

from functools import cache
from typing import Annotated, Any, Protocol, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from numba import config, njit

LEVELS = 8

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
ByLevel = (LEVELS,)
"""The shape of a cell that has a number for every level."""


class Ports(Protocol):
    """`used[p, l]` is the rate of all streams of level l on port p, `sent[p, l]` their bytes so far."""

    capacity: Floats
    used: Annotated[Floats, ByLevel]
    sent: Annotated[Floats, ByLevel]
    first_hop: Annotated[Longs, ByLevel]  # head of the list of the level's hops
    spare: Floats
    weight: Floats  # of the streams not settled yet
    waiting: Longs  # how many these are
    seen: Longs
    dirty: Longs  # the first level that is to be shared anew; CLEAN: none


class Streams(Protocol):
    """`left` bytes as of `since_ns`, at `rate` since then; `hops` of them from `first_hop` on."""

    left: Floats
    rate: Floats
    cap: Floats  # inf: none
    order: Floats
    since_ns: Longs
    end_ns: Longs
    serial: Longs
    level: Longs
    first_hop: Longs
    hops: Longs
    heap_place: Longs
    seen: Longs
    fresh: Floats  # the rate that is being worked out; below 0: not settled yet


class Hops(Protocol):
    port: Longs
    stream: Longs
    weight: Floats
    following: Longs
    previous: Longs


class Scratch(Protocol):
    """Lists side by side, each as long as there are ports or streams; a row means nothing across them.

    `counts` are of what EPOCH, HEAP, DIRTY, WORKED_OUT, SETTLINGS and SERIAL say. `fullest[0]` is the most
    that any port was ever asked to carry, over its capacity.
    """

    counts: Longs
    fullest: Floats
    heap: Longs  # streams by end
    dirty: Longs  # ports
    queue: Longs  # ports
    affected: Longs  # streams
    shares: Floats  # a heap of ports by the share they leave
    share_ports: Longs


def make_table(columns: type[Ports | Streams | Hops | Scratch], rows: int) -> Any:
    """All zero. An array of records: a call into compiled code costs 0.2 us for each of them, and would
    cost 15 us for a column at a time. Compiled code reads `table.column[row]`, Python
    `table["column"][row]`."""
    table = np.zeros(rows, _record(columns))
    # Uncompiled the loops are Python too; a call with this view of it would cost compiled code 4 us.
    uncompiled: bool = getattr(config, "DISABLE_JIT")  # noqa: B009 - numba declares its settings nowhere
    return table.view(np.recarray) if uncompiled else table


@cache
def _record(columns: type[Ports | Streams | Hops | Scratch]) -> np.dtype[Any]:
    """One object for all tables of a kind: numba knows its type by identity, and compares an equal one column
    by column at every call."""
    cells = []
    for name, hint in get_type_hints(columns, include_extras=True).items():
        shape = hint.__metadata__[0] if get_origin(hint) is Annotated else ()
        kind = hint.__origin__ if shape else hint
        cells.append((name, np.float64 if kind == Floats else np.int64, shape))
    return np.dtype(cells)


def compiled(function: Any) -> Any:
    """`function`, compiled at its first call, and kept beside its file where that can be written to."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package nor the home can be written to: compile in every process
        return njit(nogil=True)(function)

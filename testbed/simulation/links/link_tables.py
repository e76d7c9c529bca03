"""The tables of the fluid network: what a row of each holds, and how compiled code reads it.

A change of the columns or of `LEVELS` changes the type of a table, so all code for it is compiled again.
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
"""The shape of a cell with a number for every level."""


class Ports(Protocol):
    """`used[p, l]` is the rate of all streams of level l on port p, and `sent[p, l]` their bytes so far.

    Rates, `capacity` included, are in bytes per nanosecond.
    """

    capacity: Floats
    used: Annotated[Floats, ByLevel]
    sent: Annotated[Floats, ByLevel]
    first_hop: Annotated[Longs, ByLevel]  # head of the list of the level's hops
    spare: Floats
    weight: Floats  # of the streams that are not settled yet
    waiting: Longs  # the number of these streams
    seen: Longs
    dirty: Longs  # the first level to share anew; CLEAN: none


class Streams(Protocol):
    """`left` bytes as of `since_ns`, at `rate` since then. A stream's `hops` hops begin at `first_hop`."""

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
    fresh: Floats  # the new rate while rates are worked out; below 0: not settled yet


class Hops(Protocol):
    port: Longs
    stream: Longs
    weight: Floats
    following: Longs
    previous: Longs


class Scratch(Protocol):
    """Independent lists of ports or streams, side by side: the cells of a row do not belong together.

    EPOCH, HEAP, DIRTY, WORKED_OUT, SETTLINGS and SERIAL are the rows of `counts`. `fullest[0]` is the
    largest share of its capacity that any port has ever been given to carry.
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
    """A table of zeros: an array of records, with a field for each of `columns`.

    Compiled code reads `table.column[row]`, Python `table["column"][row]`. To pass a table to compiled code
    takes 0.2 us; its columns as separate arrays would take 15 us.
    """
    table = np.zeros(rows, _record(columns))
    # Without compilation the loops are Python too, and need this view. It would cost compiled calls 4 us.
    uncompiled: bool = getattr(config, "DISABLE_JIT")  # noqa: B009 - numba declares its settings nowhere
    return table.view(np.recarray) if uncompiled else table


@cache
def _record(columns: type[Ports | Streams | Hops | Scratch]) -> np.dtype[Any]:
    """The record type of all tables of a kind.

    It is one object, because numba recognises the type by identity. It would compare an equal one column by
    column, at every call.
    """
    cells = []
    for name, hint in get_type_hints(columns, include_extras=True).items():
        shape = hint.__metadata__[0] if get_origin(hint) is Annotated else ()
        kind = hint.__origin__ if shape else hint
        cells.append((name, np.float64 if kind == Floats else np.int64, shape))
    return np.dtype(cells)


def compiled(function: Any) -> Any:
    """Compile `function` at its first call, and keep the result on disk if possible."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package nor the home is writable: compile in every process
        return njit(nogil=True)(function)


def is_loaded(function: Any) -> bool:
    """Return whether this process has called the `compiled` function before: the first call takes long."""
    return bool(getattr(function, "signatures", True))  # numba left it a Python function: nothing to load

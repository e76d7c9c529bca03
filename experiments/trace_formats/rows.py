"""A row of a trace in any format, and how a format is read into rows."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from experiments.errors import UserError


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a trace. `time_ns` counts from a moment that differs between traces.

    `blocks` are the ids of the prompt's full blocks, each standing for the block and everything before it;
    None if the trace does not say what prompts are made of. `labels` are the columns that tell kinds of
    requests apart.
    """

    time_ns: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None
    labels: dict[str, str] = {}


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How a format is read.

    `rows` reads a file row by row and raises `UserError` for the first invalid line. `labels` are the
    columns that rows have as labels. `block_tokens` is the size of a block. `note` is what users of such a
    trace have to know.
    """

    rows: Callable[[Path], Iterator[TraceRow]]
    block_tokens: int
    labels: tuple[str, ...] = ()
    note: str | None = None


def in_order(rows: Iterable[tuple[str, TraceRow]], name: str) -> Iterator[TraceRow]:
    """Yield the rows of `rows`, which come with their place, and check that they are sorted by time.

    Raises `UserError`, with the place, for a row that is earlier than the row above it; `name` is the name
    of the time in the file.
    """
    last = None
    for where, row in rows:
        if last is not None and row.time_ns < last:
            raise UserError(f"{where}: {name} is earlier than in the row above; a trace is sorted by time")
        last = row.time_ns
        yield row

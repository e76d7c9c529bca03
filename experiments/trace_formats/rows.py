"""A row of a trace, whatever the trace's format is, and how a format is read into rows."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from experiments.errors import UserError


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request of a trace. `time_ns` counts from the trace's own beginning, which may be any moment.

    `blocks` are ids of the prompt's full blocks, each standing for itself and all before it; None where the
    trace does not say what prompts are made of. `labels` are the columns that tell kinds of requests apart.
    """

    time_ns: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None
    labels: dict[str, str] = {}


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How a format is read.

    `rows` goes over a file and raises `UserError` for the first line that is not right. `labels` are the
    columns that rows have as labels. `block_tokens` is the size of a block. `note` says what a user of such
    a trace has to know.
    """

    rows: Callable[[Path], Iterator[TraceRow]]
    block_tokens: int
    labels: tuple[str, ...] = ()
    note: str | None = None


def in_order(rows: Iterable[tuple[str, TraceRow]], name: str) -> Iterator[TraceRow]:
    """`rows`, each with the words for its place, as long as they are sorted by time.

    Raises `UserError` for one before the row above it; `name` is what the file calls the time.
    """
    last = None
    for where, row in rows:
        if last is not None and row.time_ns < last:
            raise UserError(f"{where}: {name} is before that of the row above; a trace is sorted by time")
        last = row.time_ns
        yield row

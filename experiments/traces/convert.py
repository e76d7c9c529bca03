"""`mfs workload convert`: a trace of any format in the testbed's own one."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from experiments.trace_formats.formats import TraceFormat, reader_of
from experiments.trace_formats.native import write_requests
from experiments.trace_formats.rows import Order, RowColumns, TraceRow, by_time
from experiments.trace_formats.tally import Tally


class Converted(msgspec.Struct, frozen=True):
    """How many requests were written, and what has to be said of them."""

    requests: int
    notes: tuple[str, ...]


def convert(path: Path, format: TraceFormat, out: Path, *, sort: bool) -> Converted:
    """Write the trace at `path` to `out`. With `sort`, its rows need not be in order, and are all in memory.

    Raises `UserError` for an invalid row, which leaves `out` as it was.
    """
    reader = reader_of(path, format)
    rows: Iterator[RowColumns | TraceRow]
    if sort:
        rows = Order(reader.time, path).rows(by_time(reader.placed(path)))
    elif reader.labels:  # which columns do not have
        rows = reader.rows(path)
    else:
        rows = reader.in_columns(path)
    tally = Tally()
    written = write_requests(out, _seen(rows, tally), reader)
    return Converted(requests=written, notes=tuple(tally.notes(reader)))


def _seen(rows: Iterator[RowColumns | TraceRow], tally: Tally) -> Iterator[RowColumns | TraceRow]:
    for row in rows:
        if isinstance(row, RowColumns):
            tally.see_columns(row.count, blocks=row.blocks is not None)
        else:
            tally.see(row)
        yield row

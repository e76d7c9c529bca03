"""`mfs workload convert`: a trace of any format in the testbed's own one."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from experiments.trace_formats.formats import TraceFormat, reader_of
from experiments.trace_formats.native import write_requests
from experiments.trace_formats.rows import TraceRow, by_time, in_order
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
    placed = reader.placed(path)
    rows = in_order(by_time(placed) if sort else placed, reader.time, path)
    tally = Tally()
    written = write_requests(out, _seen(rows, tally), reader)
    return Converted(requests=written, notes=tuple(tally.notes(reader)))


def _seen(rows: Iterator[TraceRow], tally: Tally) -> Iterator[TraceRow]:
    for row in rows:
        tally.see(row)
        yield row

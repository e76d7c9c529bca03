"""From a trace of any format to the requests of a run."""

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.errors import UserError
from experiments.trace_formats import ticks
from experiments.trace_formats.formats import TraceFormat, reader_of
from experiments.trace_formats.rows import Longs, Reader, RowColumns, TraceRow
from experiments.trace_formats.tally import Tally
from experiments.workloads.workload import Workload
from testbed.job import Request
from testbed.serving.slo import DEFAULT_CLASS


def load(
    path: Path,
    format: TraceFormat,
    *,
    requests: int,
    skip: int = 0,
    slo_class: str = DEFAULT_CLASS,
    class_from: str | None = None,
    spread_ticks: bool = True,
    times_needed: bool = True,
    seed: int = 1,
) -> Workload:
    """Read `requests` rows of the trace at `path` after the first `skip`. The first one taken arrives at 0.

    With `spread_ticks`, the rows in one tick of a coarse clock are spread inside it, and a note says so.
    With `class_from`, the class of a request is its value in that column; otherwise it is `slo_class`.
    `times_needed` says that the run keeps the arrivals of the trace.

    A later turn of a session is a request `after` the turn before. Its arrival is the earliest possible one,
    as if answers took no time.

    Raises `UserError` for a malformed file or row (every row is checked, including those that are not
    taken), for a column that the format does not have, for a trace without times if they are needed, if
    there are too few rows, and for a turn whose turn before is left out by `skip`.
    """
    reader = reader_of(path, format)
    _check_column(reader, format, path, class_from)
    taken = _Taken(path, reader, requests=requests, skip=skip)
    if times_needed and not taken.times:
        raise UserError(
            f"{path}: the trace has no arrival times: draw them (workload.arrivals: poisson or bursty, with "
            "workload.rate or workload.load)"
        )
    tally = Tally()
    for row in taken.rows:
        tally.see(row)
    notes = tally.notes(reader)
    classes = [slo_class] * requests
    if class_from is not None:
        classes = [
            _class_of(row, class_from, f"{path}, request {n}") for n, row in enumerate(taken.rows, skip + 1)
        ]
    stamped = np.frombuffer(taken.times, dtype=np.int64)
    clock = ticks.clock_of(stamped) if times_needed else None
    if clock is not None:
        notes.append(clock.note(spread_ticks))
        if spread_ticks:
            ticks.spread(stamped, clock.tick_ns, seed)
    if class_from is not None:
        found = ", ".join(f"{name} {count}" for name, count in Counter(classes).most_common())
        notes.append(f"SLO classes are those of {class_from}: {found}")
    return Workload(
        requests=tuple(_requests(taken, stamped, classes, reader.block_tokens)), notes=tuple(notes)
    )


class _Taken:
    """The rows that a run takes, and the times of all rows, since finding a clock's tick takes all.

    `times` are those of the rows that wait for no other, in ns, in order. `places` has the place in `times`
    of each row that is taken; -1 for a later turn.
    """

    def __init__(self, path: Path, reader: Reader, *, requests: int, skip: int) -> None:
        self.rows: list[TraceRow] = []
        self.times = array("q")
        self.places: list[int] = []
        begun: set[str] = set()
        left_out: set[str] = set()
        seen = 0
        for row in reader.in_columns(path, single=range(skip, skip + requests)):
            if isinstance(row, RowColumns):
                self.times.frombytes(row.time_ns.tobytes())
                seen += row.count
                continue
            number, seen = seen, seen + 1
            later = row.session is not None and row.session in begun
            place = -1
            if not later and row.time_ns is not None:
                place = len(self.times)
                self.times.append(row.time_ns)
            if row.session is not None:
                begun.add(row.session)
                if number < skip:
                    left_out.add(row.session)
            if not skip <= number < skip + requests:
                continue
            if later and row.session in left_out:
                raise UserError(
                    f"{path}: request {number + 1} is a turn of session {row.session}, whose turn before is "
                    "left out (workload.skip): leave out whole sessions"
                )
            self.rows.append(row)
            self.places.append(place)
        if len(self.rows) < requests:
            after = f" after workload.skip, {skip}" if skip else ""
            has = f"{seen} row{'' if seen == 1 else 's'}"
            most = f"; workload.requests={len(self.rows)} takes all" if self.rows else ""
            raise UserError(f"{path}: workload.requests is {requests}{after}, but the file has {has}{most}")


def _requests(taken: _Taken, stamped: Longs, classes: list[str], block_tokens: int) -> Iterator[Request]:
    """Yield the requests. Blocks that the trace says nothing of get ids beyond those of the others."""
    next_block = 1 + max((max(row.blocks) for row in taken.rows if row.blocks), default=-1)
    zero_ns = int(stamped[taken.places[0]]) if len(stamped) else 0
    last_turn: dict[str, Request] = {}
    for i, (row, place, slo_class) in enumerate(zip(taken.rows, taken.places, classes, strict=True)):
        blocks = row.blocks
        if blocks is None:
            count = row.prompt_tokens // block_tokens
            blocks = tuple(range(next_block, next_block + count))
            next_block += count
        before = None if row.session is None else last_turn.get(row.session)
        arrival_ns = int(stamped[place]) - zero_ns if place >= 0 else 0
        if before is not None:
            own_ns = 0 if row.time_ns is None else row.time_ns - zero_ns
            arrival_ns = max(own_ns, before.arrival_ns + row.pause_ns)
        request = Request(
            id=i,
            arrival_ns=arrival_ns,
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            blocks=blocks,
            block_tokens=block_tokens,
            slo_class=slo_class,
            after=None if before is None else before.id,
            pause_ns=row.pause_ns,
        )
        if row.session is not None:
            last_turn[row.session] = request
        yield request


def _check_column(reader: Reader, format: TraceFormat, path: Path, column: str | None) -> None:
    if column is None or column in reader.labels:
        return
    known = ", ".join(repr(name) for name in reader.labels) or "none"
    raise UserError(
        f"{path}: workload.class_from: {column!r} is not a column of a {format.value} trace that tells "
        f"kinds of requests apart (known: {known})"
    )


def _class_of(row: TraceRow, column: str, where: str) -> str:
    name = row.labels.get(column)
    if not name:
        raise UserError(f"{where}: nothing in {column!r} (workload.class_from)")
    return name

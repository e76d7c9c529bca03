"""From a trace of any format to the requests of a run."""

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.trace_formats import ticks
from experiments.trace_formats.formats import READERS, TraceFormat
from experiments.trace_formats.rows import Reader, TraceRow
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
    seed: int = 1,
) -> Workload:
    """Read `requests` rows of the trace at `path` after the first `skip`. The first one taken arrives at 0.

    With `spread_ticks`, the rows in one tick of a coarse clock are spread inside it, and a note says so.
    With `class_from`, the class of a request is its value in that column; otherwise it is `slo_class`.

    Raises `UserError` for a malformed file or row (every row is checked, including those that are not
    taken), for a column that the format does not have, and if there are too few rows.
    """
    reader = READERS[format]
    _check_column(reader, format, path, class_from)
    times = array("q")
    taken = _take(_with_times(reader.rows(path), times), path=path, requests=requests, skip=skip)
    arrivals_ns, tick_note = _arrivals(times, spread_ticks, seed)
    arrivals_ns = arrivals_ns[skip : skip + requests]
    notes = [note for note in (reader.note, tick_note) if note is not None]
    classes = [slo_class] * requests
    if class_from is not None:
        classes = [
            _class_of(row, class_from, f"{path}, request {n}") for n, row in enumerate(taken, skip + 1)
        ]
        found = ", ".join(f"{name} {count}" for name, count in Counter(classes).most_common())
        notes.append(f"SLO classes are those of {class_from}: {found}")
    return Workload(
        requests=tuple(_requests(taken, arrivals_ns, classes, reader.block_tokens)), notes=tuple(notes)
    )


def _take(rows: Iterable[TraceRow], *, path: Path, requests: int, skip: int) -> list[TraceRow]:
    """Take `requests` rows after the first `skip`, and read the rest, so that every row is checked.

    Raises `UserError` if there are too few rows.
    """
    left = iter(rows)
    skipped = sum(1 for _ in itertools.islice(left, skip))
    taken = list(itertools.islice(left, requests))
    if len(taken) < requests:
        there = skipped + len(taken)
        after = f" after workload.skip, {skip}" if skip else ""
        has = f"{there} row{'' if there == 1 else 's'}"
        most = f"; workload.requests={len(taken)} takes all" if taken else ""
        raise UserError(f"{path}: workload.requests is {requests}{after}, but the file has {has}{most}")
    for _ in left:
        pass
    return taken


def _requests(
    taken: list[TraceRow], arrivals_ns: list[int], classes: list[str], block_tokens: int
) -> Iterator[Request]:
    next_block = 0
    for i, (row, arrival_ns, slo_class) in enumerate(zip(taken, arrivals_ns, classes, strict=True)):
        blocks = row.blocks
        if blocks is None:
            count = row.prompt_tokens // block_tokens
            blocks = tuple(range(next_block, next_block + count))
            next_block += count
        yield Request(
            id=i,
            arrival_ns=arrival_ns - arrivals_ns[0],
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            blocks=blocks,
            block_tokens=block_tokens,
            slo_class=slo_class,
        )


def _with_times(rows: Iterator[TraceRow], times: "array[int]") -> Iterator[TraceRow]:
    """Yield `rows` and append their times to `times`, since finding a clock's tick takes the whole trace."""
    for row in rows:
        times.append(row.time_ns)
        yield row


def _arrivals(times: "array[int]", spread_ticks: bool, seed: int) -> tuple[list[int], str | None]:
    """Return the times, spread inside the ticks of a coarse clock if wanted, with a note if they were."""
    stamped = times.tolist()
    tick_ns = ticks.tick_of(stamped) if spread_ticks else None
    if tick_ns is None:
        return stamped, None
    spread = ticks.spread(stamped, tick_ns, seed)
    return spread, f"arrivals spread inside the trace's {tick_ns / NS_PER_S:.1f} s tick"


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

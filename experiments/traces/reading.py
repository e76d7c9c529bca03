"""From a trace file to its columns."""

from array import array
from pathlib import Path

import numpy as np

from experiments.errors import UserError
from experiments.trace_formats import ticks
from experiments.trace_formats.formats import TraceFormat, reader_of
from experiments.trace_formats.rows import RowColumns, TraceRow
from experiments.trace_formats.tally import Tally
from experiments.traces import _core
from experiments.traces.columns import Columns
from experiments.traces.lengths import LengthCounter, Longs


def read_columns(
    path: Path,
    format: TraceFormat,
    *,
    skip: int = 0,
    requests: int | None = None,
    spread_ticks: bool = True,
    seed: int = 1,
) -> Columns:
    """Read `requests` rows (None: all) of the trace at `path` after the first `skip`.

    Arrivals that share a tick of a coarse clock are spread inside it, as in a run, unless `spread_ticks` is
    off. A later turn of a session is taken to arrive as if answers took no time. Rows without times all
    arrive at 0. Raises `UserError` for an invalid file or row, and if there are too few rows.
    """
    reader = reader_of(path, format)
    rows = _Rows(skip, None if requests is None else skip + requests)
    for row in reader.in_columns(path):
        if isinstance(row, RowColumns):
            rows.add_columns(row)
        else:
            rows.add(row)
    if rows.seen <= skip or (rows.until is not None and rows.seen < rows.until):
        asked = {"--skip": skip or None, "--requests": requests}
        options = "".join(f" {name} {value}" for name, value in asked.items() if value is not None)
        raise UserError(f"{path}:{options + ':' if options else ''} the file has {rows.seen} requests")
    notes = rows.tally.notes(reader)
    stamped = np.frombuffer(rows.times, dtype=np.int64)
    clock = ticks.clock_of(stamped)
    if clock is not None:
        notes.append(clock.note(spread_ticks))
        if spread_ticks:
            ticks.spread(stamped, clock.tick_ns, seed)
    if not len(stamped):
        notes.append("the trace has no arrival times: a run has to draw them (workload.arrivals)")
    return rows.columns(stamped, reader.block_tokens, clock, tuple(notes))


class _Rows:
    """The rows of a trace so far, of which those from `skip` to `until` are taken.

    `times` are those of all rows that wait for no other.
    """

    def __init__(self, skip: int, until: int | None) -> None:
        self.skip, self.until, self.seen = skip, until, 0
        self.tally = Tally()
        self.times = array("q")
        self._taken = 0
        self._prompts, self._outputs = LengthCounter(), LengthCounter()
        self._blocks, self._starts = array("q"), array("q")
        self._turns: _Turns | None = None

    def add_columns(self, rows: RowColumns) -> None:
        first = min(max(self.skip - self.seen, 0), rows.count)
        end = rows.count if self.until is None else min(max(self.until - self.seen, 0), rows.count)
        end = max(first, end)
        if self._turns is not None:
            self._turns.add_columns(rows.time_ns[first:end], len(self.times) + first)
        self.times.frombytes(rows.time_ns.tobytes())
        self.seen += rows.count
        self._prompts.add_all(rows.prompt_tokens[first:end])
        self._outputs.add_all(rows.output_tokens[first:end])
        self.tally.see_columns(end - first, blocks=rows.blocks is not None)
        starts = np.zeros(end - first + 1, dtype=np.int64)
        blocks = starts[:0]
        if rows.blocks is not None and rows.starts is not None:
            starts = rows.starts[first : end + 1] - rows.starts[first]
            blocks = rows.blocks[rows.starts[first] : rows.starts[end]]
        self._add_blocks(blocks, starts)
        self._taken += end - first

    def _add_blocks(self, blocks: Longs, starts: Longs) -> None:
        """Add the blocks of further rows. As long as no row has any, there are no starts."""
        if len(blocks) and not self._starts:
            self._starts = array("q", bytes(8 * (self._taken + 1)))
        if self._starts:
            self._starts.frombytes((starts[1:] + len(self._blocks)).tobytes())
        self._blocks.frombytes(blocks.tobytes())

    def add(self, row: TraceRow) -> None:
        if row.session is not None and self._turns is None:
            self._turns = _Turns(self.skip, self._taken, timed=bool(self.times))
        later = self._turns is not None and self._turns.has(row.session)
        place = -1
        if not later and row.time_ns is not None:
            place = len(self.times)
            self.times.append(row.time_ns)
        taken = self.seen >= self.skip and (self.until is None or self.seen < self.until)
        self.seen += 1
        if self._turns is not None:
            self._turns.add(row, place, taken=taken)
        if not taken:
            return
        self.tally.see(row)
        self._prompts.add(row.prompt_tokens)
        self._outputs.add(row.output_tokens)
        if row.blocks and not self._starts:
            self._starts = array("q", bytes(8 * (self._taken + 1)))
        self._taken += 1
        self._blocks.extend(row.blocks or ())
        if self._starts:
            self._starts.append(len(self._blocks))

    def columns(
        self, stamped: Longs, block_tokens: int, clock: ticks.Clock | None, notes: tuple[str, ...]
    ) -> Columns:
        """Return the columns, given the times of all rows that wait for no other, spread or not. They are
        used up."""
        starts = np.array(self._starts, dtype=np.int64)
        blocks = np.frombuffer(self._blocks, dtype=np.int64)
        _core.number(blocks)
        if self._turns is not None:
            times = self._turns.times_ns(stamped)
            order = np.argsort(times, kind="stable")
            times = times[order]
            if self.tally.turns and len(starts):
                blocks, starts = _reordered(blocks, starts, order)
        elif len(stamped):
            times = stamped[self.skip : self.skip + self._taken]
        else:
            times = np.zeros(self._taken, dtype=np.int64)
        times -= times[0]
        return Columns(
            time_ns=times,
            prompt_tokens=self._prompts.lengths(),
            output_tokens=self._outputs.lengths(),
            blocks=blocks,
            starts=starts,
            block_tokens=block_tokens,
            clock=clock,
            notes=notes,
        )


class _Turns:
    """What a trace with sessions takes to find when its later turns arrive.

    Of a row that is taken, `places` has its place among the times of rows that wait for no other, or -1;
    `befores` the number of the turn before, or -1; `pauses` the least time to that turn; `own` its own time,
    or -1. `taken` rows after the first `skip` came before the first session; they are `timed` or not.
    """

    def __init__(self, skip: int, taken: int, *, timed: bool) -> None:
        self._places = array("q", range(skip, skip + taken) if timed else [-1] * taken)
        self._befores, self._own = array("q", [-1] * taken), array("q", [-1] * taken)
        self._pauses = array("q", [0] * taken)
        self._last: dict[str, int] = {}

    def has(self, session: str | None) -> bool:
        return session in self._last

    def add(self, row: TraceRow, place: int, *, taken: bool) -> None:
        before = -1
        if row.session is not None:
            before = self._last.get(row.session, -1)
            self._last[row.session] = len(self._places) if taken else -1
        if taken:
            self._places.append(place)
            self._befores.append(before)
            self._pauses.append(row.pause_ns)
            self._own.append(-1 if row.time_ns is None else row.time_ns)

    def add_columns(self, own_ns: Longs, place: int) -> None:
        """Add rows of no session, whose places begin at `place`. All are taken."""
        count = len(own_ns)
        self._places.extend(range(place, place + count))
        self._befores.extend([-1] * count)
        self._pauses.extend([0] * count)
        self._own.frombytes(own_ns.tobytes())

    def times_ns(self, stamped: Longs) -> Longs:
        """Return the times of the rows that are taken, given those of all rows that wait for no other."""
        zero_ns = next((int(stamped[place]) for place in self._places if place >= 0), 0)
        times = np.zeros(len(self._places), dtype=np.int64)
        for i, (place, before) in enumerate(zip(self._places, self._befores, strict=True)):
            if place >= 0:
                times[i] = stamped[place] - zero_ns
            else:
                after_ns = int(times[before]) + self._pauses[i] if before >= 0 else 0
                times[i] = max(0, self._own[i] - zero_ns, after_ns)
        return times


def _reordered(blocks: Longs, starts: Longs, order: Longs) -> tuple[Longs, Longs]:
    """Return the blocks of the requests in `order`, numbered anew in order of first use, and their starts."""
    pieces = [blocks[starts[i] : starts[i + 1]] for i in order]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    reordered = np.concatenate(pieces)
    _core.number(reordered)
    return reordered, np.concatenate((np.zeros(1, dtype=np.int64), ends))

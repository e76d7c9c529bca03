"""A trace by columns, compact enough for millions of requests, and statistics of its lengths and times."""

import math
from array import array
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from controller.units import NS_PER_S
from experiments.errors import UserError
from experiments.results.statistics import percentile
from experiments.trace_formats import ticks
from experiments.trace_formats.formats import TraceFormat, reader_of
from experiments.trace_formats.rows import TraceRow
from experiments.trace_formats.tally import Tally

Longs = npt.NDArray[np.int64]

WINDOWS_S = (1, 10)


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in order of arrival, the first at 0.

    The blocks of request i are `blocks[starts[i]:starts[i + 1]]`. Their ids count from 0 in order of first
    use. A trace that does not say what its prompts are made of has no blocks. `clock` stamped the trace;
    None if it is not coarse. `notes` say how the trace was read.
    """

    time_ns: Longs
    prompt_tokens: Longs
    output_tokens: Longs
    blocks: Longs
    starts: Longs
    block_tokens: int
    clock: ticks.Clock | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.time_ns)


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
    for row in reader.rows(path):
        rows.add(row)
    if rows.seen <= skip or (rows.until is not None and rows.seen < rows.until):
        asked = {"--skip": skip or None, "--requests": requests}
        options = " ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise UserError(f"{path}: {options}: the file has {rows.seen} requests")
    notes = rows.tally.notes(reader)
    stamped = rows.times.tolist()
    clock = ticks.clock_of(stamped)
    if clock is not None:
        notes.append(clock.note(spread_ticks))
        if spread_ticks:
            stamped = ticks.spread(stamped, clock.tick_ns, seed)
    if not stamped:
        notes.append("the trace has no arrival times: a run has to draw them (workload.arrivals)")
    return rows.columns(stamped, reader.block_tokens, clock, tuple(notes))


class _Rows:
    """The rows of a trace so far, of which those from `skip` to `until` are taken.

    `times` are those of all rows that wait for no other. Of a row that is taken, `places` has its place in
    `times`, or -1; `befores` the number of the turn before, or -1; and `pauses` the least time to that turn.
    """

    def __init__(self, skip: int, until: int | None) -> None:
        self.skip, self.until, self.seen = skip, until, 0
        self.tally = Tally()
        self.times, self._own = array("q"), array("q")
        self._places, self._befores, self._pauses = array("q"), array("q"), array("q")
        self._prompts, self._outputs = array("q"), array("q")
        self._blocks, self._starts = array("q"), array("q", [0])
        self._numbers: dict[int, int] = {}
        self._turns: dict[str, int] = {}

    def add(self, row: TraceRow) -> None:
        later = row.session is not None and row.session in self._turns
        place = -1
        if not later and row.time_ns is not None:
            place = len(self.times)
            self.times.append(row.time_ns)
        taken = self.seen >= self.skip and (self.until is None or self.seen < self.until)
        self.seen += 1
        before = -1
        if row.session is not None:
            before = self._turns.get(row.session, -1)
            self._turns[row.session] = len(self._prompts) if taken else -1
        if not taken:
            return
        self.tally.see(row)
        self._places.append(place)
        self._befores.append(before)
        self._pauses.append(row.pause_ns)
        self._own.append(-1 if row.time_ns is None else row.time_ns)
        self._prompts.append(row.prompt_tokens)
        self._outputs.append(row.output_tokens)
        numbers = self._numbers
        self._blocks.extend(numbers.setdefault(block, len(numbers)) for block in row.blocks or ())
        self._starts.append(len(self._blocks))

    def columns(
        self, stamped: list[int], block_tokens: int, clock: ticks.Clock | None, notes: tuple[str, ...]
    ) -> Columns:
        """Return the columns, given the times of all rows that wait for no other, spread or not."""
        zero_ns = next((stamped[place] for place in self._places if place >= 0), 0)
        times = np.zeros(len(self._places), dtype=np.int64)
        for i, (place, before) in enumerate(zip(self._places, self._befores, strict=True)):
            if place >= 0:
                times[i] = stamped[place] - zero_ns
            else:
                after_ns = times[before] + self._pauses[i] if before >= 0 else 0
                times[i] = max(0, self._own[i] - zero_ns, after_ns)
        order = np.argsort(times, kind="stable")
        starts = np.array(self._starts, dtype=np.int64)
        blocks = np.array(self._blocks, dtype=np.int64)
        if self.tally.turns:
            blocks, starts = _reordered(blocks, starts, order)
        return Columns(
            time_ns=times[order] - times[order[0]],
            prompt_tokens=np.array(self._prompts, dtype=np.int64)[order],
            output_tokens=np.array(self._outputs, dtype=np.int64)[order],
            blocks=blocks,
            starts=starts,
            block_tokens=block_tokens,
            clock=clock,
            notes=notes,
        )


def _reordered(blocks: Longs, starts: Longs, order: Longs) -> tuple[Longs, Longs]:
    """Return the blocks of the requests in `order`, numbered anew in order of first use, and their starts."""
    pieces = [blocks[starts[i] : starts[i + 1]] for i in order]
    moved = np.concatenate(pieces) if len(blocks) else blocks
    _, first, inverse = np.unique(moved, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return number[inverse] if len(blocks) else blocks, np.concatenate((np.zeros(1, dtype=np.int64), ends))


class ArrivalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How requests arrive. `gap_cv` is the coefficient of variation of the gaps between them: 1 for a
    Poisson process. `dispersion` has, by length of a window in seconds, the variance over the mean of the
    number of arrivals in a window; None if fewer than `MIN_WINDOWS` windows fit."""

    span_s: float
    rate_rps: float | None
    gap_cv: float | None
    dispersion: dict[int, float | None]


MIN_WINDOWS = 10


def arrivals_of(columns: Columns) -> ArrivalStatistics:
    """Describe the arrivals. n of them span n - 1 gaps, so the mean rate is (n - 1) / span; None if all
    arrive at once."""
    span_s = float(columns.time_ns[-1]) / NS_PER_S
    gaps = np.diff(columns.time_ns).astype(np.float64)
    return ArrivalStatistics(
        span_s=span_s,
        rate_rps=(columns.count - 1) / span_s if span_s else None,
        gap_cv=float(gaps.std() / gaps.mean()) if span_s else None,
        dispersion={window: dispersion(columns.time_ns, window) for window in WINDOWS_S},
    )


def dispersion(time_ns: Longs, window_s: float) -> float | None:
    """Return the variance over the mean of the counts in all whole windows from the first arrival on."""
    windows = math.floor(float(time_ns[-1]) / (window_s * NS_PER_S))
    if windows < MIN_WINDOWS:
        return None
    counts = window_counts(time_ns, window_s, windows)
    return float(counts.var(ddof=1) / counts.mean())


def window_counts(time_ns: Longs, window_s: float, windows: int) -> Longs:
    """Return how many requests arrive in each of the first `windows` windows of `window_s` seconds."""
    places = (time_ns / (window_s * NS_PER_S)).astype(np.int64)
    counts: Longs = np.bincount(places[places < windows], minlength=windows)
    return counts


class LengthStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of token counts. `cv` is the standard deviation over the mean."""

    mean: float
    cv: float
    p50: float
    p90: float
    p99: float
    max: int


def lengths_of(tokens: Longs) -> LengthStatistics:
    values = tokens.astype(np.float64)
    mean = float(values.mean())
    p50, p90, p99 = (percentile(values, q) or 0.0 for q in (50, 90, 99))
    return LengthStatistics(
        mean=mean,
        cv=float(values.std()) / mean if mean else 0.0,
        p50=p50,
        p90=p90,
        p99=p99,
        max=int(tokens.max()),
    )

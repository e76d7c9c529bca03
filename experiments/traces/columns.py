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
from experiments.trace_formats.formats import READERS, TraceFormat

Longs = npt.NDArray[np.int64]

WINDOWS_S = (1, 10)


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in order of arrival, the first at 0.

    The blocks of request i are `blocks[starts[i]:starts[i + 1]]`. Their ids count from 0 in order of first
    use. A trace that does not say what its prompts are made of has no blocks. `notes` say how the trace was
    read.
    """

    time_ns: Longs
    prompt_tokens: Longs
    output_tokens: Longs
    blocks: Longs
    starts: Longs
    block_tokens: int
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
    off. Raises `UserError` for an invalid file or row, and if there are too few rows.
    """
    reader = READERS[format]
    times, prompts, outputs = array("q"), array("q"), array("q")
    blocks, starts = array("q"), array("q", [0])
    numbers: dict[int, int] = {}
    until = None if requests is None else skip + requests
    seen = 0
    for row in reader.rows(path):
        times.append(row.time_ns)
        seen += 1
        if seen <= skip or (until is not None and seen > until):
            continue
        prompts.append(row.prompt_tokens)
        outputs.append(row.output_tokens)
        blocks.extend(numbers.setdefault(block, len(numbers)) for block in row.blocks or ())
        starts.append(len(blocks))
    if seen <= skip or (until is not None and seen < until):
        asked = {"--skip": skip or None, "--requests": requests}
        options = " ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise UserError(f"{path}: {options}: the file has {seen} requests")
    notes = [reader.note] if reader.note else []
    stamped = times.tolist()
    tick_ns = ticks.tick_of(stamped) if spread_ticks else None
    if tick_ns is not None:
        stamped = ticks.spread(stamped, tick_ns, seed)
        notes.append(f"arrivals spread inside the trace's {tick_ns / NS_PER_S:.1f} s tick")
    taken = np.array(stamped[skip:until], dtype=np.int64)
    return Columns(
        time_ns=taken - taken[0],
        prompt_tokens=np.array(prompts, dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        blocks=np.array(blocks, dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        block_tokens=reader.block_tokens,
        notes=tuple(notes),
    )


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

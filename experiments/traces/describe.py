"""The description of a trace, as a table and as JSON."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from rich.table import Table
from rich.text import Text

from controller.units import NS_PER_S
from experiments.fitted_table import FittedTable
from experiments.json_text import json_text
from experiments.results.readable_numbers import NOTHING
from experiments.traces.columns import ArrivalStatistics, Columns, arrivals_of
from experiments.traces.lengths import LengthStatistics, lengths_of
from experiments.traces.reuse import DistanceQuantiles, HitCurve, Prefix, Reuse, reuse_of


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace is like. `hit_rate` is the reuse by size of the cache. Token counts are per request.

    `tick_s` is the tick of a coarse clock, and `shared_stamps` the share of arrivals whose time stamp another
    has too; None if the clock is not coarse.
    """

    requests: int
    arrivals: ArrivalStatistics
    prompt_tokens: LengthStatistics
    output_tokens: LengthStatistics
    block_tokens: int
    tick_s: float | None
    shared_stamps: float | None
    reuse: Reuse
    hit_rate: HitCurve
    notes: tuple[str, ...] = ()


def describe(columns: Columns) -> Description:
    reuse, curve = reuse_of(columns)
    return Description(
        requests=columns.count,
        arrivals=arrivals_of(columns),
        prompt_tokens=lengths_of(columns.prompt_tokens),
        output_tokens=lengths_of(columns.output_tokens),
        block_tokens=columns.block_tokens,
        tick_s=None if columns.clock is None else columns.clock.tick_ns / NS_PER_S,
        shared_stamps=None if columns.clock is None else columns.clock.sharing,
        reuse=reuse,
        hit_rate=curve,
        notes=columns.notes,
    )


def as_json(description: Description) -> str:
    """Return the description as JSON, with null for what is not known."""
    return json_text(msgspec.to_builtins(description, str_keys=True))


def rows_of(found: Description) -> Iterator[tuple[str, str]]:
    """Yield the description as names and values in words."""
    arrivals, reuse = found.arrivals, found.reuse
    yield "requests", f"{found.requests:,}"
    yield "span", f"{arrivals.span_s:,.1f} s"
    yield "mean rate", _number(arrivals.rate_rps, "requests/s")
    yield "gaps, standard deviation / mean", _number(arrivals.gap_cv)
    for window, value in arrivals.dispersion.items():
        yield f"arrivals in {window} s, variance / mean", _number(value)
    if found.tick_s is not None and found.shared_stamps is not None:
        yield (
            "tick of the time stamps",
            f"{found.tick_s:.4g} s; {found.shared_stamps:.1%} share theirs",
        )
    yield "prompt tokens", _lengths(found.prompt_tokens)
    yield "output tokens", _lengths(found.output_tokens)
    yield "prompt tokens that can be reused", f"{reuse.token_share:.1%}"
    yield "requests that can reuse any", f"{reuse.request_share:.1%}"
    if not reuse.token_share:
        return
    yield "requests since the last use of a block", _quantiles(reuse.distance_requests, 1)
    yield "tokens of other blocks since then", _quantiles(reuse.distance_blocks, found.block_tokens)
    yield "tokens of all blocks", f"{reuse.distinct_blocks * found.block_tokens:,}"
    yield "shared prefixes, of which none continues another", _prefixes(reuse)
    yield "most shared", "; ".join(_prefix(one, found.requests) for one in reuse.most_shared)
    for share in (0.5, 0.9, 1.0):
        yield f"cache for {share:.0%} of that reuse", f"{cache_for(found.hit_rate, share):,} tokens"


def cache_for(curve: HitCurve, share: float) -> int:
    """Return the smallest cache of the curve, in tokens, that hits `share` of what the largest hits."""
    wanted = share * curve.hit_rate[-1]
    return curve.cache_tokens[int(np.searchsorted(curve.hit_rate, wanted * (1 - 1e-12)))]


def _number(value: float | None, unit: str = "") -> str:
    return NOTHING if value is None else f"{value:.4g} {unit}".strip()


def _lengths(found: LengthStatistics) -> str:
    return (
        f"mean {found.mean:,.0f}, p50 {found.p50:,.0f}, p90 {found.p90:,.0f}, p99 {found.p99:,.0f}, "
        f"most {found.max:,}"
    )


def _quantiles(found: DistanceQuantiles, unit: int) -> str:
    if found.p50 is None or found.p90 is None:
        return NOTHING
    return f"median {found.p50 * unit:,.0f}, p90 {found.p90 * unit:,.0f}"


def _prefixes(reuse: Reuse) -> str:
    law = "" if reuse.zipf is None else f", used like rank**-{reuse.zipf:.2g}"
    return f"{reuse.prefixes:,}{law}"


def _prefix(one: Prefix, requests: int) -> str:
    return f"{one.tokens:,} tokens by {one.requests / requests:.1%}"


def description_table(title: str, columns: Sequence[tuple[str, Description]]) -> Table:
    """Return a table with a column per description. A row that not all of them have has gaps."""
    named = any(heading for heading, _ in columns)
    table = FittedTable(title=Text(title), gap=2, show_header=named)
    table.add_column("", no_wrap=False)
    for heading, _ in columns:
        table.add_column(heading)
    told = [dict(rows_of(found)) for _, found in columns]
    for name in dict.fromkeys(name for rows in told for name in rows):
        table.add_row(Text(name), *(Text(rows.get(name, NOTHING)) for rows in told))
    return table

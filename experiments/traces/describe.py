"""What a trace is like: `mfs workload describe`, as a table, as JSON and as a page with figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from rich.table import Table
from rich.text import Text

from experiments.atomic_file import write_text
from experiments.json_text import json_text
from experiments.results.readable_numbers import NOTHING
from experiments.traces.columns import Arrivals, Columns, FloatArray, Lengths, Longs, arrivals_of, lengths_of
from experiments.traces.reuse import HitCurve, Prefix, Reuse, Spread, reuse_of
from experiments.units import NS_PER_S

RATE_BINS: Final = 200
POINTS: Final = 200


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """`hit_rate` is what `reuse` says by the size of the cache. Token counts are per request."""

    requests: int
    arrivals: Arrivals
    prompt_tokens: Lengths
    output_tokens: Lengths
    block_tokens: int
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
        reuse=reuse,
        hit_rate=curve,
        notes=columns.notes,
    )


def as_json(description: Description) -> str:
    """Without NaN: what is not known is null."""
    return json_text(msgspec.to_builtins(description, str_keys=True))


def rows_of(found: Description) -> Iterator[tuple[str, str]]:
    """The description as names and values in words."""
    arrivals, reuse = found.arrivals, found.reuse
    yield "requests", f"{found.requests:,}"
    yield "span", f"{arrivals.span_s:,.1f} s"
    yield "mean rate", _number(arrivals.rate_rps, "requests/s")
    yield "gaps, standard deviation / mean", _number(arrivals.gap_cv)
    for window, value in arrivals.dispersion.items():
        yield f"arrivals in {window} s, variance / mean", _number(value)
    yield "prompt tokens", _lengths(found.prompt_tokens)
    yield "output tokens", _lengths(found.output_tokens)
    yield "prompt tokens that can be reused", f"{reuse.token_share:.1%}"
    yield "requests that can reuse any", f"{reuse.request_share:.1%}"
    if not reuse.token_share:
        return
    yield "requests since the last use of a block", _spread(reuse.distance_requests, 1)
    yield "tokens of other blocks since then", _spread(reuse.distance_blocks, found.block_tokens)
    yield "tokens of all blocks", f"{reuse.distinct_blocks * found.block_tokens:,}"
    yield "shared prefixes, of which none continues another", _prefixes(reuse)
    yield "most shared", "; ".join(_prefix(one, found.requests) for one in reuse.most_shared)
    for share in (0.5, 0.9, 1.0):
        yield f"cache for {share:.0%} of that reuse", f"{cache_for(found.hit_rate, share):,} tokens"


def cache_for(curve: HitCurve, share: float) -> int:
    """The smallest cache of the curve, in tokens, that hits `share` of what an endless one does."""
    wanted = share * curve.hit_rate[-1]
    return curve.cache_tokens[int(np.searchsorted(curve.hit_rate, wanted * (1 - 1e-12)))]


def _number(value: float | None, unit: str = "") -> str:
    return NOTHING if value is None else f"{value:.4g} {unit}".strip()


def _lengths(found: Lengths) -> str:
    return (
        f"mean {found.mean:,.0f}, p50 {found.p50:,.0f}, p90 {found.p90:,.0f}, p99 {found.p99:,.0f}, "
        f"most {found.max:,}"
    )


def _spread(found: Spread, unit: int) -> str:
    if found.p50 is None or found.p90 is None:
        return NOTHING
    return f"median {found.p50 * unit:,.0f}, p90 {found.p90 * unit:,.0f}"


def _prefixes(reuse: Reuse) -> str:
    law = "" if reuse.zipf is None else f", used like rank**-{reuse.zipf:.2g}"
    return f"{reuse.prefixes:,}{law}"


def _prefix(one: Prefix, requests: int) -> str:
    return f"{one.tokens:,} tokens by {one.requests / requests:.1%}"


def description_table(title: str, columns: Sequence[tuple[str, Description]]) -> Table:
    """One column per description; a row that not all of them have has gaps."""
    named = any(heading for heading, _ in columns)
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=named)
    table.add_column("", no_wrap=False)
    for heading, _ in columns:
        table.add_column(heading)
    told = [dict(rows_of(found)) for _, found in columns]
    for name in dict.fromkeys(name for rows in told for name in rows):
        table.add_row(Text(name), *(Text(rows.get(name, NOTHING)) for rows in told))
    return table


def write_description(out: Path, title: str, columns: Columns, found: Description) -> Path:
    """Write `describe.json` and `workload.html` into the directory `out`, and return the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "describe.json", as_json(found))
    path = out / "workload.html"
    write_text(path, render_page(title, columns, found))
    return path


def render_page(title: str, columns: Columns, found: Description) -> str:
    """The page: it has all in itself and opens offline."""
    # Only here: matplotlib takes its time to load, and has things to say about homes it cannot write to.
    from experiments.report.markup import Markup, table
    from experiments.report.page import figure, page, section
    from experiments.traces.figures import hits_figure, lengths_figure, rate_figure

    notes = Markup("".join(f"<p>{line}</p>" for line in map(_escaped, found.notes)))
    return page(
        title=title,
        subtitle=f"{found.requests:,} requests",
        verdict=Markup(""),
        sections=[
            section("In numbers", table(["", ""], rows_of(found), text_columns=2), notes),
            section(
                "Arrivals",
                figure(rate_figure(*rate_over_time(columns)), "Mean rate of arrivals in each interval."),
            ),
            section(
                "Lengths",
                figure(
                    lengths_figure(columns.prompt_tokens, columns.output_tokens),
                    "Share of requests with at most so many tokens.",
                ),
            ),
            section(
                "Reuse",
                figure(
                    hits_figure(found.hit_rate),
                    "Share of prompt tokens that one cache for all requests has, by its size, least recently "
                    "used blocks out first.",
                ),
            ),
        ],
    )


def _escaped(text: str) -> Any:
    from experiments.report.markup import html

    return html(text)


def rate_over_time(columns: Columns) -> tuple[FloatArray, FloatArray]:
    """Edges of `RATE_BINS` intervals in seconds, and the mean rate in each, requests/s."""
    end_s = max(float(columns.time_ns[-1]) / NS_PER_S, 1e-9)
    edges: FloatArray = np.linspace(0.0, end_s, RATE_BINS + 1)
    counts: Longs = np.histogram(columns.time_ns / NS_PER_S, edges)[0]
    return edges, counts / np.diff(edges)

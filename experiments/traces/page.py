"""The page on a trace: its description as a table, and figures."""

from pathlib import Path
from typing import Final

import numpy as np

from controller.units import NS_PER_S
from experiments.atomic_file import write_text
from experiments.report.markup import Markup, html, table
from experiments.report.page import figure, page, section
from experiments.results.statistics import FloatArray
from experiments.traces.columns import Columns, parts_of
from experiments.traces.describe import Description, as_json, rows_of
from experiments.traces.figures import hits_figure, lengths_figure, rate_figure

RATE_BINS: Final = 200


def write_description(out: Path, title: str, columns: Columns, found: Description) -> Path:
    """Write `describe.json` and `workload.html` into the directory `out`, and return the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "describe.json", as_json(found))
    path = out / "workload.html"
    write_text(path, render_page(title, columns, found))
    return path


def render_page(title: str, columns: Columns, found: Description) -> str:
    """Return the page, which is self-contained and opens offline."""
    notes = Markup("".join(f"<p>{line}</p>" for line in map(html, found.notes)))
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
                    "Share of requests with at most x tokens.",
                ),
            ),
            section(
                "Reuse",
                figure(
                    hits_figure(found.hit_rate),
                    "Share of prompt tokens that one cache for all requests has, by its size. The least "
                    "recently used blocks are evicted first.",
                ),
            ),
        ],
    )


def rate_over_time(columns: Columns) -> tuple[FloatArray, FloatArray]:
    """Return the edges of `RATE_BINS` intervals in seconds, and the mean rate in each in requests/s."""
    end_s = max(float(columns.time_ns[-1]) / NS_PER_S, 1e-9)
    edges: FloatArray = np.linspace(0.0, end_s, RATE_BINS + 1)
    counts = sum(np.histogram(part / NS_PER_S, edges)[0] for part in parts_of(columns.time_ns))
    return edges, counts / np.diff(edges)

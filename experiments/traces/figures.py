"""The figures of the page on a trace. Each is one `<svg>`, or the empty string without data."""

import numpy as np
from matplotlib.ticker import EngFormatter

from experiments.report.chart import (
    COLOURS,
    draw_curve,
    figure_style,
    legend_above,
    log_axis,
    new_figure,
    svg,
)
from experiments.results.distributions import Curve, kept_ranks
from experiments.results.statistics import FloatArray
from experiments.traces.lengths import Lengths
from experiments.traces.reuse import HitCurve

_FIRST, _SECOND = COLOURS[1], COLOURS[2]


@figure_style
def rate_figure(edges: FloatArray, rates: FloatArray) -> str:
    """Draw requests/s over time; `edges` in seconds has one more entry than `rates`."""
    figure, (axes,) = new_figure(1, 1, height=2.2)
    axes.stairs(rates, edges, fill=True, color=_FIRST, alpha=0.7, lw=0)
    axes.set(xlabel="time (s)", ylabel="requests/s", xlim=(0, edges[-1]))
    axes.set_ylim(bottom=0)
    return svg(figure, "Rate of arrivals over time")


@figure_style
def lengths_figure(prompt_tokens: Lengths, output_tokens: Lengths) -> str:
    """Draw the distributions of prompt and output lengths."""
    figure, (axes,) = new_figure(1, 1, height=2.6)
    for tokens, label, colour in ((prompt_tokens, "prompt", _FIRST), (output_tokens, "output", _SECOND)):
        ranks = kept_ranks(int(tokens.counts.sum()))
        # A logarithmic axis has no 0: lengths of 0 are drawn at 1, where the curve begins.
        drawn = np.maximum(1, tokens.at_ranks(ranks)).astype(np.float64)
        found = Curve(count=int(tokens.counts.sum()), values=drawn.tolist())
        draw_curve(axes, found, label=label, colour=colour)
    log_axis(axes)
    axes.set(xlabel="tokens", ylabel="share of requests")
    legend_above(figure, axes)
    return svg(figure, "Distribution of prompt and output lengths")


@figure_style
def hits_figure(curve: HitCurve) -> str:
    """Draw the hit rate by the size of the cache."""
    if not curve.cache_tokens:
        return ""
    figure, (axes,) = new_figure(1, 1, height=2.6)
    axes.step(curve.cache_tokens, curve.hit_rate, where="post", color=_FIRST, linewidth=1.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel="cache (tokens)", ylabel="share of prompt tokens")
    axes.set_ylim(bottom=0)
    return svg(figure, "Share of prompt tokens that a cache of each size hits")

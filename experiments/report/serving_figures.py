"""The figures of a serving report. Each takes the series to compare and returns one `<svg>`."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controller.flow import SERVING_STAGES, Level
from controller.units import NS_PER_MS, NS_PER_S
from experiments.report.chart import (
    STAGE_TITLES,
    TIME_BINS,
    draw_cdf,
    draw_curve,
    draw_mark,
    draw_stack,
    figure_style,
    legend_above,
    level_legend_above,
    log_axis,
    new_figure,
    say_empty,
    svg,
)
from experiments.report.faults import draw_faults
from experiments.report.series import Series
from experiments.results.levels import (
    DECISION_COLUMNS,
    FLOW_COLUMNS,
    STEADY_COLUMNS,
    Periods,
    periods_of,
    steady,
    steady_periods,
)
from experiments.results.statistics import FloatArray

SAMPLE: Final = 50_000
"""Most flows that `levels_figure` is drawn from."""
_SAMPLE_SEED: Final = 1


@figure_style
def ttft_figure(series: Sequence[Series]) -> str:
    """Draw the distributions of TTFT and of TTFT / SLO over all arrived requests."""
    figure, (left, right) = new_figure(1, 2, height=2.7)
    for one in series:
        rows = [row for row in one.requests if row.ttft_ns is not None]
        total = len(one.requests)
        ttft_s = [row.ttft_ns / NS_PER_S for row in rows if row.ttft_ns is not None]
        ratio = [row.ttft_ns / row.slo_ns for row in rows if row.ttft_ns is not None and row.slo_ns]
        draw_cdf(left, ttft_s, label=one.label, colour=one.colour, total=total)
        draw_cdf(right, ratio, label=one.label, colour=one.colour, total=total)
    budgets = {row.slo_ns for one in series for row in one.requests}
    if len(budgets) == 1:
        draw_mark(left, budgets.pop() / NS_PER_S, "SLO")
    draw_mark(right, 1.0, "SLO")
    left.set(xlabel="TTFT (s)", ylabel="share of arrived requests")
    right.set(xlabel="TTFT / SLO")
    legend_above(figure, left)
    return svg(figure, "Distribution of time to first token per policy")


@figure_style
def arrivals_figure(series: Sequence[Series]) -> str:
    """Draw TTFT / SLO of each request at its arrival; a cross on top is a request without a first token."""
    figure, (axes,) = new_figure(1, 1, height=2.4)
    rows = [row for one in series for row in one.requests]
    ratios = [row.ttft_ns / row.slo_ns for row in rows if row.ttft_ns is not None and row.slo_ns]
    top = 1.1 * max([1.0, *ratios])
    for one in series:
        done = [r for r in one.requests if r.ttft_ns is not None and r.slo_ns]
        axes.scatter(
            [r.arrival_ns / NS_PER_S for r in done],
            [r.ttft_ns / r.slo_ns for r in done if r.ttft_ns is not None],
            s=12,
            color=one.colour,
            alpha=0.85,
            linewidths=0,
            label=one.label,
            rasterized=len(done) > 1000,
        )
        lost = [r.arrival_ns / NS_PER_S for r in one.requests if r.ttft_ns is None]
        axes.scatter(lost, [top] * len(lost), s=22, marker="x", color=one.colour)
    axes.axhline(1.0, linewidth=0.9, linestyle=(0, (4, 3)))
    last = max((row.arrival_ns / NS_PER_S for row in rows), default=0.0)
    draw_faults(axes, [fault for fault in series[0].faults if fault.from_s < last], last)
    axes.set(xlabel="arrival (s)", ylabel="TTFT / SLO", ylim=(0, top * 1.06))
    legend_above(figure, axes)
    return svg(figure, "Time to first token over SLO for each request")


@figure_style
def stages_figure(series: Sequence[Series]) -> str:
    """Draw the distributions of flow times from submit to finish, a panel per stage."""
    figure, panels = new_figure(1, len(SERVING_STAGES), height=2.5)
    for axes, stage in zip(panels, SERVING_STAGES, strict=True):
        for one in series:
            times = one.distributions.stage_ns[stage.value]
            draw_curve(axes, times, unit=NS_PER_MS, label=one.label, colour=one.colour)
        axes.set(xlabel="submit to finish (ms)", title=STAGE_TITLES[stage])
        if axes.lines:
            log_axis(axes)
        else:
            say_empty(axes, f"no {stage.value} flow")
    panels[0].set_ylabel("share of flows")
    legend_above(figure, next((axes for axes in panels if axes.lines), panels[0]))
    return svg(figure, "Distribution of flow completion times per stage and policy")


@figure_style
def waits_figure(series: Sequence[Series]) -> str:
    """Draw what prefill waits for (exposed S1 by layer, CCT) and how early S3 flows finish."""
    figure, (exposed, cct, early) = new_figure(1, 3, height=2.5)
    for one in series:
        found = one.distributions
        layers = sorted(found.exposed_s1_ns)
        means = [found.exposed_s1_ns[layer] / NS_PER_MS for layer in layers]
        exposed.plot(layers, means, color=one.colour, linewidth=1.4, marker="o", ms=2.5, label=one.label)
        draw_curve(cct, found.collective_ns, unit=NS_PER_MS, label=one.label, colour=one.colour)
        draw_curve(early, found.p2d_slack_ns, unit=NS_PER_MS, label=one.label, colour=one.colour)
    exposed.set(title="Exposed S1 wait by layer", xlabel="layer", ylabel="mean over batches (ms)")
    exposed.set_ylim(bottom=0)
    cct.set(title="Collective completion", xlabel="ms", ylabel="share of collectives")
    early.set(title="S3: deadline - finish", xlabel="ms (left of 0: late)", ylabel="share of flows")
    if not any(one.distributions.exposed_s1_ns for one in series):
        say_empty(exposed, "no wait for reused KV")
    if not cct.lines:
        say_empty(cct, "no collective")
    if early.lines:
        draw_mark(early, 0.0, "deadline")
    else:
        say_empty(early, "no S3 flow")
    legend_above(figure, exposed)
    return svg(figure, "Exposed S1 wait, collective completion time and S3 earliness per policy")


@figure_style
def levels_figure(series: Sequence[Series]) -> str:
    """Draw the mean number of flows in flight at each level over time."""
    figure, panels = new_figure(len(series), 1, height=1.7, sharex=True)
    end = max(one.run["duration_s"] for one in series)
    edges = np.linspace(0.0, max(end, 1e-9), TIME_BINS + 1)
    shown: set[Level] = set()
    for axes, one in zip(panels, series, strict=True):
        active = active_flows(one, edges)
        shown |= {level for level in Level if active[level].any()}
        draw_stack(axes, edges, active)
        draw_faults(axes, one.faults, one.run["duration_s"])
        axes.set(title=one.label, ylabel="flows")
    panels[-1].set(xlabel="time (s)", xlim=(0, edges[-1]))
    level_legend_above(figure, shown)
    return svg(figure, "Number of active flows at each level over time")


def sampled_text(series: Sequence[Series]) -> str:
    """Return which series `levels_figure` draws from a sample of the flows; empty if none."""
    parts = [
        f" {one.label}: a sample of {SAMPLE:,} of {total:,} flows."
        for one in series
        if (total := sum(one.run["flows_by_stage"].values())) > SAMPLE
    ]
    return "".join(parts)


def active_flows(one: Series, edges: FloatArray) -> FloatArray:
    """Return the mean number of flows in flight by level and bin, as (8, bins).

    If there are more than `SAMPLE` flows, it is estimated from a sample.
    """
    flows, total = one.tables.flows, len(one.tables.flows)
    active = np.zeros((len(Level), len(edges) - 1))
    if not total:
        return active
    places = np.arange(total)
    if total > SAMPLE:
        places = np.sort(np.random.default_rng(_SAMPLE_SEED).choice(total, SAMPLE, replace=False))
    drawn = flows.at(STEADY_COLUMNS, places)
    is_steady = steady(drawn)
    _add(active, steady_periods(drawn.filter(pa.array(is_steady))), edges)
    if not is_steady.all():
        changes = one.tables.decisions.parts(DECISION_COLUMNS, level_from=range(len(Level)))
        _add(active, periods_of(flows.at(FLOW_COLUMNS, places[~is_steady]), changes), edges)
    return active * (total / len(places))


def _add(active: FloatArray, periods: Periods, edges: FloatArray) -> None:
    """Add the mean number of periods that are under way, by level and bin."""
    for level in np.unique(periods.level):
        here = periods.level == level
        # Flow-seconds up to each edge: the time since all starts less the time since all ends.
        served = _ramp(periods.start_ns[here], edges) - _ramp(periods.end_ns[here], edges)
        active[level] += np.diff(served) / np.diff(edges)


def _ramp(times_ns: npt.NDArray[np.int64], at: FloatArray) -> FloatArray:
    """The sum of max(0, t - time) over all times, in seconds, at each t of `at`."""
    times = np.sort(np.asarray(times_ns, dtype=np.float64)) / NS_PER_S
    before = np.searchsorted(times, at)
    sums = np.concatenate(([0.0], np.cumsum(times)))
    result: FloatArray = before * at - sums[before]
    return result

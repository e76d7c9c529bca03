"""The figures of micro workloads (when each flow ran and at which level, how its bytes arrived) and of
coflows (how long they took)."""

import heapq
from collections import defaultdict
from collections.abc import Sequence

from controller.flow import Level
from controller.units import NS_PER_S
from experiments.report.chart import (
    COLOURS,
    LEVEL_COLOURS,
    draw_curve,
    figure_style,
    legend_above,
    level_legend_above,
    log_axis,
    new_figure,
    svg,
)
from experiments.report.series import MOST_FLOWS, Series
from experiments.results.levels import decisions_by_flow, level_periods
from experiments.results.natural_order import natural
from testbed.record import FlowRow


def _first_flows(one: Series) -> list[FlowRow]:
    """The first `MOST_FLOWS` flows by submit time."""
    return heapq.nsmallest(MOST_FLOWS, one.tables.flows, key=lambda flow: (flow.submit_ns, natural(flow.id)))


@figure_style
def timeline_figure(series: Sequence[Series]) -> str:
    """Draw a bar per flow from permit to finish, coloured by level, after a thin line from its submit."""
    shown_of = [_first_flows(one) for one in series]
    most = max(map(len, shown_of))
    figure, panels = new_figure(len(series), 1, height=0.9 + 0.2 * most, sharex=True)
    shown: set[Level] = set()
    for axes, one, flows in zip(panels, series, shown_of, strict=True):
        decisions = decisions_by_flow(one.tables.decisions.where(flow=[flow.id for flow in flows]))
        for y, flow in enumerate(flows):
            axes.plot([flow.submit_ns / NS_PER_S, flow.permit_ns / NS_PER_S], [y, y], linewidth=1.0)
            for period in level_periods(flow, decisions.get(flow.id, ())):
                shown.add(period.level)
                axes.barh(
                    y,
                    (period.end_ns - period.start_ns) / NS_PER_S,
                    left=period.start_ns / NS_PER_S,
                    height=0.62,
                    color=LEVEL_COLOURS[period.level],
                )
            if flow.deadline_ns is not None:
                axes.plot([flow.deadline_ns / NS_PER_S], [y], marker="|", markersize=11, linestyle="")
        axes.set_yticks(range(len(flows)), [flow.id for flow in flows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_title(one.label)
        axes.set_xlim(left=0)
    panels[-1].set_xlabel("time (s)")
    level_legend_above(figure, shown)
    return svg(figure, "When each flow ran and at which level")


@figure_style
def received_figure(series: Sequence[Series]) -> str:
    """Draw the received bytes of each flow over time; the empty string if no progress was recorded."""
    followed = [one for one in series if len(one.tables.progress)]
    if not followed:
        return ""
    figure, panels = new_figure(len(followed), 1, height=2.0, sharex=True)
    colour_of = {
        flow: COLOURS[(i + 1) % len(COLOURS)]
        for i, flow in enumerate(sorted({f.id for one in followed for f in _first_flows(one)}, key=natural))
    }
    for axes, one in zip(panels, followed, strict=True):
        points: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for progress in one.tables.progress.where(flow=list(colour_of)):
            points[progress.flow].append((progress.time_ns, progress.received_bytes))
        for flow in sorted(points, key=natural):
            line = sorted(points[flow])
            axes.plot(
                [time / NS_PER_S for time, _ in line],
                [received / 1e6 for _, received in line],
                color=colour_of.get(flow),
                linewidth=1.6,
                label=flow,
                rasterized=len(line) > 2000,
            )
        axes.set(title=one.label, ylabel="received (MB)")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    panels[-1].set_xlabel("time (s)")
    legend_above(figure, panels[0])
    return svg(figure, "Bytes received by each flow over time")


@figure_style
def coflows_figure(series: Sequence[Series]) -> str:
    """Draw the distributions of coflow completion times."""
    figure, (axes,) = new_figure(1, 1, height=2.7)
    for one in series:
        times = one.distributions.coflow_ns
        draw_curve(axes, times, unit=NS_PER_S, label=one.label, colour=one.colour)
    log_axis(axes)
    axes.set(xlabel="coflow completion time (s)", ylabel="share of coflows")
    legend_above(figure, axes)
    return svg(figure, "Distribution of coflow completion time per policy")

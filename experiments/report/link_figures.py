"""The figures of links, for every kind of run: how busy they were, and at which levels."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from controller.flow import Level
from controller.units import NS_PER_S
from experiments.report.chart import TIME_BINS, draw_stack, figure_style, level_legend_above, new_figure, svg
from experiments.report.faults import draw_faults
from experiments.report.scales import name_places
from experiments.report.series import Series
from experiments.results.link_rates import COUNTER_COLUMNS, counters_in_table, link_rates
from experiments.results.natural_order import natural
from experiments.results.statistics import FloatArray

MAX_LINKS: Final = 40
BUSIEST: Final = 3

# From transparent to opaque, so that an idle link has the colour of the page, light or dark.
_LOAD: Final = LinearSegmentedColormap.from_list("load", [(0.18, 0.5, 0.76, 0.0), (0.18, 0.5, 0.76, 1.0)])
FULL_LOAD: Final = "#2e80c2"
_RIGHT_OF_LOADS: Final = 0.91
"""Where panels end that have the scale of the colours on their right."""


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """The load of links over time. `gbps` has each port's mean rate in model Gb/s, by level and time bin,
    with shape (8, `TIME_BINS`); `edges` are the edges of the bins in seconds."""

    series: Series
    edges: FloatArray
    gbps: dict[str, FloatArray]


def link_loads(series: Sequence[Series]) -> list[LinkLoad]:
    """Return the load of the same links in each series whose links were sampled: the `MAX_LINKS` busiest
    links of the first such series."""
    sampled = [one for one in series if len(one.tables.links)]
    if not sampled:
        return []
    sent = _sent_bytes(sampled[0])
    ports = sorted(sent, key=lambda port: (-sent[port], port))[:MAX_LINKS]
    loads = [_link_load(one, ports) for one in sampled]
    return [load for load in loads if load.gbps]


@figure_style
def links_figure(loads: Sequence[LinkLoad]) -> str:
    """Draw a heat map of the links over time, one panel per series: their utilisation, or Gb/s if the rate
    of a link is not known."""
    if not loads:
        return ""
    ports = sorted(loads[0].gbps, key=natural)
    binned = [(load.series, load.edges, load.gbps) for load in loads]
    figure, panels = new_figure(len(binned), 1, height=0.6 + 0.125 * len(ports), sharex=True)
    figure.subplots_adjust(right=_RIGHT_OF_LOADS)
    nominal = all(port in one.link_gbps for one, _, _ in binned for port in ports)
    peak = 1.0 if nominal else max(float(rates[p].sum(axis=0).max()) for _, _, rates in binned for p in rates)
    for axes, (one, edges, rates) in zip(panels, binned, strict=True):
        image = np.array(
            [
                rates[port].sum(axis=0) / (one.link_gbps[port] if nominal else 1.0)
                if port in rates
                else np.zeros(TIME_BINS)
                for port in ports
            ]
        )
        draw_load(axes, image, peak, (0, edges[-1], len(ports) - 0.5, -0.5))
        axes.grid(False)
        name_places(axes.yaxis, range(len(ports)), ports, size=6)
        axes.set_title(one.label)
    _draw_scale(panels[0], peak, "utilisation" if nominal else "Gb/s")
    panels[-1].set_xlabel("time (s)")
    return svg(figure, "Utilisation of links over time")


@figure_style
def busiest_links_figure(loads: Sequence[LinkLoad]) -> str:
    """Draw the rates of the links that carried most, stacked by level: a panel per link and series."""
    if not loads:
        return ""
    binned = [(load.series, load.edges, load.gbps) for load in loads]
    ports = _busiest(loads[0].gbps)[:BUSIEST]
    figure, panels = new_figure(len(ports) * len(binned), 1, height=1.25, sharex=True)
    shown: set[Level] = set()
    cells = [(port, *run) for port in ports for run in binned]
    for axes, (port, one, edges, rates) in zip(panels, cells, strict=True):
        by_level = rates.get(port, np.zeros((len(Level), TIME_BINS)))
        shown |= {level for level in Level if by_level[level].any()}
        draw_stack(axes, edges, by_level)
        draw_faults(axes, [fault for fault in one.faults if port in fault.ports], edges[-1])
        axes.set(title=f"{port}, {one.label}", ylabel="Gb/s")
        if port in one.link_gbps:
            axes.set_ylim(0, 1.05 * max(one.link_gbps[port], float(by_level.sum(axis=0).max())))
    panels[-1].set(xlabel="time (s)", xlim=(0, max(edges[-1] for _, edges, _ in binned)))
    level_legend_above(figure, shown)
    return svg(figure, "Rate of the busiest links by level over time")


def draw_load(axes: Axes, image: FloatArray, peak: float, extent: tuple[float, float, float, float]) -> None:
    """Draw `image` with colours from 0 to `peak`. A browser enlarges its pixels; matplotlib need not."""
    axes.imshow(image, aspect="auto", interpolation="none", cmap=_LOAD, vmin=0, vmax=peak, extent=extent)


def _draw_scale(axes: Axes, peak: float, label: str) -> None:
    """Draw the scale of all panels on the right of `axes`, as one image: a colour bar has 256 areas."""
    scale = axes.inset_axes((1.01, 0, 0.016, 1))
    steps = np.linspace(peak, 0, _LOAD.N)[:, None]
    draw_load(scale, steps, peak, (0, 1, 0, peak))
    scale.grid(False)
    scale.set_xticks([])
    scale.yaxis.tick_right()
    scale.yaxis.set_label_position("right")
    scale.set_ylabel(label)


def _sent_bytes(one: Series) -> dict[str, int]:
    """Bytes on the wire that each port has sent by the last sample."""
    totals: dict[str, int] = defaultdict(int)
    for part in one.tables.links.parts(COUNTER_COLUMNS):
        found = counters_in_table([part])
        most = np.zeros(len(found.names), dtype=np.int64)
        np.maximum.at(most, found.ports, found.sent_bytes.sum(axis=1))  # no counter ever falls
        for port, sent in zip(found.names, most.tolist(), strict=True):
            totals[port] = max(sent, totals[port])
    return totals


def _link_load(one: Series, ports: Sequence[str]) -> LinkLoad:
    edges = np.linspace(0.0, max(one.run["duration_s"], 1e-9), TIME_BINS + 1)
    gbps = {}
    found = counters_in_table(one.tables.links.parts(COUNTER_COLUMNS, port=ports))
    for port, rate in link_rates(found, one.bytes_scale).items():
        seconds = rate.time_ns / NS_PER_S
        sent = np.vstack((np.zeros(len(Level)), np.cumsum(rate.bps.T * np.diff(seconds), axis=1).T))
        at_edges = np.array([np.interp(edges, seconds, sent[:, level]) for level in Level])
        gbps[port] = np.diff(at_edges, axis=1) / np.diff(edges) / 1e9
    return LinkLoad(one, edges, gbps)


def _busiest(rates: dict[str, FloatArray]) -> list[str]:
    return sorted(rates, key=lambda port: (-float(rates[port].sum()), port))

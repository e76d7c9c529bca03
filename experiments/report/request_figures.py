"""The timeline of one request: what its ranks did, its flows at their levels, and the links these crossed.

All rows are in one panel, because each panel costs as much time as all bars together.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from controller.flow import Decision, Level
from controller.units import NS_PER_MS, NS_PER_S
from experiments.explain.request_life import RequestLife
from experiments.report.chart import (
    LEVEL_COLOURS,
    PART_COLOURS,
    TIME_BINS,
    draw_spells,
    figure_style,
    new_figure,
    svg,
)
from experiments.report.link_figures import FULL_LOAD, draw_load
from experiments.report.markup import Markup, keyed
from experiments.report.scales import name_places
from experiments.results.faults import FaultEntry
from experiments.results.levels import level_periods
from experiments.results.limit_words import TTFT_PARTS
from experiments.results.link_rates import LinkRate
from experiments.results.natural_order import natural
from experiments.results.readable_numbers import duration
from experiments.results.requests import batches_of
from experiments.results.statistics import FloatArray
from testbed.record import FlowRow, RequestRow, SpanRow
from workers.spans import SpanKind

MOST_RANKS: Final = 4
MOST_FLOWS: Final = 240
MOST_LINKS: Final = 8

_KINDS: Final = {
    SpanKind.S1_WAIT: "s1_wait_s",
    SpanKind.COMPUTE: "compute_s",
    SpanKind.COLLECTIVE: "collective_s",
}
# Heights in inches.
_ROW: Final = 0.2
_BAR: Final = 0.14
_FLOWS: Final = 1.7
_GAP: Final = 0.12
_BELOW: Final = 0.5

_APART: Final = 0.22
"""The least distance between the numbers of two layers."""
_LETTER: Final = 0.06
"""The width of a letter."""
_MOST_NAMED: Final = 3
"""Most batches of a request that are named."""
_ON_BARS: Final = "#1c2128"
_MOST_SLO: Final = 1.25
"""An SLO is drawn up to this multiple of the TTFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What a timeline is drawn from: a life, the decisions on its flows, the rates of links, their nominal
    rates in model Gb/s, and the faults that the request met."""

    life: RequestLife
    decisions: Mapping[str, Sequence[Decision]]
    rates: Mapping[str, LinkRate]
    link_gbps: Mapping[str, float]
    faults: Sequence[FaultEntry] = ()

    @property
    def ranks(self) -> list[int]:
        return _slowest_ranks(self.life.spans)

    @property
    def links(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        return _busiest(self.life, self.rates, self.link_gbps)

    @property
    def height(self) -> float:
        """The height of the figure in inches."""
        return (2 + len(self.ranks) + len(self.links)) * _ROW + _FLOWS + 4 * _GAP + _BELOW


Bar = tuple[float, float, float]
"""From, to (milliseconds since the arrival), and the place on the y axis."""


class _Panel:
    """Rows from the top down. The y axis is in inches, and its ticks are the names of the rows."""

    def __init__(self) -> None:
        self.bottom = 0.0
        self.names: list[tuple[float, str]] = []

    def row(self, name: str, height: float = _ROW) -> float:
        """Add a row and return its middle."""
        middle = self.bottom + height / 2
        self.bottom += height
        self.names.append((middle, name))
        return middle

    def gap(self) -> None:
        self.bottom += _GAP


@figure_style
def timeline_figure(timeline: Timeline) -> str:
    """Draw the life of a request from its arrival to its first token; empty if it has none."""
    if timeline.life.request.first_token_ns is None:
        return ""
    figure, (axes,) = new_figure(1, 1, height=timeline.height)
    draw_timeline(axes, timeline)
    return svg(figure, f"Timeline of request {timeline.life.request.request}")


def draw_timeline(axes: Axes, timeline: Timeline) -> None:
    """Draw the life of a request that has a first token."""
    row = timeline.life.request
    assert row.first_token_ns is not None
    panel = _Panel()
    end = 1.01 * max(_ms(row, row.first_token_ns), _slo_shown(row))
    figure = axes.get_figure(root=True)
    assert figure is not None
    inch = end / figure.get_figwidth()
    _draw_phases(axes, panel, row, end=end, letter=_LETTER * inch)
    _draw_ranks(axes, panel, timeline, apart=_APART * inch)
    _draw_flows(axes, panel, timeline)
    _draw_links(axes, panel, timeline.links)
    _shade_faults(axes, row, timeline.faults, end)
    name_places(axes.yaxis, [y for y, _ in panel.names], [name for _, name in panel.names], size=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="ms since the arrival", xlim=(0, end), ylim=(panel.bottom + _GAP, -_GAP / 2))


def _shade_faults(axes: Axes, row: RequestRow, faults: Sequence[FaultEntry], end: float) -> None:
    spells = []
    for fault in faults:
        to = end if fault.to_s is None else min(end, _ms(row, fault.to_s * NS_PER_S))
        spells.append((max(0.0, _ms(row, fault.from_s * NS_PER_S)), to))
    draw_spells(axes, spells)


def timeline_legend(timeline: Timeline) -> Markup:
    """Return the colours of the figure with their names."""
    said = ["".join(f"<span>{keyed(*key)}</span>" for key in row) for row in timeline_keys(timeline)]
    return Markup(f"<p class=legend>{'<br>'.join(said)}</p>")


def timeline_keys(timeline: Timeline) -> list[list[tuple[str, str]]]:
    """Return the colours of the figure and their names: of what ranks did, and of flows and links."""
    parts = [(PART_COLOURS[key], name) for key, name in TTFT_PARTS.items() if key != "other_s"]
    levels = {
        period.level
        for flow in _lines(timeline.life)
        for period in level_periods(flow, timeline.decisions.get(flow.id, ()))
    }
    of_flows = [(LEVEL_COLOURS[level], level.name) for level in sorted(levels)]
    return [parts, [*of_flows, (FULL_LOAD, "a full link")]]


def left_out(life: RequestLife) -> str:
    """Say what the figure does not show; empty if it shows all."""
    said = []
    ranks = len({span.rank for span in life.spans if span.kind in _KINDS})
    if ranks > MOST_RANKS:
        said.append(f"the {MOST_RANKS} slowest of {ranks} ranks")
    flows = len(life.flows) + len({share.coflow for share in life.shares})
    if flows > MOST_FLOWS:
        said.append(f"the slowest {MOST_FLOWS} of {flows:,} flows and collectives")
    links = len({port for flow in (*life.flows, *life.shares) for port in flow.path})
    if links > MOST_LINKS:
        said.append(f"the busiest {MOST_LINKS} of {links} links")
    return f" Only {', '.join(said)} are shown." if said else ""


def looks(rates: Mapping[str, LinkRate]) -> str:
    """Say over how long the rates of links are means; empty without rates."""
    if not rates:
        return ""
    most = max(rates.values(), key=lambda rate: len(rate.time_ns))
    step = float(np.median(np.diff(most.time_ns)))
    return f" The rates of links are means over {duration(step / NS_PER_S)}."


def _ms(row: RequestRow, time_ns: float) -> float:
    return (time_ns - row.arrival_ns) / NS_PER_MS


def _slo_shown(row: RequestRow) -> float:
    """The SLO in ms, or 0 if it is so far beyond the first token that the rest would be small beside it."""
    return row.slo_ns / NS_PER_MS if row.slo_ns <= _MOST_SLO * (row.ttft_ns or 0) else 0.0


def _draw_phases(axes: Axes, panel: _Panel, row: RequestRow, *, end: float, letter: float) -> None:
    """Draw the phases, with the batches of the prefill. A letter is about `letter` ms wide."""
    assert row.start_ns is not None
    assert row.prefill_end_ns is not None
    assert row.first_token_ns is not None
    y = panel.row("request")
    arrived = max(row.prefill_end_ns, row.p2d_end_ns or row.prefill_end_ns)
    marks = [row.arrival_ns, row.start_ns, row.prefill_end_ns, arrived, row.first_token_ns]
    colours = [PART_COLOURS[key] for key in ("queue_s", "other_s", "p2d_tail_s", "decode_s")]
    for begin, until, colour in zip(marks[:-1], marks[1:], colours, strict=True):
        _draw_bars(axes, [(_ms(row, begin), _ms(row, until), y)], colour)
    batches = batches_of(row)
    named = f"{batches[0]} to {batches[-1]}" if len(batches) > _MOST_NAMED else ", ".join(batches)
    text = f"prefill: {named}"
    half = letter * len(text) / 2
    middle = (_ms(row, row.start_ns) + _ms(row, row.prefill_end_ns)) / 2
    place = min(max(middle, half), end - half)
    axes.text(place, y, text, ha="center", va="center", fontsize=6.5, color=_ON_BARS)
    slo = _slo_shown(row)
    if slo:
        ink = mpl.rcParams["text.color"]
        axes.plot([slo, slo], [y - _ROW / 2, y + _ROW / 2], linewidth=1.4, color=ink)
        axes.text(slo, y, " SLO", va="center", fontsize=6.5)
    panel.gap()


def _draw_ranks(axes: Axes, panel: _Panel, timeline: Timeline, *, apart: float) -> None:
    """Draw a row per rank, below the numbers of the layers, of which two are at least `apart` ms apart."""
    row, ranks = timeline.life.request, timeline.ranks
    if not ranks:
        return
    top = panel.row("layer")
    place = {rank: panel.row(f"rank {rank}") for rank in ranks}
    bars: dict[SpanKind, list[Bar]] = defaultdict(list)
    begun: dict[int, int] = {}
    for span in timeline.life.spans:
        kind = SpanKind(span.kind)
        if kind in _KINDS and span.rank in place:
            bars[kind].append((_ms(row, span.start_ns), _ms(row, span.end_ns), place[span.rank]))
            if span.layer is not None and span.rank == ranks[0]:
                begun[span.layer] = min(span.start_ns, begun.get(span.layer, span.start_ns))
    for kind, key in _KINDS.items():
        _draw_bars(axes, bars[kind], PART_COLOURS[key])
    free = -np.inf
    for layer, begin in sorted(begun.items()):
        if _ms(row, begin) >= free:
            free = _ms(row, begin) + apart
            axes.text(_ms(row, begin), top, str(layer), va="center", fontsize=6)
    panel.gap()


def _slowest_ranks(spans: Iterable[SpanRow]) -> list[int]:
    """The ranks that worked on the request, at most `MOST_RANKS`: first those that computed and waited for S1
    longest, because the others wait for them in collectives."""
    held: dict[int, int] = defaultdict(int)
    for span in spans:
        if span.kind in _KINDS:
            held[span.rank] += 0 if span.kind == SpanKind.COLLECTIVE else span.end_ns - span.start_ns
    return sorted(held, key=lambda rank: (-held[rank], rank))[:MOST_RANKS]


def _draw_flows(axes: Axes, panel: _Panel, timeline: Timeline) -> None:
    """Draw a line per flow, and one per collective for its last share: grey until its permit, then in the
    colour of its level."""
    life = timeline.life
    lines = _lines(life)
    if not lines:
        return
    height = min(_BAR, _FLOWS / len(lines))
    waits: list[Bar] = []
    bars: dict[Level, list[Bar]] = defaultdict(list)
    for stage in sorted({flow.stage.value for flow in lines}):
        of_stage = [flow for flow in lines if flow.stage.value == stage]
        top = panel.bottom
        panel.row(stage, height * len(of_stage))
        for i, flow in enumerate(of_stage):
            y = top + height * (i + 0.5)
            waits.append((_ms(life.request, flow.submit_ns), _ms(life.request, flow.permit_ns), y))
            for period in level_periods(flow, timeline.decisions.get(flow.id, ())):
                ends = _ms(life.request, period.start_ns), _ms(life.request, period.end_ns)
                bars[period.level].append((*ends, y))
        panel.gap()
    _draw_bars(axes, waits, PART_COLOURS["other_s"], height=height / 2)
    for level, found in sorted(bars.items()):
        _draw_bars(axes, found, LEVEL_COLOURS[level], height=height)


def _lines(life: RequestLife) -> list[FlowRow]:
    """The flows to draw by submit: of a collective, the share that ended last. If there are too many, those
    that took longest."""
    last: dict[str, FlowRow] = {}
    for share in life.shares:
        known = last.get(share.coflow or share.id)
        if known is None or share.finish_ns > known.finish_ns:
            last[share.coflow or share.id] = share
    flows = [*life.flows, *last.values()]
    flows = sorted(flows, key=lambda flow: (flow.submit_ns - flow.finish_ns, natural(flow.id)))[:MOST_FLOWS]
    return sorted(flows, key=lambda flow: (flow.submit_ns, natural(flow.id)))


def _busiest(
    life: RequestLife, rates: Mapping[str, LinkRate], rate_of: Mapping[str, float]
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Edges of time bins in ms, and the utilisation in each, of the links that the flows crossed: the
    busiest `MOST_LINKS` from arrival to first token."""
    row = life.request
    assert row.first_token_ns is not None
    edges = np.linspace(row.arrival_ns, row.first_token_ns, TIME_BINS + 1)
    found = {}
    for port in sorted({port for flow in (*life.flows, *life.shares) for port in flow.path}):
        rate = rates.get(port)
        if rate is None or not rate_of.get(port):
            continue
        bits = np.concatenate(([0.0], np.cumsum(rate.bps.sum(axis=1) * np.diff(rate.time_ns))))
        used = np.diff(np.interp(edges, rate.time_ns, bits)) / np.diff(edges) / (rate_of[port] * 1e9)
        found[port] = ((edges - row.arrival_ns) / NS_PER_MS, used)
    kept = sorted(found, key=lambda port: (-float(found[port][1].sum()), port))[:MOST_LINKS]
    return {port: found[port] for port in kept}


def _draw_links(axes: Axes, panel: _Panel, links: Mapping[str, tuple[FloatArray, FloatArray]]) -> None:
    if not links:
        return
    top = panel.bottom
    for port in links:
        panel.row(port)
    edges = next(iter(links.values()))[0]
    image = np.array([used for _, used in links.values()])
    draw_load(axes, image, 1.0, (edges[0], edges[-1], panel.bottom, top))


def _draw_bars(axes: Axes, bars: Sequence[Bar], colour: str, *, height: float = _BAR) -> None:
    """Draw bars of one colour as one path: an element for each would make a page many times as large."""
    bars = [bar for bar in bars if bar[1] > bar[0]]
    if not bars:
        return
    begin, end, middle = np.array(bars).T
    low, high = middle - height / 2, middle + height / 2
    corners = [(begin, low), (end, low), (end, high), (begin, high), (begin, low)]
    places = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1).reshape(-1, 2)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    path = Path(places, np.tile(np.array(codes, dtype=Path.code_type), len(bars)))
    axes.add_artist(PathPatch(path, facecolor=colour, linewidth=0))

"""Figures at the width of a column, readable in grey: colours, markers and line styles differ."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import AutoLocator, MaxNLocator

from experiments.atomic_file import replacing
from experiments.figures.curves import MEASURES, POLICY, Curve
from experiments.figures.formats import Width
from experiments.report.chart import COLOURS, draw_cdf
from experiments.report.request_figures import Timeline, draw_timeline, timeline_keys
from experiments.report.stage_figures import draw_parts

_INCHES: Final = {Width.COLUMN: 3.33, Width.PAGE: 7.0}
"""As of ACM and USENIX."""

_HEIGHT: Final = 2.1
_PART_ROW: Final = 0.22
_ASIDE: Final = 0.008
"""How far beside each other intervals at one x stand, as a share of the x axis."""
_MOST_TICKS: Final = 8
_MARKERS: Final = "osD^vPX*"
_DASHES: Final[tuple[Any, ...]] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

_STYLE: Final[dict[Any, Any]] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8,
    "grid.color": "#d0d0d0",
    "grid.linewidth": 0.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "pdf.fonttype": 42,  # TrueType: some conferences refuse Type 3
    "svg.fonttype": "none",
    "svg.hashsalt": "mfs-testbed",
    "text.parse_math": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}
paper_style: Final = mpl.rc_context(_STYLE)


@paper_style
def draw_sweep(
    curves: Sequence[Curve], out: Path, *, x: str, y: str, intervals: bool, width: Width = Width.COLUMN
) -> Figure:
    """Draw `curves` into `out`, whose suffix is the format, and return the figure.

    Raises `OSError` if the file cannot be written.
    """
    figure, axes = panel(width)
    label, factor = MEASURES[y]
    numeric = all(isinstance(at, int | float) and not isinstance(at, bool) for one in curves for at in one.x)
    places = list(dict.fromkeys(at for one in curves for at in one.x))
    ticks = [float(at) if numeric else float(i) for i, at in enumerate(places)]
    # Intervals at one place would hide each other; a policy that is itself the place has none beside it.
    aside = _ASIDE * (max(ticks) - min(ticks)) if intervals and x != POLICY else 0.0
    for i, one in enumerate(curves):
        beside = (i - (len(curves) - 1) / 2) * aside
        xs = [ticks[places.index(at)] + beside for at in one.x]
        means = [found.mean * factor for found in one.y]
        low = [factor * (found.mean - (found.mean if found.low is None else found.low)) for found in one.y]
        high = [factor * ((found.mean if found.high is None else found.high) - found.mean) for found in one.y]
        axes.errorbar(
            xs,
            means,
            yerr=[low, high] if intervals and any((*low, *high)) else None,
            label=one.label,
            elinewidth=0.8,
            capsize=1.8,
            **look(i),
        )
    if x == POLICY:  # the ticks name the policies, and a legend would name them again
        axes.set_xticks(ticks, places, rotation=20, ha="right")
        axes.margins(x=0.1)
    elif not numeric or len(places) <= _MOST_TICKS:
        axes.set_xticks(ticks, [str(at) for at in places])
    axes.set_xlabel(x)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0, top=102 if factor == 100.0 else None)
    return _written(figure, out) if x == POLICY else save(figure, axes, out)


@paper_style
def draw_ttft(
    runs: Sequence[tuple[str, Sequence[float], int]], out: Path, *, width: Width = Width.COLUMN
) -> Figure:
    """Draw the share of requests with a TTFT of at most x.

    `runs` are labels, TTFTs in seconds, and the number of requests.
    """
    figure, axes = panel(width)
    for i, (label, seconds, total) in enumerate(runs):
        style = look(i)
        draw_cdf(
            axes,
            [1e3 * one for one in seconds],
            label=label,
            colour=style["color"],
            total=total,
            linestyle=style["linestyle"],
            linewidth=mpl.rcParams["lines.linewidth"],
        )
    axes.set_xlabel("TTFT (ms)")
    axes.set_ylabel("share of requests")
    return save(figure, axes, out)


@paper_style
def draw_ttft_parts(
    runs: Sequence[tuple[str, Mapping[str, float]]], out: Path, *, width: Width = Width.COLUMN
) -> Figure:
    """Draw the mean TTFT of runs by its parts, as the report does. `runs` are labels and parts in seconds."""
    figure, axes = panel(width, _PART_ROW * len(runs) + 1.0)
    draw_parts(axes, runs)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return save(figure, axes, out, columns=4 if width is Width.PAGE else 3)


@paper_style
def draw_request(timeline: Timeline, out: Path, *, width: Width = Width.PAGE) -> Figure:
    """Draw the timeline of a request that has a first token, as the report does."""
    figure, axes = panel(width, timeline.height + 0.5)
    axes.yaxis.set_major_locator(AutoLocator())
    draw_timeline(axes, timeline)
    keys = [key for row in timeline_keys(timeline) for key in row]
    patches = [Patch(color=colour, label=name) for colour, name in keys]
    columns = 6 if width is Width.PAGE else 3
    figure.legend(handles=patches, loc="outside upper left", ncols=columns, columnspacing=1.2)
    return _written(figure, out)


def look(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": _DASHES[i % len(_DASHES)],
    }


def panel(width: Width, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_INCHES[width], height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def save(figure: Figure, axes: Axes, out: Path, *, columns: int | None = None) -> Figure:
    fitting = 1 if len(axes.get_legend_handles_labels()[0]) > 4 else 2
    figure.legend(loc="outside upper left", ncols=columns or fitting, handlelength=2.6, columnspacing=1.2)
    return _written(figure, out)


def _written(figure: Figure, out: Path) -> Figure:
    kind = out.suffix.removeprefix(".")
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    # In memory first: on a full disk, the PDF writer hides the `OSError` behind an error of its own.
    drawn = BytesIO()
    figure.savefig(drawn, format=kind, dpi=300, metadata=metadata)
    with replacing(out) as temporary:
        temporary.write_bytes(drawn.getvalue())
    return figure

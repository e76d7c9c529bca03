"""Style and helpers of all figures: matplotlib drawings as inline SVG that uses the page's colours."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch, StepPatch
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from controller.flow import Level, Stage
from experiments.report.layout import lay_out, legend_columns
from experiments.report.scales import draw_scales
from experiments.results.distributions import Curve, curve
from experiments.results.statistics import FloatArray

# Matplotlib writes colours as literals. `svg` replaces these two by variables of the style sheet, so
# that a figure is readable on a light and on a dark page.
_INK: Final = "#123457"
_GRID: Final = "#765432"
_PAGE_COLOURS: Final = {_INK: "var(--ink)", _GRID: "var(--rule)"}

# Distinct under the common colour-vision deficiencies (after Okabe and Ito, 2008), and muted enough to
# be readable on white and on near-black.
COLOURS: Final = ("#8a8f98", "#2f7fc1", "#d9822b", "#2e9e77", "#b8609e", "#b59a2a", "#c8503c", "#6a6fc0")
"""Colours of the lines of a figure, in order."""

LEVEL_COLOURS: Final = {
    Level.CONTROL: "#777777",
    Level.P1: "#c0392b",
    Level.P2: "#e0782f",
    Level.P3: "#d9b13b",
    Level.P4: "#5fa05a",
    Level.P5: "#3a8fb5",
    Level.P6: "#5b62b3",
    Level.SCAVENGER: "#9a9a9a",
}

PART_COLOURS: Final = {
    "queue_s": "#8a8f98",
    "s1_wait_s": "#d9822b",
    "compute_s": "#2e9e77",
    "collective_s": "#2f7fc1",
    "other_s": "#c9ccd1",
    "p2d_tail_s": "#b8609e",
    "decode_s": "#6a6fc0",
}
"""Colours of the parts of a TTFT, by their names in `experiments.results.limits.TtftParts`."""

SPELL_COLOUR: Final = "#c8503c"
"""The colour of times in which a fault was in force."""

_IMAGE_DPI: Final = 150
"""The resolution of heat maps and of points that are not drawn one by one."""

_MOST_DECADES: Final = 2.7
"""Powers of ten that an axis spans at most if it has labels between them."""

TIME_BINS: Final = 240
"""Number of time bins of a figure over time."""

STAGE_TITLES: Final = {
    Stage.KV_REUSE: "S1 reused KV",
    Stage.COLLECTIVE: "S2 collectives",
    Stage.P2D: "S3 P2D",
    Stage.BACKGROUND: "background",
}

_STYLE: Final[dict[Any, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=[_INK]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titlecolor": _INK,
    "font.family": "sans-serif",
    "figure.subplot.right": 0.985,
    "font.size": 8,
    "grid.color": _GRID,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.color": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "mfs-testbed",
    "text.color": _INK,
    "text.parse_math": False,  # a policy or flow may have a "$" in its name
    "xtick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.color": _GRID,
    "ytick.labelcolor": _INK,
}
figure_style: Final = mpl.rc_context(_STYLE)
"""Decorator for a function that draws and saves a figure: matplotlib reads its style at both times."""


def new_figure(rows: int, columns: int, *, height: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as the page, `height` inches per row, and its axes, row by row."""
    figure = Figure(figsize=(9.0, height * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex)
    return figure, list(axes.flat)


def say_empty(axes: Axes, text: str) -> None:
    """Write `text` into a panel that has nothing to draw, in place of a scale that means nothing."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
    axes.set(xticks=[], yticks=[])


def svg(figure: Figure, label: str) -> str:
    """Return the figure as an `<svg>` element, with `label` as its text for screen readers."""
    buffer = io.StringIO()
    canvas = FigureCanvasSVG(figure)
    panels = [*figure.axes, *(inset for axes in figure.axes for inset in axes.child_axes)]
    for patch in (figure.patch, *(axes.patch for axes in panels)):
        patch.set(facecolor="none", edgecolor="none")
    lay_out(figure)
    draw_scales(figure)
    figure.dpi = _IMAGE_DPI
    # Without a date, so that the same run gives the same report.
    canvas.print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    for literal, variable in _PAGE_COLOURS.items():
        text = text.replace(literal, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def draw_cdf(
    axes: Axes,
    values: Sequence[float],
    *,
    label: str,
    colour: str,
    total: int | None = None,
    **line: Any,
) -> None:
    """Draw the share of `total` (default: the number of values) that is at most x.

    With a larger `total` the curve ends below 1. `line` are properties of the line, for matplotlib.
    """
    draw_curve(axes, curve(values), label=label, colour=colour, total=total, **line)


def draw_curve(
    axes: Axes,
    found: Curve,
    *,
    label: str,
    colour: str,
    unit: float = 1.0,
    total: int | None = None,
    **line: Any,
) -> None:
    """Draw a curve as `draw_cdf` does, with x in multiples of `unit`."""
    if not found.values:
        return
    ordered = np.asarray(found.values) / unit
    x = np.concatenate((ordered[:1], ordered))
    y = np.concatenate(([0.0], found.shares(total)))
    look: dict[str, Any] = {"color": colour, "linewidth": 1.6, **line}
    axes.step(x, y, where="post", label=label, **look)
    axes.set_ylim(0, 1.02)


def draw_mark(axes: Axes, x: float, text: str) -> None:
    """Draw a labelled vertical line, such as an SLO or a deadline."""
    axes.axvline(x, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        text,
        (x, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=_INK,
    )


def draw_spells(axes: Axes, spells: Iterable[tuple[float, float]]) -> None:
    """Shade the times from x to x in which something was in force, such as a fault."""
    for begin, end in spells:
        axes.axvspan(begin, end, color=SPELL_COLOUR, alpha=0.13, linewidth=0, zorder=0)


def draw_stack(axes: Axes, edges: FloatArray, by_level: FloatArray) -> None:
    """Draw stacked areas over bins, the most urgent level at the bottom; `by_level` is (8, bins)."""
    base = np.zeros(len(edges) - 1)
    for level in Level:
        if by_level[level].any():
            top = base + by_level[level]
            area = StepPatch(
                top,
                edges,
                baseline=base,  # type: ignore[arg-type]
                fill=True,
                color=LEVEL_COLOURS[level],
                lw=0,
            )
            area.sticky_edges.y.append(base.min())
            # As `Axes.stairs` does, but that looks at every corner as a curve to find the limits.
            axes.add_artist(area)
            axes.update_datalim([(edges[0], base.min()), (edges[-1], top.max())])
            base = top
    axes.autoscale_view()
    axes.set_ylim(bottom=0)


def log_axis(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers at each power of ten; between them at 2 and 5 times, if
    what has been drawn leaves space for their labels."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    between = (2.0, 5.0) if high / low < 10**_MOST_DECADES else ()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, *between)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def legend_above(figure: Figure, axes: Axes) -> None:
    """Draw one legend for all panels, in a row above them, from the labels in `axes`."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="upper left", ncols=_columns(figure, labels))


def level_legend_above(figure: Figure, levels: Iterable[Level]) -> None:
    """Draw a legend of `levels` above all panels."""
    shown = sorted(levels)
    if shown:
        patches = [Patch(color=LEVEL_COLOURS[level]) for level in shown]
        names = [level.name for level in shown]
        figure.legend(patches, names, loc="upper left", ncols=_columns(figure, names))


def _columns(figure: Figure, labels: Sequence[str]) -> int:
    return legend_columns(labels, 72 * figure.get_size_inches()[0])

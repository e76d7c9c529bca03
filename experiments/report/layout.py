"""Where the panels of a figure go, and the labels around them.

Matplotlib's layout engines draw all ticks of all panels to measure them, more than once, and took as long as
the drawing itself. Here only the texts beside the panels are measured.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Final

from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation

_MOST_COLUMNS: Final = 8
"""Most entries in a row of a legend above the panels."""

# All lengths are points, of which an inch has 72. Heights of text are multiples of its size.
_INCH: Final = 72.0
_PAD: Final = 3.0
_LEAST: Final = 9.0
"""Least width and height of a panel, where labels leave too little space."""
_TICK_PAD: Final = 3.5
"""Matplotlib's space between a tick and its label."""
_LINE: Final = 1.2
_LEGEND_ROW: Final = 1.7
_LEGEND_PAD: Final = 1.0
_LEGEND_BESIDE: Final = 4.8
"""The line of an entry, and matplotlib's spaces around it and after its text."""


def lay_out(figure: Figure) -> None:
    """Place the panels of `figure` in their grid, below its legends, and the labels and titles beside them.

    Panels of a row are equally high, and those of a column equally wide. Beside each panel,
    `figure.subplotpars.right` leaves space on its right.

    It is done twice: the ticks of a panel, and with them the width of their labels, depend on its size.
    """
    for _ in range(2):
        _place_panels(figure)


def _place_panels(figure: Figure) -> None:
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None]
    width, height = (_INCH * inches for inches in figure.get_size_inches())
    left: dict[int, float] = defaultdict(float)
    top: dict[int, float] = defaultdict(float)
    bottom: dict[int, float] = defaultdict(float)
    for axes in panels:
        row, column = _place(axes)
        left[column] = max(left[column], _space_beside(axes.yaxis, figure))
        bottom[row] = max(bottom[row], _space_beside(axes.xaxis, figure))
        top[row] = max(top[row], _space_above(axes))
    right = (1 - figure.subplotpars.right) * width
    legends = sum(
        _height_of_legend([text.get_text() for text in legend.get_texts()], width)
        for legend in figure.legends
    )
    wide = max(_LEAST, (width - sum(left.values())) / len(left) - right)
    high = max(_LEAST, (height - legends - sum(top.values()) - sum(bottom.values())) / len(top))
    for axes in panels:
        row, column = _place(axes)
        x = sum(left[i] for i in range(column + 1)) + column * (wide + right)
        below = legends + sum(top[i] for i in range(row + 1)) + sum(bottom[i] for i in range(row))
        y = height - below - (row + 1) * high
        axes.set_position((x / width, y / height, wide / width, high / height))


def _place(axes: Axes) -> tuple[int, int]:
    """The row and the column of a panel."""
    spec = axes.get_subplotspec()
    assert spec is not None
    return spec.rowspan.start, spec.colspan.start


def _space_beside(axis: Axis, figure: Figure) -> float:
    """Return the space that the tick labels and the label of an axis take, and put the label at its place."""
    space = _space_of_ticks(axis)
    label = axis.label
    if not (label.get_text() and label.get_visible()):
        return space + _PAD
    space += axis.labelpad
    away = space / _INCH
    if isinstance(axis, XAxis):
        shift = ScaledTranslation(0, -away, figure.dpi_scale_trans)
        axis.set_label_coords(0.5, 0, axis.axes.transAxes + shift)
    else:
        shift = ScaledTranslation(-away, 0, figure.dpi_scale_trans)
        axis.set_label_coords(0, 0.5, axis.axes.transAxes + shift)
    return space + _line(label) + _PAD


def _space_of_ticks(axis: Axis) -> float:
    """Return the height of the tick labels below a panel, or the width of those on its left."""
    tick = axis.get_major_ticks(1)[0]
    space = tick.get_tick_padding()
    if not tick.label1.get_visible():
        return space
    if isinstance(axis, XAxis):
        return space + _TICK_PAD + _line(tick.label1)
    font = tick.label1.get_fontproperties()
    widest = max((_width(text, font) for text in _tick_labels(axis)), default=0.0)
    return space + _TICK_PAD + widest


def _tick_labels(axis: Axis) -> list[str]:
    """The labels of the ticks that are in view."""
    places = axis.get_majorticklocs().tolist()
    low, high = sorted(axis.get_view_interval())
    texts = axis.get_major_formatter().format_ticks(places)
    return [text for place, text in zip(places, texts, strict=True) if low <= place <= high]


def _space_above(axes: Axes) -> float:
    """Return the space that the title of a panel takes, above the factor of its tick labels if they have one,
    such as 1e6."""
    title = axes.get_title(loc="left")
    space = _PAD
    if axes.yaxis.get_major_formatter().get_offset():
        space += _line(axes.yaxis.get_offset_text())
    if not title:
        return space
    padded = space + _PAD
    return padded + _line(axes.set_title(title, loc="left", y=1.0, pad=padded))


def legend_columns(labels: Sequence[str], width: float) -> int:
    """Return how many entries of a legend fit beside each other into `width` points."""
    size = FontProperties().get_size_in_points()
    widest = size * (_LEGEND_BESIDE + max(map(_width_of_line, labels), default=0.0))
    return max(1, min(_MOST_COLUMNS, len(labels), int(width / widest)))


def _height_of_legend(labels: Sequence[str], width: float) -> float:
    size = FontProperties().get_size_in_points()
    rows = math.ceil(len(labels) / legend_columns(labels, width)) if labels else 0
    return size * (_LEGEND_PAD + _LEGEND_ROW * rows)


def _line(text: Text) -> float:
    return _LINE * text.get_fontproperties().get_size_in_points()


def _width(text: str, font: FontProperties) -> float:
    return font.get_size_in_points() * max(map(_width_of_line, text.split("\n")))


@cache
def _width_of_line(text: str) -> float:
    """The width of a line of text in the font of all figures, in multiples of its size."""
    font = FontProperties()
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width / font.get_size_in_points()

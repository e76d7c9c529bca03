"""Grids, ticks and tick labels that are drawn without those of matplotlib, against those of matplotlib."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from experiments.report.chart import figure_style, log_axis, new_figure, say_empty
from experiments.report.layout import lay_out
from experiments.report.scales import draw_scales, name_places


def pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).astype(int)


def plain(axes: Axes) -> None:
    axes.set(xlim=(0.0, 7.0), ylim=(-2.0, 30.0))


def logarithmic(axes: Axes) -> None:
    axes.plot([1.0, 800.0], [0, 1])
    log_axis(axes)


def named(axes: Axes) -> None:
    name_places(axes.yaxis, [0, 1, 2], ["first", "", "out of view"], size=6)
    axes.set(ylim=(1.5, -0.5))
    axes.tick_params(axis="y", length=0)


def with_a_factor(axes: Axes) -> None:
    axes.set_ylim(0, 3e9)


@pytest.mark.parametrize("draw", [plain, logarithmic, named, with_a_factor])
@figure_style
def test_a_panel_looks_as_matplotlib_draws_it(draw: Callable[[Axes], None]) -> None:
    drawn = []
    for ours in (True, False):
        figure, panels = new_figure(1, 2, height=2.0)
        for axes in panels:
            draw(axes)
            axes.grid(visible=False)
        lay_out(figure)
        if ours:
            draw_scales(figure)
            assert len(panels[0].get_xticks()) == 0  # matplotlib draws none
        drawn.append(pixels(figure))
    ours, theirs = drawn
    assert (theirs < 128).any()  # there is something to see
    assert np.abs(ours - theirs).max() <= 64  # the edges of marks and letters may lie a part of a pixel aside


@figure_style
def test_panels_that_share_an_axis_all_have_its_grid() -> None:
    figure, panels = new_figure(3, 1, height=1.0, sharex=True)
    panels[-1].set_xlim(0, 10)
    draw_scales(figure)
    assert [lines_of_grid(axes)[0] for axes in panels] == [[0, 2, 4, 6, 8, 10]] * 3
    assert ["10" in [text.get_text() for text in axes.texts] for axes in panels] == [False, False, True]


@figure_style
def test_an_empty_panel_gets_no_ticks() -> None:
    figure, (axes,) = new_figure(1, 1, height=2.0)
    say_empty(axes, "nothing")
    draw_scales(figure)
    assert [text.get_text() for text in axes.texts] == ["nothing"]
    assert not axes.lines


def lines_of_grid(axes: Axes) -> list[list[float]]:
    """The places of the lines of each grid of a panel, across and upright."""
    return [
        [float(segment[0][is_across]) for segment in lines.get_segments()]
        for is_across, lines in enumerate(axes.collections)
        if isinstance(lines, LineCollection)
    ]


def test_a_grid_has_a_line_at_each_tick_in_view() -> None:
    figure, panels = new_figure(1, 1, height=2.0)
    panels[0].set_xticks([0, 1, 2, 3, 4])
    panels[0].set_yticks([0, 0.5, 1])
    panels[0].set(xlim=(0.5, 3.5), ylim=(0, 1))
    panels[0].grid(visible=True)
    draw_scales(figure)
    assert lines_of_grid(panels[0]) == [[1, 2, 3], [0, 0.5, 1]]


def test_an_axis_without_a_grid_gets_none() -> None:
    figure, panels = new_figure(1, 1, height=2.0)
    panels[0].grid(visible=True)
    panels[0].grid(axis="y", visible=False)
    panels[0].set_xticks([0, 1])
    draw_scales(figure)
    assert lines_of_grid(panels[0]) == [[0, 1]]


def test_a_panel_above_another_has_its_grid_without_its_ticks() -> None:
    figure, (above, below) = new_figure(2, 1, height=2.0, sharex=True)
    for axes in (above, below):
        axes.grid(axis="x", visible=True)
    below.set_xlim(0, 10)
    draw_scales(figure)
    FigureCanvasAgg(figure).draw()
    assert lines_of_grid(above) == lines_of_grid(below) != []
    shown = [
        [tick.tick1line.get_visible() for tick in axes.xaxis.get_major_ticks(1)] for axes in (above, below)
    ]
    assert shown == [[False], [True]]

"""Where panels and the labels around them go, against what matplotlib measures when it draws them."""

from collections.abc import Sequence

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from experiments.report.chart import figure_style, legend_above, log_axis, new_figure
from experiments.report.layout import lay_out


@figure_style
def laid_out(tops: Sequence[float], names: Sequence[str]) -> tuple[Figure, list[Axes], list[Bbox]]:
    """A figure of two rows and two columns, its panels, and the box of each with all that is around it."""
    figure, panels = new_figure(2, 2, height=2.0)
    figure.dpi = 72
    for axes, top in zip(panels, tops, strict=True):
        axes.plot([1, 1000], [0, top], label=f"up to {top:g}")
        axes.set(title="a title", xlabel="time (s)", ylabel="how much")
    log_axis(panels[3])
    panels[2].set_yticks([0, tops[2]], names, fontsize=6)
    legend_above(figure, panels[0])
    lay_out(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in panels]
    return figure, panels, [box for box in boxes if box is not None]


TOPS = (1.0, 120_000.0, 0.001, 3e9)  # the last has its factor above the panel
NAMES = ("a very long name of a port", "short")


def test_panels_with_what_is_around_them_do_not_overlap() -> None:
    _, _, boxes = laid_out(TOPS, NAMES)
    assert len(boxes) == 4
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_panels_with_what_is_around_them_are_inside_the_figure_and_below_the_legend() -> None:
    figure, _, boxes = laid_out(TOPS, NAMES)
    legend = figure.legends[0].get_window_extent()
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= legend.y0


def test_panels_of_a_row_are_equally_high_and_those_of_a_column_equally_wide() -> None:
    _, panels, _ = laid_out(TOPS, NAMES)
    places = [axes.get_position() for axes in panels]
    for one, other in ((0, 1), (2, 3)):
        assert places[one].y0 == pytest.approx(places[other].y0)
    assert len({round(place.height, 9) for place in places}) == 1
    for one, other in ((0, 2), (1, 3)):
        assert places[one].x0 == pytest.approx(places[other].x0)
    assert len({round(place.width, 9) for place in places}) == 1


def test_long_tick_labels_make_their_column_narrower() -> None:
    _, short, _ = laid_out(TOPS, ("a", "b"))
    _, long, _ = laid_out(TOPS, NAMES)
    assert long[0].get_position().x0 > short[0].get_position().x0 + 0.03


def test_a_label_is_beyond_the_tick_labels() -> None:
    _, panels, _ = laid_out(TOPS, NAMES)
    for axes in panels:
        low, high = axes.get_ylim()
        inside = [tick.label1 for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        outer = min(text.get_window_extent().x0 for text in inside)
        assert outer - 8 < axes.yaxis.label.get_window_extent().x1 < outer
        lowest = min(tick.label1.get_window_extent().y0 for tick in axes.xaxis.get_major_ticks())
        assert lowest - 8 < axes.xaxis.label.get_window_extent().y1 < lowest


@figure_style
def test_a_legend_of_long_names_takes_the_rows_that_it_needs() -> None:
    figure, panels = new_figure(1, 1, height=3.0)
    figure.dpi = 72
    names = [f"mfs(levels={i}, layer_boundary=off, recheck_ms=2.5)" for i in range(8)]
    for name in names:
        panels[0].plot([0, 1], [0, 1], label=name)
    legend_above(figure, panels[0])
    lay_out(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.legends[0].get_window_extent(canvas.get_renderer())
    panel = panels[0].get_tightbbox(canvas.get_renderer())
    assert box.x1 <= figure.bbox.x1
    assert panel is not None
    assert panel.y1 <= box.y0


def test_a_logarithmic_axis_of_many_decades_has_labels_at_powers_of_ten_only() -> None:
    labels = []
    for most in (100, 10_000):
        _, (axes,) = new_figure(1, 1, height=2.0)
        axes.plot([1.0, most], [0, 1])
        log_axis(axes)
        axes.set_xlim(1, most)
        labels.append([at for at in axes.get_xticks() if 1 <= at <= most])
    assert labels == [[1, 2, 5, 10, 20, 50, 100], [1, 10, 100, 1_000, 10_000]]


@figure_style
def test_a_label_is_beside_the_ticks_that_a_panel_has_at_its_final_size() -> None:
    """The panel has ticks at 0.02 before its legend takes space, and then at 0.025, with wider labels."""
    figure, (axes,) = new_figure(1, 1, height=2.5)
    figure.dpi = 72
    axes.plot([50, 400], [0.103, 0.142], label="fair")
    axes.set(title="CCT mean", xlabel="nic_gbps", ylabel="ms", ylim=(0, 0.149))
    legend_above(figure, axes)
    lay_out(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = axes.yaxis.get_major_ticks()
    assert "0.025" in [tick.label1.get_text() for tick in ticks]
    label = axes.yaxis.label.get_window_extent()
    assert label.x1 <= min(tick.label1.get_window_extent().x0 for tick in ticks)

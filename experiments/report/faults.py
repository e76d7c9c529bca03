"""Faults in a report: shaded times in its figures, and lines on who met them."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from experiments.report.chart import draw_spells
from experiments.report.markup import Markup
from experiments.report.page import paragraphs
from experiments.report.series import Series
from experiments.results.faults import FaultEntry, fault_lines
from experiments.results.reading import RunDirectory


def draw_faults(axes: Axes, faults: Iterable[FaultEntry], end_s: float) -> None:
    """Shade the time of each fault, up to `end_s`, on an axis of seconds."""
    draw_spells(axes, {(one.from_s, end_s if one.to_s is None else min(one.to_s, end_s)) for one in faults})


def shaded_text(series: Sequence[Series]) -> str:
    """Say what the shades of a figure over time mean; empty without faults."""
    return " Shaded: a fault was in force." if any(one.faults for one in series) else ""


def fault_paragraphs(directories: Sequence[RunDirectory]) -> Markup:
    """Say of each fault when it was in force and who met it."""
    lines = [line for directory in directories for line in fault_lines(directory.summary)]
    return paragraphs([f"{line[0].upper()}{line[1:]}." for line in lines])

"""The figure of `mfs capacity`: SLO attainment by rate, and the rates at which it is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from experiments.figures.formats import Width
from experiments.figures.plot import look, panel, paper_style, save

_LOWEST: Final = 5.0
_APART: Final = 7.0
"""Where the intervals are drawn, in per cent: near the bottom, where curves seldom are, one above another."""


@paper_style
def draw_capacity(content: Mapping[str, Any], out: Path, *, width: Width = Width.COLUMN) -> None:
    """Draw the content of `capacity.json` into `out`, whose suffix is the format.

    Curves have the rates of the grid only. Below each capacity, its interval is near the bottom.
    """
    figure, axes = panel(width)
    kept = 100 * content["attain"]
    axes.axhline(kept, color="#707070", linewidth=0.6)
    for i, one in enumerate(content["capacities"]):
        points = [point for point in content["curve"] if point["policy"] == one["policy"] and point["grid"]]
        if not points:
            continue
        style = look(i)
        means = [100 * point["slo_attainment"] for point in points]
        axes.plot([point["rate_rps"] for point in points], means, label=one["policy"], **style)
        rate, low, high = one["rate_rps"], one["low"], one["high"]
        if rate is None:
            continue
        y = _LOWEST + _APART * i
        axes.plot([rate, rate], [y, kept], color=style["color"], linewidth=0.8, linestyle=":")
        ends = None if low is None else [[rate - low], [high - rate]]
        axes.errorbar([rate], [y], xerr=ends, elinewidth=1.0, capsize=2.0, **style)
    axes.set_xlabel("requests/s")
    axes.set_ylabel("SLO met (%)")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    save(figure, axes, out)

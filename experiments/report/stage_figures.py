"""Where the time to first token goes under each policy, by stage."""

from collections.abc import Sequence

from experiments.report.chart import PART_COLOURS, figure_style, legend_above, new_figure, svg
from experiments.report.markup import Markup, table
from experiments.report.series import Series
from experiments.results.limit_words import TTFT_PARTS
from experiments.results.readable_numbers import duration

_MS_PER_S = 1e3


@figure_style
def parts_figure(series: Sequence[Series]) -> str:
    """Draw the mean TTFT of each series as a bar of its parts; empty if no parts are known."""
    told = [(one, parts) for one in series if (parts := (one.run.get("limits") or {}).get("ttft"))]
    if not told:
        return ""
    figure, (axes,) = new_figure(1, 1, height=0.85 + 0.3 * len(told))
    begins = [0.0] * len(told)
    for key, name in TTFT_PARTS.items():
        widths = [_MS_PER_S * parts[key] for _, parts in told]
        if any(width > 0 for width in widths):
            colour = PART_COLOURS[key]
            axes.barh(range(len(told)), widths, left=begins, height=0.62, color=colour, label=name)
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    axes.set_yticks(range(len(told)), [one.label for one, _ in told])
    axes.set_ylim(len(told) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="mean TTFT (ms)", xlim=(0, 1.02 * max(begins)))
    legend_above(figure, axes)
    return svg(figure, "Parts of the mean time to first token per policy")


def stage_table(series: Sequence[Series]) -> Markup:
    """Table of the flows of each stage under each series: how many, and from submit to finish how long."""
    rows = [
        (
            one.named,
            stage,
            f"{one.run['flows_by_stage'][stage]:,}",
            *(duration(times[name]) for name in ("mean", "p50", "p99")),
        )
        for one in series
        for stage, times in one.run["stage_completion_s"].items()
        if one.run["flows_by_stage"][stage]
    ]
    return table(["policy", "stage", "flows", "mean", "p50", "p99"], rows, text_columns=2)

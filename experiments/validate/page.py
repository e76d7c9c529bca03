"""What `mfs validate` shows: lines for a terminal, and a page with a figure of every flow."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from matplotlib.ticker import NullLocator, StrMethodFormatter
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.flow import Stage
from experiments.report.chart import (
    COLOURS,
    STAGE_TITLES,
    draw_cdf,
    draw_mark,
    figure_style,
    legend_above,
    new_figure,
    svg,
)
from experiments.report.markup import Markup, html
from experiments.report.markup import table as html_table
from experiments.report.page import figure, page, section
from experiments.results.readable_numbers import NOTHING, duration, share
from experiments.validate.compare import FLOW_ERROR, Comparison, Matched, Pair
from experiments.validate.run import Flows, PolicyResult, Validation

MOST_POINTS: Final = 4000
"""Of a scatter plot; of more flows every n-th is drawn."""

_MOST_ERROR: Final = 1.0
_STAGE_COLOURS: Final = dict(zip(Stage, COLOURS[1:], strict=False))
_HEADINGS: Final = (
    *("policy", "run", "mean TTFT", "error", "TTFT p99", "error", "SLO met"),
    *("mean CCT", "error", "S1 error", "S3 error", "flows", "right"),
)
_NARROW: Final = {
    0: "policy",
    1: "run",
    2: "TTFT\nmean",
    3: "error",
    6: "SLO\nmet",
    7: "CCT\nmean",
    8: "error",
    9: "S1\nerror",
    10: "S3\nerror",
    12: "flows\nright",
}
"""What fits a terminal of 80: the numbers of columns, and their headings there."""


def error(value: float | None) -> str:
    """A relative error in per cent, with its sign."""
    return NOTHING if value is None else f"{100 * value:+.1f} %"


def rows_of(results: Sequence[PolicyResult]) -> Iterator[tuple[str, ...]]:
    """A line for each emulated run, and one for each run it was compared with.

    A simulation has `ideal` links, or `links` as the emulated fabric configures them, or all that the
    `machine` adds; a `replay` runs the emulated batches.
    """
    for result in results:
        first = result.free.ideal
        yield (
            result.policy,
            "emulated",
            duration(first.ttft_mean_s.emulated),
            "",
            duration(first.ttft_p99_s.emulated),
            "",
            share(first.slo_attainment.emulated),
            duration(first.cct_mean_s.emulated),
            *[""] * 5,
        )
        for name, one in _comparisons(result):
            yield ("", name, *_cells(one))


def _comparisons(result: PolicyResult) -> Iterator[tuple[str, Comparison]]:
    for suffix, simulations in (("", result.free), (", replay", result.replayed)):
        if simulations is not None:
            yield f"ideal{suffix}", simulations.ideal
            yield f"links{suffix}", simulations.links
            if simulations.overheads is not None:
                yield f"machine{suffix}", simulations.overheads
    if result.repeated is not None:
        yield "emulated again", result.repeated


def _cells(one: Comparison) -> tuple[str, ...]:
    stages = {stage.stage: stage.mean_s for stage in one.stages}
    return (
        *_both(one.ttft_mean_s),
        *_both(one.ttft_p99_s),
        share(one.slo_attainment.simulated),
        *_both(one.cct_mean_s),
        error(stages["S1"].error),
        error(stages["S3"].error),
        f"{one.matched}/{one.flows}",
        share(one.within),
    )


def _both(pair: Pair) -> tuple[str, str]:
    return duration(pair.simulated), error(pair.error)


def render_table(result: Validation) -> Group:
    """What `mfs validate` prints."""
    scale = result.scale
    title = (
        f"{result.scenario}, seed {result.seed}, time x{scale.time_dilation:g}, bytes x{scale.bytes_scale:g}:"
        " emulated and simulated"
    )
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0))
    for i, heading in _NARROW.items():
        table.add_column(heading, justify="left" if i < 2 else "right", overflow="fold", no_wrap=i > 0)
    for row in rows_of(result.policies):
        table.add_row(*(Text(row[i] if i < 2 else row[i].replace(" ", "")) for i in _NARROW))
    parts: list[RenderableType] = [table]
    parts += [Text(line) for line in notes(result)]
    for goal in result.goals:
        word, style = ("met", "green") if goal.met else ("NOT met", "red")
        parts.append(Text(f"{word}: {goal.name}: {goal.value}", style))
    return Group(*parts)


def notes(result: Validation) -> Iterator[str]:
    """What has to be known to read the numbers."""
    for one in result.policies:
        if one.not_replayed is not None:
            yield f"{one.policy}: the batches of the emulated run could not be made again: {one.not_replayed}"
    for ranking in result.rankings:
        tau = NOTHING if ranking.tau is None else f"{ranking.tau:+.2f}"
        yield (
            f"by {ranking.measure}: emulated {', '.join(ranking.emulated)}; simulated"
            f" {', '.join(ranking.simulated)}; Kendall's tau {tau}, closer than {100 * ranking.tie:.3g}"
            f" {'%' if ranking.measure == 'mean TTFT' else 'points'} counts as equal"
        )


def render_validation(result: Validation, flows: Flows) -> str:
    """The page, as text."""
    sections = [
        section("Side by side", _results(result)),
        section("Stages", _stages(result)),
        section("Flows", *(_flows(policy, matched) for policy, matched in flows.items())),
        section("Overheads", _overheads(result)),
    ]
    return page(
        title=f"{result.scenario}: emulated and simulated",
        subtitle=f"{', '.join(one.policy for one in result.policies)}, seed {result.seed}",
        verdict=_verdict(result),
        sections=sections,
    )


def _verdict(result: Validation) -> Markup:
    items = "".join(
        f"<li>{'' if goal.met else '<b class=no>not met</b> '}{html(goal.name)}: {html(goal.value)}</li>"
        for goal in result.goals
    )
    kind, words = ("ok", "All goals are met.") if result.met else ("bad", "Not all goals are met.")
    return Markup(f"<div class='verdict {kind}'><b>{words}</b><ul>{items}</ul></div>")


def _results(result: Validation) -> Markup:
    lines = "".join(f"<p>{html(line)}</p>" for line in notes(result))
    return Markup(html_table(_HEADINGS, rows_of(result.policies), text_columns=2) + lines)


def _stages(result: Validation) -> Markup:
    """Completion times of the flows of each stage, and the errors of those that both runs have."""
    headings = ["policy", "run", "stage", "emulated", "the other", "error", "flows of both", "of one only"]
    rows = [
        (
            policy.policy,
            name,
            STAGE_TITLES[Stage(stage.stage)],
            duration(stage.mean_s.emulated),
            duration(stage.mean_s.simulated),
            error(stage.mean_s.error),
            stage.matched,
            f"{stage.only_emulated}, {stage.only_simulated}",
            error(stage.p10),
            error(stage.p50),
            error(stage.p90),
            share(stage.within),
        )
        for policy in result.policies
        for name, one in _comparisons(policy)
        for stage in one.stages
    ]
    return html_table([*headings, "a tenth below", "half", "nine tenths", "right"], rows, text_columns=3)


def _flows(policy: str, matched: dict[str, Matched]) -> Markup:
    return Markup(
        Markup(f"<h3>{html(policy)}</h3>")
        + figure(
            flow_figure(matched),
            "Each flow that both runs have, from submit to finish; a collective is one flow. Between the "
            f"dashed lines the simulated time is within {FLOW_ERROR:.0%}.",
        )
        + figure(error_figure(matched), "Share of the flows whose time is off by at most x.")
    )


def _overheads(result: Validation) -> Markup:
    machine = result.overheads
    rows = [
        (
            name,
            f"{getattr(result.links, name):g}",
            "" if machine is None else f"{getattr(machine, name):g}",
        )
        for name in result.links.__struct_fields__
    ]
    return html_table(["in model units", "links", "machine"], rows, text_columns=1)


@figure_style
def flow_figure(matched: dict[str, Matched]) -> str:
    """Simulated against emulated time of each flow, a panel for each pair of runs; empty without flows."""
    shown = {name: one for name, one in matched.items() if len(one.stages)}
    if not shown:
        return ""
    drawing, panels = new_figure(1, len(shown), height=3.2)
    for axes, (name, one) in zip(panels, shown.items(), strict=True):
        times = np.concatenate((one.emulated_ns, one.simulated_ns)) / 1e6
        ends = np.array([max(1e-3, times[times > 0].min(initial=1.0)), times.max(initial=1.0)])
        axes.plot(ends, ends, linewidth=0.9)
        for factor in (1 - FLOW_ERROR, 1 + FLOW_ERROR):
            axes.plot(ends, ends * factor, linewidth=0.7, linestyle=(0, (4, 3)))
        for stage in Stage:
            of_stage = one.of(stage)
            step = -(-len(of_stage.stages) * len(Stage) // MOST_POINTS) or 1
            axes.scatter(
                of_stage.emulated_ns[::step] / 1e6,
                of_stage.simulated_ns[::step] / 1e6,
                s=8,
                alpha=0.5,
                linewidths=0,
                color=_STAGE_COLOURS[stage],
                label=STAGE_TITLES[stage],
                rasterized=True,
            )
        axes.set(title=name, xlabel="emulated (ms)", ylabel="the other (ms)", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
        axes.set_box_aspect(1)
    legend_above(drawing, panels[0])
    return svg(drawing, "Simulated against emulated completion time of each flow")


@figure_style
def error_figure(matched: dict[str, Matched]) -> str:
    """How far off the flows are, by stage; a panel for each pair of runs; empty without flows."""
    shown = {name: one for name, one in matched.items() if len(one.stages)}
    if not shown:
        return ""
    drawing, panels = new_figure(1, len(shown), height=2.4)
    for axes, (name, one) in zip(panels, shown.items(), strict=True):
        for stage in Stage:
            errors = np.minimum(np.abs(one.of(stage).errors), 2 * _MOST_ERROR)
            draw_cdf(axes, errors.tolist(), label=STAGE_TITLES[stage], colour=_STAGE_COLOURS[stage])
        draw_mark(axes, FLOW_ERROR, f"{FLOW_ERROR:.0%}")
        axes.set(title=name, xlabel="relative error", ylabel="share of flows", xlim=(0, _MOST_ERROR))
    legend_above(drawing, panels[0])
    return svg(drawing, "Distribution of the relative error of flow completion times")

"""The page of a validation: the comparisons as tables, and figures of all flows."""

from typing import Final

import numpy as np
from matplotlib.ticker import NullLocator, StrMethodFormatter

from controller.flow import SERVING_STAGES, Stage
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
from experiments.report.markup import Markup, html, table
from experiments.report.page import figure, page, section
from experiments.results.readable_numbers import duration, share
from experiments.validate.compare import FLOW_ERROR, Matched
from experiments.validate.result import MatchedFlows, Validation
from experiments.validate.table import comparisons, error, notes, rows_of

MOST_POINTS: Final = 4000
"""Most points of a scatter plot. If there are more flows, every n-th is drawn."""

_MOST_ERROR: Final = 1.0
_STAGE_COLOURS: Final = dict(zip(Stage, COLOURS[1:], strict=False))
_HEADINGS: Final = (
    *("policy", "run", "mean TTFT", "error", "TTFT p99", "error", "SLO met"),
    *("mean CCT", "error", "S1 error", "S3 error", "flows", "right"),
)


def render_validation(result: Validation, flows: MatchedFlows) -> str:
    """Return the page as text."""
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
    return Markup(table(_HEADINGS, rows_of(result.policies), text_columns=2) + lines)


def _stages(result: Validation) -> Markup:
    """Table of the times of the flows of each stage, and of the errors of those that both runs have."""
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
        for name, one in comparisons(policy)
        for stage in one.stages
    ]
    return table([*headings, "a tenth below", "half", "nine tenths", "right"], rows, text_columns=3)


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
    return table(["in model units", "links", "machine"], rows, text_columns=1)


@figure_style
def flow_figure(matched: dict[str, Matched]) -> str:
    """Draw simulated against emulated time of each flow, a panel per pair of runs; empty without flows."""
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
        for stage in SERVING_STAGES:
            of_stage = one.of(stage)
            step = -(-len(of_stage.stages) * len(SERVING_STAGES) // MOST_POINTS) or 1
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
    """Draw the distributions of absolute errors by stage, a panel per pair of runs; empty without flows."""
    shown = {name: one for name, one in matched.items() if len(one.stages)}
    if not shown:
        return ""
    drawing, panels = new_figure(1, len(shown), height=2.4)
    for axes, (name, one) in zip(panels, shown.items(), strict=True):
        for stage in SERVING_STAGES:
            errors = np.minimum(np.abs(one.of(stage).errors), 2 * _MOST_ERROR)
            draw_cdf(axes, errors.tolist(), label=STAGE_TITLES[stage], colour=_STAGE_COLOURS[stage])
        draw_mark(axes, FLOW_ERROR, f"{FLOW_ERROR:.0%}")
        axes.set(title=name, xlabel="relative error", ylabel="share of flows", xlim=(0, _MOST_ERROR))
    legend_above(drawing, panels[0])
    return svg(drawing, "Distribution of the relative error of flow completion times")

"""What `mfs validate` prints: each emulated run, and below it the runs it was compared with."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from controller.flow import Stage
from experiments.fitted_table import FittedTable
from experiments.results.readable_numbers import NOTHING, duration, share
from experiments.validate.compare import Comparison, Pair
from experiments.validate.ranking import RankedBy
from experiments.validate.result import PolicyResult, Validation

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
"""The columns of `rows_of` that fit into a terminal of 80 columns, and their headings."""


def error(value: float | None) -> str:
    """Return a relative error in per cent, with its sign."""
    return NOTHING if value is None else f"{100 * value:+.1f} %"


def rows_of(results: Sequence[PolicyResult]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each emulated run, and one for each run it was compared with.

    A simulation has `ideal` links, `links` as the emulated fabric configures them, or all overheads of the
    `machine`; a `replay` runs the emulated batches.
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
        for name, one in comparisons(result):
            yield ("", name, *_cells(one))


def comparisons(result: PolicyResult) -> Iterator[tuple[str, Comparison]]:
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
        error(stages[Stage.KV_REUSE.value].error),
        error(stages[Stage.P2D.value].error),
        f"{one.matched}/{one.flows}",
        share(one.within),
    )


def _both(pair: Pair) -> tuple[str, str]:
    return duration(pair.simulated), error(pair.error)


def render_table(result: Validation) -> Group:
    """Return what `mfs validate` prints: the table, notes and goals."""
    scale = result.scale
    title = (
        f"{result.scenario}, seed {result.seed}, time x{scale.time_dilation:g}, bytes x{scale.bytes_scale:g}:"
        " emulated and simulated"
    )
    table = FittedTable(title=Text(title), keys=2)
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
    """Yield what a reader has to know to understand the numbers."""
    for one in result.policies:
        if one.not_replayed is not None:
            yield f"{one.policy}: the batches of the emulated run could not be made again: {one.not_replayed}"
    for ranking in result.rankings:
        tau = NOTHING if ranking.tau is None else f"{ranking.tau:+.2f}"
        yield (
            f"by {ranking.measure}: emulated {', '.join(ranking.emulated)}; simulated"
            f" {', '.join(ranking.simulated)}; Kendall's tau {tau}, closer than {100 * ranking.tie:.3g}"
            f" {'%' if ranking.measure == RankedBy.MEAN_TTFT else 'points'} counts as equal"
        )

"""The page of a sweep: measures against the first swept key, a line per policy."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from experiments.atomic_file import write_text
from experiments.compare.replicates import MEASURES
from experiments.report.chart import COLOURS, figure_style, legend_above, new_figure, svg
from experiments.report.markup import Markup, html, table
from experiments.report.page import figure, folded, page, paragraphs, section
from experiments.results.readable_numbers import NOTHING
from experiments.sweep.differences import words_of
from experiments.sweep.gaps import gap_words
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.replicates import TITLES, Replicates, Spread, measures_of, replicates_of, written
from experiments.sweep.results import CellRow, Measure
from experiments.sweep.verdict import verdict

MOST_ROWS: Final = 12
_MOST_OPEN: Final = 24
"""Rows of a table that is not folded."""
_TABLES: Final = ("sweep.csv", "sweep.json", "differences.csv")
_NOT_DRAWN: Final = (Measure.TTFT_P99_S, Measure.ARRIVAL_RPS)
_MOST_TICKS: Final = 8
_PERCENT: Final = 100.0
_ASIDE: Final = 0.008
"""How far beside each other the intervals of policies stand, as a share of the x axis."""


def write_page(
    directory: Path,
    plan: Plan,
    rows: Sequence[CellRow],
    *,
    command: str,
    differences: Sequence[dict[str, Any]],
    gaps: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write `sweep.html` into `directory` and return its path. Raises `OSError` if it cannot be written."""
    path = directory / "sweep.html"
    write_text(
        path, render_page(plan, rows, command=command, differences=differences, gaps=gaps, notes=notes)
    )
    return path


def render_page(
    plan: Plan,
    rows: Sequence[CellRow],
    *,
    command: str,
    differences: Sequence[dict[str, Any]] = (),
    gaps: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> str:
    replicates = replicates_of(plan, rows)
    spread = (
        f" Means over {plan.replicates} {plan.replicates_are}, with their 95 % intervals. All"
        f" policies have the same {plan.replicates_are}, so compare them by the table of differences, not by"
        " whether their intervals overlap."
        if plan.replicates > 1
        else ""
    )
    sections = []
    if replicates:
        first = _axis_key(plan) or "policy"
        caption = f"Each measure by {first}.{spread}" + (
            f" Only {MOST_ROWS} combinations of the other keys." if len(_rows(plan)) > MOST_ROWS else ""
        )
        drawn = figure(_measures_figure(plan, replicates), caption)
        sections.append(section("Figures", drawn))
    sections += [
        section(
            f"Differences from {plan.policies[0]}",
            _folded_if_long("all differences", _differences(plan, differences), len(differences)),
        ),
        section("Gap to a network that takes no time", _gaps(plan, gaps)),
        section("Results", _folded_if_long("all results", _results(plan, replicates), len(replicates))),
    ]
    sections.append(section("Notes", paragraphs(notes)))
    failed = [row for row in rows if row["error"] is not None]
    sections.append(section("Cells that failed", _failures(failed)))
    sections.append(section("What was run", Markup(f"<p><code>{escape(command)}</code></p>"), _files(plan)))
    over = "; ".join(f"{one.key} = {', '.join(map(as_text, one.values))}" for one in plan.over)
    return page(
        title=f"{plan.scenario}: sweep",
        subtitle=f"{', '.join(plan.policies)} on the fabric {plan.fabric}"
        + (f", over {over}" if over else ""),
        verdict=verdict(plan, rows, differences),
        sections=sections,
    )


def _files(plan: Plan) -> Markup:
    names = [*_TABLES, *(["gaps.csv"] if plan.ceiling else [])]
    links = ", ".join(f"<a href='{name}'>{name}</a>" for name in names)
    return Markup(f"<p>Tables: {links}. Each cell: <a href='cells/'>cells</a>.</p>")


def _folded_if_long(summary: str, content: Markup, rows: int) -> Markup:
    return folded(f"{summary}: {rows} rows", content) if rows > _MOST_OPEN else content


def _results(plan: Plan, replicates: Sequence[Replicates]) -> Markup:
    keys, measures = plan.keys, measures_of(replicates)
    if not replicates:
        return Markup("<p>No cell has finished.</p>")
    return table(
        [*keys, "policy", plan.replicates_are, *(TITLES[measure] for measure in measures)],
        [
            (
                *(as_text(one.values[key]) for key in keys),
                one.policy,
                str(one.count),
                *(_spread(name, one.spreads.get(name)) for name in measures),
            )
            for one in replicates
        ],
        text_columns=len(keys) + 1,
    )


def _spread(name: Measure, spread: Spread | None) -> Markup:
    if spread is None:
        return html(NOTHING)
    mean = html(written(name, spread.mean))
    if spread.least == spread.most:
        return mean
    least, most = written(name, spread.least), written(name, spread.most)
    return Markup(f"{mean}<small>{html(least)} .. {html(most)}</small>")


def _differences(plan: Plan, differences: Sequence[dict[str, Any]]) -> Markup:
    """Table of how policies differ from the first one; empty without replicates."""
    paired = [row for row in differences if row["replicates"] > 1]
    if not paired:
        return Markup("")
    rows = [
        (
            *(as_text(row[key]) for key in plan.keys),
            row["policy"],
            MEASURES[row["measure"]][0],
            str(row["replicates"]),
            *words_of(row),
        )
        for row in paired
    ]
    said = (
        "<p>Differences of the same replicate, and the 95 % interval of their mean (Student's t). "
        "Where the interval holds 0, no difference is shown.</p>"
    )
    headings = [*plan.keys, "policy", "measure", "replicates", "mean difference", "interval"]
    return Markup(said + table(headings, rows, text_columns=len(plan.keys) + 2))


def _gaps(plan: Plan, gaps: Sequence[dict[str, Any]]) -> Markup:
    """Table of the shares of the gap to the ceiling that policies close; empty without ceilings."""
    if not gaps:
        return Markup("")
    said = (
        f"<p>How much of the gap between {html(gaps[0]['reference'])} and a network that takes no time each"
        " policy closes: a ratio of means over replicates, with its 95 % interval (jackknife).</p>"
    )
    headings = [*plan.keys, "policy", "measure", "replicates", gaps[0]["reference"], "no network", "closed"]
    rows = [
        (
            *(as_text(row[key]) for key in plan.keys),
            row["policy"],
            MEASURES[row["measure"]][0],
            str(row["replicates"]),
            *(written(Measure(row["measure"]), row[end]) for end in ("reference_mean", "ceiling_mean")),
            " ".join(gap_words(row)),
        )
        for row in gaps
    ]
    return Markup(said + table(headings, rows, text_columns=len(plan.keys) + 2))


def _failures(rows: Sequence[CellRow]) -> Markup:
    if not rows:
        return Markup("")
    return table(
        ["cell", "error"], [(row["cell"], row["error"].splitlines()[0]) for row in rows], text_columns=2
    )


def _axis_key(plan: Plan) -> str | None:
    return next(iter(plan.keys), None)


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """The combinations of the swept keys other than the first and replicates. Each has a row of panels."""
    rows: list[dict[str, Any]] = [{}]
    for one in plan.over:
        if one.key in plan.keys[1:]:
            rows = [row | {one.key: value} for row in rows for value in one.values]
    return rows


@figure_style
def _measures_figure(plan: Plan, replicates: Sequence[Replicates]) -> str:
    key = _axis_key(plan)
    values = next((one.values for one in plan.over if one.key == key), ())
    numeric = bool(values) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    names = [name for name in measures_of(replicates) if name not in _NOT_DRAWN]
    rows = _rows(plan)[:MOST_ROWS]
    units = {
        name: _unit(name, [one.spreads[name] for one in replicates if name in one.spreads]) for name in names
    }
    drawing, panels = new_figure(len(rows), max(1, len(names)), height=2.5)
    for r, row in enumerate(rows):
        here = [one for one in replicates if all(one.values[k] == v for k, v in row.items())]
        for axes, name in zip(panels[r * len(names) :], names, strict=False):
            for i, policy in enumerate(plan.policies):
                aside = (i - (len(plan.policies) - 1) / 2) * _ASIDE * _width(values, numeric)
                points = [
                    (_place(one, key, values, numeric, i) + aside, one.spreads[name])
                    for one in here
                    if one.policy == policy and name in one.spreads
                ]
                _draw(
                    axes,
                    sorted(points, key=lambda point: point[0]),
                    units[name][0],
                    label=policy,
                    color=COLOURS[i % len(COLOURS)],
                )
            title = TITLES[name] + "".join(f", {k.rpartition('.')[2]}={as_text(v)}" for k, v in row.items())
            axes.set(title=title, ylabel=units[name][1])
            if r == len(rows) - 1:
                axes.set_xlabel(key or "policy")
            if key is None:
                axes.set_xticks(range(len(plan.policies)), plan.policies, rotation=20, ha="right")
            elif not numeric:
                axes.set_xticks(range(len(values)), [as_text(value) for value in values])
            elif len(values) <= _MOST_TICKS:
                axes.set_xticks([float(value) for value in values], [as_text(value) for value in values])
            axes.set_ylim(bottom=0, top=102 if name is Measure.SLO_ATTAINMENT else None)
    if panels and key is not None:
        legend_above(drawing, panels[0])
    return svg(drawing, f"Measures of each policy against {escape(key or 'policy')}")


def _width(values: Sequence[Any], numeric: bool) -> float:
    """How far apart the first and the last value are on the x axis; 0 for a single one."""
    if numeric:
        return float(max(values)) - float(min(values))
    return max(0.0, len(values) - 1.0)


def _place(one: Replicates, key: str | None, values: Sequence[Any], numeric: bool, policy: int) -> float:
    """The x of replicates: the value of `key` if numeric, else its index; without a key, the policy."""
    if key is None:
        return policy
    value = one.values[key]
    return float(value) if numeric else list(values).index(value)


def _unit(name: Measure, spreads: Iterable[Spread]) -> tuple[float, str]:
    """Return what a measure is multiplied by, and the unit that it then has."""
    if name is Measure.SLO_ATTAINMENT:
        return _PERCENT, "%"
    return (1e3, "ms") if any(spread.mean >= 1e-3 for spread in spreads) else (1e6, "µs")


def _draw(
    axes: Any, points: Sequence[tuple[float, Spread]], factor: float, *, label: str, color: str
) -> None:
    x = [place for place, _ in points]
    mean = [spread.mean * factor for _, spread in points]
    axes.plot(x, mean, color=color, linewidth=1.6, marker="o", ms=3.5, label=label)
    most = _PERCENT if factor == _PERCENT else np.inf  # no share is above 100 %
    low = [(spread.mean if spread.low is None else spread.low) * factor for _, spread in points]
    high = [min(most, (spread.mean if spread.high is None else spread.high) * factor) for _, spread in points]
    beyond = [np.subtract(mean, low), np.subtract(high, mean)]
    if np.any(beyond):
        axes.errorbar(x, mean, yerr=beyond, fmt="none", ecolor=color, elinewidth=1.1, capsize=2.5)

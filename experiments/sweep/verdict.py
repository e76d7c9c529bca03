"""What the reader of a sweep's page has to know first: the result, what limits it, and what is missing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from experiments.report.markup import Markup, html
from experiments.report.verdict import banner
from experiments.results.difference_words import Unit, difference_words
from experiments.results.limit_words import limit_name
from experiments.results.paired import Difference
from experiments.results.readable_numbers import duration, share
from experiments.sweep.plan import Plan
from experiments.sweep.replicates import Replicates, replicates_of
from experiments.sweep.results import CellRow, Measure

_MEANS: Final = {
    Measure.TTFT_MEAN_S: "mean TTFT",
    Measure.COFLOW_MEAN_S: "mean coflow completion time",
}
"""The measures besides SLO attainment that the verdict names. Of these, less is better."""


def verdict(plan: Plan, rows: Sequence[CellRow], differences: Sequence[Mapping[str, Any]]) -> Markup:
    finished = [row for row in rows if row["error"] is None]
    unfaithful = sum(not row["faithful"] for row in finished)
    missing = len(plan.cells) - len(finished)
    said = []
    if missing:
        said.append(f"{missing} of {len(plan.cells)} cells have no result.")
    if unfaithful:
        said.append(
            f"{unfaithful} of {len(plan.cells)} cells are not faithful: draw no conclusions from them."
        )
    trusted = (
        Markup(f"<p><b class=no>{html(' '.join(said))}</b></p>")
        if said
        else Markup("<p><b>Complete and faithful.</b> Every cell finished.</p>")
    )
    return banner(
        ok=not said,
        result=_results(plan, rows, differences, unfaithful=unfaithful),
        limit=limit_sentences(finished),
        fidelity=trusted,
    )


def limit_sentences(finished: Sequence[CellRow]) -> list[str]:
    """Say how many cells were limited by what."""
    counts = Counter(limit_name(row) for row in finished if row.get(Measure.LIMIT) is not None)
    if not counts:
        return []
    cells = "cell" if len(finished) == 1 else "cells"
    return [f"Of {len(finished)} {cells}, " + ", ".join(f"{n} {name}" for name, n in counts.most_common())]


def _results(
    plan: Plan, rows: Sequence[CellRow], differences: Sequence[Mapping[str, Any]], *, unfaithful: int
) -> list[str]:
    replicates = replicates_of(plan, rows)
    first = plan.policies[0]
    told = []
    for policy in plan.policies:
        mine = [one for one in replicates if one.policy == policy]
        if not mine:
            continue
        said = f"{policy} {_reached(mine)}."
        paired = [row for row in differences if row["policy"] == policy and row["replicates"] > 1]
        against = [
            words for measure in (Measure.SLO_ATTAINMENT, *_MEANS) if (words := _words(paired, measure))
        ]
        if against and not unfaithful:
            said += f" Against {first}: {'; '.join(against)}."
        told.append(said)
    if len(plan.policies) == 1 or not told:
        return told
    if unfaithful:
        told.append("No difference is stated, because cells are not faithful.")
    elif plan.replicates < 2:
        one = plan.replicates_are.removesuffix("s")
        told.append(f"With one {one}, it is not known whether a difference is more than chance.")
    else:
        over = f"over the paired {plan.replicates_are}"
        note = f"A difference is shown where its 95 % interval {over} leaves out 0."
        told.append(Markup(f"<small>{note}</small>"))
    return told


def _reached(replicates: Sequence[Replicates]) -> str:
    """Return "met the SLO of 61.0 % to 95.2 % of the requests, with a mean TTFT of 181 ms to 402 ms"."""
    met = [
        one.spreads[Measure.SLO_ATTAINMENT].mean
        for one in replicates
        if Measure.SLO_ATTAINMENT in one.spreads
    ]
    said = f"met the SLO of {_range(met, share)} of the requests, with" if met else "had"
    for measure, name in _MEANS.items():
        means = [one.spreads[measure].mean for one in replicates if measure in one.spreads]
        if means:
            return f"{said} a {name} of {_range(means, duration)}"
    return said.removesuffix(", with") if met else "finished"


def _range(values: Sequence[float], written: Any) -> str:
    low, high = written(min(values)), written(max(values))
    return str(low) if low == high else f"{low} to {high}"


def _words(rows: Sequence[Mapping[str, Any]], measure: Measure) -> str:
    """Say where a measure differs from that of the first policy, and by how much; empty if nobody knows."""
    mine = [row for row in rows if row["measure"] == measure]
    if not mine:
        return ""
    unit = Unit.POINTS if measure is Measure.SLO_ATTAINMENT else Unit.SECONDS
    what = "SLO met" if measure is Measure.SLO_ATTAINMENT else _MEANS[measure]
    if len(mine) == 1:
        said, interval = difference_words(_difference(mine[0]), unit)
        return f"{said} in {what} {interval}"
    up, down = ("more", "less") if unit is Unit.POINTS else ("a higher", "a lower")
    shown = [row["mean"] for row in mine if row["shown"]]
    parts = []
    for word, means in (
        (up, [mean for mean in shown if mean > 0]),
        (down, [mean for mean in shown if mean < 0]),
    ):
        if means:
            ends = dict.fromkeys(_signed(end(means, key=abs), unit) for end in (min, max))
            parts.append(f"{word} {what} at {len(means)} of {len(mine)} points ({' to '.join(ends)})")
    unclear = len(mine) - len(shown)
    if unclear:
        parts.append(f"no difference shown in {what} at {unclear} of {len(mine)} points")
    return ", ".join(parts)


def _signed(mean: float, unit: Unit) -> str:
    return difference_words(Difference(mean=mean, low=None, high=None, count=1), unit)[0]


def _difference(row: Mapping[str, Any]) -> Difference:
    return Difference(mean=row["mean"], low=row["low"], high=row["high"], count=row["replicates"])

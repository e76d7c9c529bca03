"""The means over replicates (seeds, or windows of a trace) that the table and the page of a sweep show."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.results.paired import over_replicates
from experiments.results.readable_numbers import duration, share
from experiments.sweep.plan import Plan
from experiments.sweep.results import CellRow, Measure

_LAST_RESORT = Measure.DURATION_S
"""Shown only if there is no other measure, as for single flows."""

TITLES = {
    Measure.ARRIVAL_RPS: "requests/s",
    Measure.SLO_ATTAINMENT: "SLO met",
    Measure.TTFT_MEAN_S: "TTFT mean",
    Measure.TTFT_P99_S: "TTFT p99",
    Measure.CCT_MEAN_S: "CCT mean",
    Measure.COFLOW_MEAN_S: "coflow mean",
    Measure.PRUNED: "pruned",
    _LAST_RESORT: "duration",
}
"""The measures that are shown, and their headings."""

_IF_ANY = {Measure.PRUNED}
"""Shown only if it is not 0 everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean, least and most of a measure over replicates, and the 95 % interval of the mean.

    `low` and `high` are None for a single replicate.
    """

    mean: float
    least: float
    most: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicates:
    """Finished cells that differ only in their seed or window. `spreads` omits measures that none has."""

    values: dict[str, Any]
    policy: str
    count: int
    spreads: dict[Measure, Spread]


def replicates_of(plan: Plan, rows: Sequence[CellRow]) -> list[Replicates]:
    """Group the finished cells that differ only in their seed or window, in the order of the plan."""
    found: dict[str, list[CellRow]] = {}
    for row in rows:
        if row["error"] is None:
            name = json.dumps([[row[key] for key in plan.keys], row["policy"]])
            found.setdefault(name, []).append(row)
    return [
        Replicates(
            values={key: alike[0][key] for key in plan.keys},
            policy=alike[0]["policy"],
            count=len(alike),
            spreads={
                name: _spread(values)
                for name in TITLES
                if (values := [row[name] for row in alike if row[name] is not None])
            },
        )
        for alike in found.values()
    ]


def _spread(values: Sequence[float]) -> Spread:
    found = over_replicates(values)
    return Spread(mean=found.mean, least=min(values), most=max(values), low=found.low, high=found.high)


def measures_of(replicates: Sequence[Replicates]) -> list[Measure]:
    """Return the measures of `TITLES` that any of the replicates have."""
    found = [name for name in TITLES if any(_has(one, name) for one in replicates)]
    return [name for name in found if name != _LAST_RESORT] or found


def _has(replicates: Replicates, measure: Measure) -> bool:
    spread = replicates.spreads.get(measure)
    return spread is not None and (spread.most > 0 or measure not in _IF_ANY)


def written(measure: Measure, value: float) -> str:
    if measure is Measure.ARRIVAL_RPS:
        return f"{value:.3g}"
    if measure is Measure.PRUNED:
        return f"{value:.1f}".removesuffix(".0")
    return share(value) if measure is Measure.SLO_ATTAINMENT else duration(value)

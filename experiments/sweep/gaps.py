"""How much of the gap to a network that takes no time policies close, over the replicates of a sweep.

The gap is from `fair`, or else the first policy, to the ceiling (`experiments.run.ceiling`), and the share of
it that a policy closes is a ratio of means over replicates (decision 0028).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.atomic_file import write_text
from experiments.csv_text import csv_text
from experiments.results.gap import closed_share, reference_of
from experiments.results.paired import REPLICATES, Difference, jackknife
from experiments.sweep.plan import Plan, as_text
from experiments.sweep.results import CEILINGS, CellRow, Measure

_COLUMNS: Final = (
    "policy", "reference", "measure", "reference_mean", "ceiling_mean", "closed", "low", "high", "replicates",
)  # fmt: skip


class _Triple(msgspec.Struct, frozen=True):
    """A measure of one replicate: under the policy, under the reference, and at the ceiling."""

    policy: float
    reference: float
    ceiling: float


def gaps_of(plan: Plan, rows: Sequence[CellRow]) -> list[dict[str, Any]]:
    """Return a row per point, policy and measure; none without ceilings.

    A row has the swept keys and `_COLUMNS`. `reference_mean` and `ceiling_mean` are the ends of the gap.
    `closed` is the share of it that the policy closes, None if there is no gap. `low` to `high` is its 95 %
    interval, None for one replicate and where one less would leave no gap. A replicate counts if its cells
    under the policy and the reference, and its ceiling, are there.
    """
    if not plan.ceiling:
        return []
    reference = reference_of(plan.policies)
    points: dict[str, dict[str, dict[str, CellRow]]] = {}
    for row in rows:
        if row["error"] is None:
            point = json.dumps([row[key] for key in plan.keys])
            replicate = json.dumps([row.get(key) for key in REPLICATES])
            points.setdefault(point, {}).setdefault(row["policy"], {})[replicate] = row
    found = []
    for by_policy in points.values():
        theirs = by_policy.get(reference, {})
        for policy in plan.policies:
            mine = by_policy.get(policy, {})
            if policy == reference or not mine:
                continue
            values = {key: next(iter(mine.values()))[key] for key in plan.keys}
            for measure in CEILINGS:
                triples = _triples(measure, mine, theirs)
                if triples:
                    found.append(
                        values
                        | {"policy": policy, "reference": reference, "measure": measure.value}
                        | _gap(measure, triples)
                    )
    return found


def _triples(measure: Measure, mine: Mapping[str, CellRow], theirs: Mapping[str, CellRow]) -> list[_Triple]:
    found = []
    for replicate, row in mine.items():
        if replicate not in theirs:
            continue
        policy, reference = row[measure], theirs[replicate][measure]
        ceiling = row[CEILINGS[measure]]
        if policy is not None and reference is not None and ceiling is not None:
            found.append(_Triple(policy, reference, ceiling))
    return found


def _gap(measure: Measure, triples: Sequence[_Triple]) -> dict[str, Any]:
    closed = _closed(measure, triples)
    parts = [_closed(measure, [*triples[:i], *triples[i + 1 :]]) for i in range(len(triples))]
    known = [part for part in parts if part is not None]
    interval = Difference(mean=0.0, low=None, high=None, count=len(triples))
    if closed is not None and len(known) == len(parts) > 1:
        interval = jackknife(closed, known)
    return {
        "reference_mean": _mean([one.reference for one in triples]),
        "ceiling_mean": _mean([one.ceiling for one in triples]),
        "closed": closed,
        "low": interval.low,
        "high": interval.high,
        "replicates": len(triples),
    }


def _closed(measure: Measure, triples: Sequence[_Triple]) -> float | None:
    if not triples:
        return None
    start = _mean([one.reference for one in triples])
    return closed_share(
        _mean([one.policy for one in triples]),
        start,
        _mean([one.ceiling for one in triples]),
        unit=1.0 if measure is Measure.SLO_ATTAINMENT else start,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def write_gaps(directory: Path, plan: Plan, gaps: Sequence[Mapping[str, Any]]) -> None:
    """Write `gaps` to `gaps.csv`, with empty fields for None."""
    lines = [
        [*(None if row[key] is None else as_text(row[key]) for key in plan.keys), *map(row.get, _COLUMNS)]
        for row in gaps
    ]
    write_text(directory / "gaps.csv", csv_text([[*plan.keys, *_COLUMNS], *lines]))


def gap_words(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the share that is closed, and its interval; each is empty if it is not known."""
    if row["closed"] is None:
        return "no gap", ""
    interval = "" if row["low"] is None else f"[{_percent(row['low'])}, {_percent(row['high'])}]"
    return _percent(row["closed"]), interval


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"

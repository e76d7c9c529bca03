"""What a search found over its replicates: means, paired differences, shares of the gap to the ceiling."""

from collections.abc import Mapping
from typing import Any, Final

from experiments.clairvoyant.question import Question
from experiments.results.gap import CEILING, REFERENCE
from experiments.results.paired import over_replicates
from experiments.sweep.notes import plan_warnings
from experiments.sweep.plan import Plan

FOUND: Final = "best found"
_LEAST_GAP: Final = 0.01


def content_of(
    replicates: Mapping[str, Mapping[str, Any]], plan: Plan, question: Question, command: str
) -> dict[str, Any]:
    """Return the content of `clairvoyant.json`.

    `rows` has a row for each policy, the best schedule that was found and the ceiling. `met` and `ttft` are
    how much more the best schedule reaches than the row does, with 95 % intervals over the replicates.
    `closed` is the share of the gap in SLO attainment between the reference and the ceiling, of means; None
    where the gap is below a point.
    """
    values = {policy: [one["policies"][policy] for one in replicates.values()] for policy in plan.policies}
    values[FOUND] = [one["found"] for one in replicates.values()]
    values[CEILING] = [one[CEILING] for one in replicates.values()]
    reference = REFERENCE if REFERENCE in plan.policies else plan.policies[0]
    met = {name: _mean(of, "slo_attainment") for name, of in values.items()}
    gap = met[CEILING] - met[reference]
    rows = []
    for name, of in values.items():
        row = {
            "policy": name,
            "slo_attainment": met[name],
            "ttft_mean_s": _mean(of, "ttft_mean_s"),
            "closed": (met[name] - met[reference]) / gap if gap >= _LEAST_GAP else None,
        }
        for key, measure in (("met", "slo_attainment"), ("ttft", "ttft_mean_s")):
            paired = [best[measure] - one[measure] for best, one in zip(values[FOUND], of, strict=True)]
            difference = over_replicates(paired)
            row[key] = {"mean": difference.mean, "low": difference.low, "high": difference.high}
        rows.append(row)
    return {
        "scenario": plan.scenario,
        "batches_of": question.batches_of,
        "evaluations": question.evaluations,
        "parts": question.parts,
        "reference": reference,
        "command": command,
        "notes": plan_warnings(plan),
        "rows": rows,
        "replicates": dict(replicates),
    }


def _mean(of: list[Mapping[str, Any]], measure: str) -> float:
    return sum(float(one[measure]) for one in of) / len(of)

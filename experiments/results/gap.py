"""How much of the gap between a reference and the ceiling a policy closes.

The ceiling is the same run with a network that takes no time (`experiments.run.ceiling`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from controller.units import NS_PER_S
from experiments.results.readable_numbers import NOTHING, duration, share
from experiments.results.requests import counted, slo_attainment
from testbed.record import RequestRow, RunRecord

CEILING: Final = "ceiling"
REFERENCE: Final = "fair"
"""The policy from which gaps are measured, if it is among those of a run; else the first one is."""

_LEAST: Final = 0.01
"""A gap below a point of attainment, or below this share of the reference's TTFT, is no gap to close."""


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What requests got: their SLO attainment, and the mean TTFT in model seconds."""

    slo_attainment: float | None
    ttft_mean_s: float | None

    @classmethod
    def of(cls, rows: Sequence[RequestRow]) -> "Reached":
        mine = counted(rows)
        ttft = [row.ttft_ns for row in mine if row.ttft_ns is not None]
        return cls(
            slo_attainment=slo_attainment(mine),
            ttft_mean_s=float(np.mean(ttft)) / NS_PER_S if ttft else None,
        )


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """What was reached without a network: with batches of its own, and with those of each policy.

    `reasons` says for which policies the batches could not be formed again, and why.
    """

    own_batches: Reached
    same_batches: Mapping[str, Reached]
    reasons: Mapping[str, str]


def ceiling_of(own: RunRecord, same: Mapping[str, RunRecord], reasons: Mapping[str, str]) -> Ceiling:
    return Ceiling(
        own_batches=Reached.of(own.requests),
        same_batches={policy: Reached.of(record.requests) for policy, record in same.items()},
        reasons=reasons,
    )


def reference_of(policies: Sequence[str]) -> str:
    """Return the policy from which gaps are measured."""
    return REFERENCE if REFERENCE in policies else policies[0]


def gaps(ceiling: Ceiling, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry `ceiling` of a summary with these `runs`.

    `closed` has, for each policy, the share of the gap between the reference and `own_batches` that it
    closes, in SLO attainment and in mean TTFT. It is None where there is no gap.
    """
    reference = reference_of([run["policy"] for run in runs])
    reached = {
        run["policy"]: Reached(slo_attainment=run["slo_attainment"], ttft_mean_s=run["ttft_s"]["mean"])
        for run in runs
    }
    first, best = reached[reference], ceiling.own_batches
    closed = {
        policy: {
            "slo_attainment": closed_share(
                one.slo_attainment, first.slo_attainment, best.slo_attainment, unit=1.0
            ),
            "ttft_mean_s": closed_share(
                one.ttft_mean_s, first.ttft_mean_s, best.ttft_mean_s, unit=first.ttft_mean_s
            ),
        }
        for policy, one in reached.items()
    }
    entry: dict[str, Any] = msgspec.to_builtins(ceiling)
    return entry | {"reference": reference, "closed": closed}


def closed_share(
    value: float | None, start: float | None, end: float | None, *, unit: float | None
) -> float | None:
    """Return the share of the gap from `start` to `end` that `value` closes; None if there is no gap.

    A gap below `_LEAST` times `unit` is none.
    """
    if value is None or start is None or end is None or not unit or abs(end - start) < _LEAST * unit:
        return None
    return (value - start) / (end - start)


def gap_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line on the ceiling, and one for each policy. Nothing without a ceiling."""
    ceiling = summary.get("ceiling")
    if not ceiling:
        return
    yield f"ceiling, a network that takes no time: {_reached(ceiling['own_batches'])}"
    for policy, closed in ceiling["closed"].items():
        same = ceiling["same_batches"].get(policy)
        held = f"its batches without a network: {_reached(same)}" if same else ceiling["reasons"].get(policy)
        met, ttft = (percent_closed(closed[name]) for name in ("slo_attainment", "ttft_mean_s"))
        if policy == ceiling["reference"]:
            yield f"  {policy}: {held}"
        else:
            yield f"  {policy} closes {met} of the gap in SLO met, {ttft} in mean TTFT; {held}"


def _reached(reached: Mapping[str, Any]) -> str:
    return f"SLO met {share(reached['slo_attainment'])}, mean TTFT {duration(reached['ttft_mean_s'])}"


def percent_closed(closed: float | None) -> str:
    """Return the share of a gap that is closed, or a dash if there is no gap."""
    return NOTHING if closed is None else f"{round(100 * closed)}%"

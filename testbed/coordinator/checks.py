"""Fidelity checks: a measure of a run, its bound, and what to change if it is not kept. Pure."""

from collections.abc import Sequence

import msgspec

from testbed.record import Check

PROBE_BOUND = 0.90
IDLE_BOUND = 0.05
PERMIT_P50_MS = 2.0
PERMIT_P99_MS = 10.0
RETRANSMIT_BOUND = 0.03  # after a promotion packets overtake queued ones, and TCP resends some
LATE_P99_MS = 10.0

_LATENCIES = 20  # fewer are not judged: the first permits of a run find every cache cold


def _percentile(values: Sequence[float], q: float) -> float | None:
    """Percentile `q`, interpolated linearly between the closest values as numpy does by default."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def latency(name: str, values_ms: Sequence[float], q: float, bound: float, advice: str) -> Check:
    """Check of a percentile in milliseconds. With too few values it is shown, but not judged."""
    check = at_most(name, _percentile(values_ms, q), bound, "ms", advice)
    if len(values_ms) >= _LATENCIES:
        return check
    bound_text = f"{check.bound}, not judged on {len(values_ms)} values"
    return msgspec.structs.replace(check, ok=True, advice="", bound=bound_text)


def at_least(name: str, value: float | None, bound: float, unit: str, advice: str) -> Check:
    ok = value is None or value >= bound
    return Check(name=name, value=value, bound=f">= {bound:g}", unit=unit, ok=ok, advice="" if ok else advice)


def at_most(name: str, value: float | None, bound: float, unit: str, advice: str) -> Check:
    ok = value is None or value <= bound
    return Check(name=name, value=value, bound=f"<= {bound:g}", unit=unit, ok=ok, advice="" if ok else advice)

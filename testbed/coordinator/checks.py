"""Fidelity checks of measures that are shares: a measure of a run, its bound, and what to change. Pure."""

from testbed.record import Check

PROBE_BOUND = 0.90
IDLE_BOUND = 0.05
RETRANSMIT_BOUND = 0.03  # after a promotion packets overtake queued ones, and TCP resends some


def at_least(
    name: str, value: float | None, bound: float, unit: str, advice: str, slower: float | None = None
) -> Check:
    ok = value is None or value >= bound
    return Check(
        name=name,
        value=value,
        bound=f">= {bound:g}",
        unit=unit,
        ok=ok,
        advice="" if ok else advice,
        slower=None if ok else slower,
    )


def at_most(name: str, value: float | None, bound: float, unit: str, advice: str) -> Check:
    ok = value is None or value <= bound
    return Check(name=name, value=value, bound=f"<= {bound:g}", unit=unit, ok=ok, advice="" if ok else advice)

"""Numbers as text for people: with a fitting unit, or a dash if there is no number."""

import math
from typing import Any

NOTHING = "-"


def duration(seconds: float | None) -> str:
    """Return three significant digits with a fitting unit: "1.23 s", "45.6 ms", "789 µs", "12 ns"."""
    if seconds is None:
        return NOTHING
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        value = seconds * factor
        if abs(value) >= 0.9995:
            decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:.{decimals}f} {unit}"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0 s"


def share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def pruned_in_words(counts: dict[str, Any]) -> str:
    """Describe the `counts` of a run: "7 of 48 requests were pruned, 2 of them until their end"."""
    return (
        f"{counts['pruned']} of {counts['arrived']} requests were pruned,"
        f" {counts['ended_pruned']} of them until their end"
    )


def check_value(check: dict[str, Any]) -> str:
    """Return the measured value of a check with its unit, or "not measured"."""
    if check["value"] is None:
        return "not measured"
    return f"{check['value']:.4g} {check['unit']}".strip()


def rounded_up(value: float) -> float:
    """Round up to two significant digits, so that the value is easy to read and to type."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.6g}")


def rounded_down(value: float) -> float:
    """Round down to two significant digits; 0 stays 0."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / step + 1e-9) * step:.6g}")
